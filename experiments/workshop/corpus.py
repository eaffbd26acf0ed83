"""The training corpus: clips of the embedded world, rendered once into a memory-mapped array."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Generator, Tensor

from freemask.data.world.render import render_frames
from freemask.data.world.spec import SPLITS, sample_scene
from freemask.errors import UserError


@dataclass(frozen=True)
class Corpus:
    """Rendered clips (`clips f 3 h w`, uint8) and their captions."""

    frames: np.ndarray
    captions: tuple[str, ...]

    def clips(self, which: Sequence[int], frames: int) -> UInt8[Tensor, "b f 3 h w"]:
        """The beginnings of these clips."""
        return torch.from_numpy(np.stack([self.frames[i, :frames] for i in which]))

    def draw(self, rng: Generator, batch: int) -> tuple[list[int], UInt8[Tensor, "b 3 h w"]]:
        """Clips, and one frame of each."""
        which = torch.randint(len(self.captions), (batch,), generator=rng).tolist()
        picks = torch.randint(self.frames.shape[1], (batch,), generator=rng).tolist()
        frames = np.stack([self.frames[i, j] for i, j in zip(which, picks, strict=True)])
        return which, torch.from_numpy(frames)


def _render(seed: int) -> tuple[np.ndarray, str]:
    torch.set_num_threads(1)
    scene = sample_scene(seed)
    frames = (render_frames(scene) * 255).round().to(torch.uint8)
    return frames.numpy(), scene.caption


def build_corpus(
    folder: Path,
    clips: int,
    *,
    first_seed: int = 0,
    workers: int = 2,
    tell: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Render seeds first_seed .. first_seed + clips of the training split, or read them where they are already."""
    if first_seed < 0 or first_seed + clips > SPLITS["train"].stop:
        raise UserError(
            "These seeds leave the training split.",
            came=f"{first_seed} .. {first_seed + clips}",
            expected=f"within {SPLITS['train']}",
            todo="choose fewer clips or a smaller first seed; held-out seeds are never trained on",
        )
    target, words = (
        folder / f"frames-{first_seed}-{clips}.npy",
        folder / f"captions-{first_seed}-{clips}.json",
    )
    if not (target.exists() and words.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        shape = (clips, *_render(first_seed)[0].shape)
        store = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        captions = []
        with get_context("spawn").Pool(workers) as pool:
            seeds = range(first_seed, first_seed + clips)
            for i, (frames, caption) in enumerate(pool.imap(_render, seeds, chunksize=16)):
                store[i] = frames
                captions.append(caption)
                if tell is not None:
                    tell(i + 1, clips)
        store.flush()
        words.write_text(json.dumps(captions))
        os.replace(part, target)
    return Corpus(np.load(target, mmap_mode="r"), tuple(json.loads(words.read_text())))
