"""What a stage of the training is to the loop: networks that are taught, batches, a loss, rates."""

import torch
from torch import Generator, Tensor, nn

from experiments.workshop.muon import split_parameters


class TrainingJob(nn.Module):
    """`taught` names the attributes that hold the networks. Drawing and learning are apart, so that a graph of the
    device can hold a whole step: a loss sees tensors of the same shapes each time, and never waits for their values."""

    taught: tuple[str, ...]

    def networks(self) -> nn.ModuleDict:
        return nn.ModuleDict({name: getattr(self, name) for name in self.taught})

    def groups(self, matrix_lr: float, vector_lr: float) -> list[dict]:
        return split_parameters(self.networks(), matrix_lr=matrix_lr, vector_lr=vector_lr)

    def batch(self, rng: Generator) -> tuple[Tensor, ...]:
        """What one step learns from, drawn from this generator alone, on its device."""
        raise NotImplementedError

    def loss(self, *batch: Tensor) -> Tensor:
        raise NotImplementedError


def some(clips: Tensor, rng: Generator, count: int, frames: int = 1) -> tuple[Tensor, Tensor]:
    """The numbers of so many clips, and so many frames of each from anywhere in it (`b f ...`)."""
    which, where = places(clips, rng, count, frames)
    return which, clips[which[:, None], where]


def places(clips: Tensor, rng: Generator, count: int, frames: int = 1) -> tuple[Tensor, Tensor]:
    """The numbers of so many clips, and of so many frames in a row of each (`b f`)."""
    where = {"generator": rng, "device": clips.device}
    which = torch.randint(len(clips), (count,), **where)
    starts = torch.randint(clips.shape[1] - frames + 1, (count,), **where)
    return which, starts[:, None] + torch.arange(frames, device=clips.device)
