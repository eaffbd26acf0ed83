"""The training corpus: clips of the embedded world, rendered once into a memory-mapped array, and what a codec makes of
them."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

from experiments.runs.progress import tracked
from freemask.data.world.render import render_frames
from freemask.data.world.spec import SPLITS, Scene, sample_scene
from freemask.errors import UserError

AT_ONCE = 64  # clips that are encoded together


@dataclass(frozen=True)
class Corpus:
    """Rendered clips (on disk as long as nobody moves them) and their captions."""

    frames: UInt8[Tensor, "clips f 3 h w"]
    captions: tuple[str, ...]
    folder: Path | None = None

    def latents(self, vae: Any, device: str = "cpu") -> Float16[Tensor, "clips f c y x"]:
        """Encoded once for each codec, and kept beside the frames."""
        weights = b"".join(value.float().numpy().tobytes() for value in vae.encoder.state_dict().values())
        mark = hashlib.sha256(weights).hexdigest()[:8]
        path = None if self.folder is None else self.folder / f"latents-{len(self.captions)}-{mark}.npy"

        def fill(store: np.ndarray, start: int) -> None:
            store[start : start + AT_ONCE] = self._encoded(vae, start, device).cpu().numpy()

        shape = (len(self.captions), *self._encoded(vae.to(device), 0, device).shape[1:])
        if path is None or not path.exists():
            starts = range(0, len(self.captions), AT_ONCE)
            made = _filled(path, shape, np.dtype(np.float16), starts, "encoding the corpus", fill)
        else:
            made = np.load(path, mmap_mode="c")
        vae.to("cpu")
        return torch.from_numpy(made)

    @torch.no_grad()
    def _encoded(self, vae: Any, start: int, device: str) -> Tensor:
        frames = self.frames[start : start + AT_ONCE].to(device)
        latents = vae.encode(frames.flatten(0, 1).float() / 127.5 - 1).latent
        return latents.unflatten(0, frames.shape[:2]).half()


def _filled(
    path: Path | None,
    shape: tuple[int, ...],
    kind: np.dtype,
    parts: range,
    what: str,
    fill: Callable[[np.ndarray, int], None],
) -> np.ndarray:
    """An array made part by part, on disk where it has a path: whole, or not there."""
    if path is None:
        store = np.empty(shape, kind)
        for each in parts:
            fill(store, each)
        return store
    half = path.with_suffix(".part")
    store = np.lib.format.open_memmap(half, mode="w+", dtype=kind, shape=shape)
    for each in tracked(parts, len(parts), what):
        fill(store, each)
    store.flush()
    os.replace(half, path)
    return np.load(path, mmap_mode="c")


def _render(seed: int) -> tuple[np.ndarray, str]:
    torch.set_num_threads(1)
    scene = sample_scene(seed)
    frames = (render_frames(scene) * 255).round().to(torch.uint8)
    return frames.numpy(), scene.caption


def scene_of(clip: int) -> Scene:
    """What a clip of a corpus shows: they are the first seeds of the training split."""
    return sample_scene(SPLITS["train"][clip])


def build_corpus(folder: Path, clips: int) -> Corpus:
    """Render the first seeds of the training split with every core, or read them where they are already."""
    if clips > len(SPLITS["train"]):
        raise UserError(
            "The training split has fewer clips.", came=clips, expected=f"at most {len(SPLITS['train'])}"
        )
    target, words = folder / f"frames-{clips}.npy", folder / f"captions-{clips}.json"
    if not (target.exists() and words.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        captions: list[str] = []
        with get_context("spawn").Pool(os.cpu_count()) as pool:
            made = pool.imap(_render, SPLITS["train"][:clips], chunksize=16)

            def fill(store: np.ndarray, place: int) -> None:
                store[place], caption = next(made)
                captions.append(caption)

            shape = (clips, *_render(0)[0].shape)
            _filled(target, shape, np.dtype(np.uint8), range(clips), "rendering the corpus", fill)
        words.write_text(json.dumps(captions))
    frames = torch.from_numpy(
        np.load(target, mmap_mode="c")
    )  # copy on write: torch wants what it may write to
    return Corpus(frames, tuple(json.loads(words.read_text())), folder)
