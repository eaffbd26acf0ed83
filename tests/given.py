"""Texts as tensors, given to streams by name."""

import torch

from freemask.masks.plan import Keeps, MaskPlan
from freemask.types import Given


def given(texts, streams):
    """One text for each stream, from a stack of them."""
    assert len(texts) == len(streams)
    return {stream: Given({"text": text}) for stream, text in zip(streams, texts, strict=True)}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class Half:
    """Masks of the left half, or another share of the width, at every time."""

    def __init__(self, share=0.5):
        self.share = share

    def keeps(self, subject):
        return Keeps()

    def plan(self, subject, source, target):
        def left(wanted):
            mask = torch.zeros(tuple(wanted.grid))
            mask[..., : int(self.share * wanted.grid.width)] = 1
            return mask

        return MaskPlan(left, {"mask_layer": "left"})
