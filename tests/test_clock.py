"""Frames, latent frames and cells along time: who stands for whom, and masks from one to the other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freemask.masks.clock import Clock

FRAMES, COMPRESSION, PATCH = st.integers(1, 40), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2])


def stands_for(frames, compression, patch):
    """Written out frame by frame: latent ceil(i / compression), cell by cell of so many latents."""
    owners = [-(-i // compression) // patch for i in range(frames)]
    return [[i for i, owner in enumerate(owners) if owner == cell] for cell in range(owners[-1] + 1)]


@pytest.mark.parametrize(
    ("frames", "compression", "cells", "spans"),
    [
        (8, 4, 3, [[0], [1, 2, 3, 4], [5, 6, 7]]),
        (5, 4, 2, [[0], [1, 2, 3, 4]]),
        (9, 4, 2, [[0, 1, 2, 3, 4], [5, 6, 7, 8]]),  # two latent frames in a cell
        (8, 1, 4, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (1, 4, 1, [[0]]),
        (2, 4, 2, [[0], [1]]),
        (8, 4, 8, [[0], [1], [2], [3], [4], [5], [6], [7]]),
    ],
)
def test_spans(frames, compression, cells, spans):
    assert [list(span) for span in Clock(frames, compression).spans(cells)] == spans


@given(FRAMES, COMPRESSION, PATCH)
@settings(deadline=None)
def test_spans_are_those_written_out(frames, compression, patch):
    clock, expected = Clock(frames, compression), stands_for(frames, compression, patch)
    assert clock.latents == len(stands_for(frames, compression, 1))
    assert -(-clock.latents // patch) == len(expected)
    assert [list(span) for span in clock.spans(len(expected))] == expected


def test_cells_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="4 cells do not fit 17 frames"):
        Clock(17, 4).spans(4)


@given(FRAMES, COMPRESSION, PATCH, st.randoms())
@settings(deadline=None)
def test_masks_down_and_up(frames, compression, patch, random):
    """Down: a cell may change where one of its frames may. Up: each frame takes its cell's; nothing more is there."""
    clock, spans = Clock(frames, compression), stands_for(frames, compression, patch)
    bits = [[random.random() < 0.3 for _ in range(6)] for _ in range(frames)]
    mask = torch.tensor(bits).view(frames, 2, 3)
    down = clock.lift(mask, len(spans))
    assert down.dtype == torch.bool and torch.equal(clock.lift(mask.float(), len(spans)), down.float())
    assert torch.equal(down, torch.stack([mask[span].any(dim=0) for span in spans]))
    up = clock.lift(down, frames)
    assert all(torch.equal(up[i], down[cell]) for cell, span in enumerate(spans) for i in span)
    assert bool((up | ~mask).all())  # what may change is never frozen
    assert torch.equal(clock.lift(up, len(spans)), down) and torch.equal(clock.lift(down, len(spans)), down)


def test_from_cells_of_attention_to_latents():
    """A mask on cells of two latent frames, for blending latents: both get it."""
    mask = torch.arange(2.0).view(2, 1, 1)
    assert Clock(9, 4).lift(mask, 3).flatten().tolist() == [0, 0, 1]
    assert Clock(5, 4).lift(torch.tensor([[[0.2]]]), 2).flatten().tolist() == pytest.approx([0.2, 0.2])
