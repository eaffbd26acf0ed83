"""The training corpus: clips of the embedded world, rendered once into a memory-mapped array."""

import json
import os
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Generator, Tensor

from experiments.runs.progress import tracked
from freemask.data.world.render import render_frames
from freemask.data.world.spec import SPLITS, sample_scene
from freemask.errors import UserError


@dataclass(frozen=True)
class Corpus:
    """Rendered clips (`clips f 3 h w`, uint8) and their captions."""

    frames: np.ndarray
    captions: tuple[str, ...]

    def draw(
        self, rng: Generator, batch: int, frames: int = 1
    ) -> tuple[list[int], UInt8[Tensor, "b f 3 h w"]]:
        """Clips, and so many frames of each, from anywhere in it."""
        which = torch.randint(len(self.captions), (batch,), generator=rng).tolist()
        starts = torch.randint(self.frames.shape[1] - frames + 1, (batch,), generator=rng).tolist()
        parts = [self.frames[i, start : start + frames] for i, start in zip(which, starts, strict=True)]
        return which, torch.from_numpy(np.stack(parts))


def _render(seed: int) -> tuple[np.ndarray, str]:
    torch.set_num_threads(1)
    scene = sample_scene(seed)
    frames = (render_frames(scene) * 255).round().to(torch.uint8)
    return frames.numpy(), scene.caption


def build_corpus(folder: Path, clips: int) -> Corpus:
    """Render the first seeds of the training split, or read them where they are already."""
    if clips > len(SPLITS["train"]):
        raise UserError(
            "The training split has fewer clips.", came=clips, expected=f"at most {len(SPLITS['train'])}"
        )
    target, words = folder / f"frames-{clips}.npy", folder / f"captions-{clips}.json"
    if not (target.exists() and words.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        shape = (clips, *_render(0)[0].shape)
        store = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        captions = []
        with get_context("spawn").Pool(2) as pool:
            made = pool.imap(_render, SPLITS["train"][:clips], chunksize=16)
            for i, (frames, caption) in enumerate(tracked(made, clips, "rendering the corpus")):
                store[i] = frames
                captions.append(caption)
        store.flush()
        words.write_text(json.dumps(captions))
        os.replace(part, target)
    return Corpus(np.load(target, mmap_mode="r"), tuple(json.loads(words.read_text())))
