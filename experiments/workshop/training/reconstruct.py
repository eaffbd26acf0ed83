"""The job that teaches the autoencoder's decoder; the encoder is fixed beforehand."""

from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from experiments.workshop.training.codec import autoencoder, principal, set_linear_encoder
from experiments.workshop.training.corpus import Corpus
from experiments.workshop.training.optim import split_parameters


def linear_autoencoder(corpus: Corpus, *, channels: int, width: int, blocks: int) -> Any:
    """The encoder from the principal components of some corpus frames; the decoder still random."""
    some = np.array(corpus.frames[:: max(1, len(corpus.frames) // 500), ::4])
    frames = torch.from_numpy(some).flatten(0, 1).float() / 127.5 - 1
    vae = autoencoder(channels, width, blocks)
    set_linear_encoder(vae, *principal(frames, channels))
    return vae


class Reconstruction(nn.Module):
    """Mean squared error plus a little absolute error, which keeps edges crisp; latents get a touch of noise."""

    def __init__(self, vae: Any, corpus: Corpus, *, batch: int, jitter: float = 0.03) -> None:
        super().__init__()
        self.vae: Any = vae
        self.corpus, self.batch, self.jitter = corpus, batch, jitter

    def trained(self) -> dict[str, nn.Module]:
        return {"vae": self.vae}

    def groups(self, matrix_lr: float, vector_lr: float) -> list[dict]:
        return split_parameters(self.vae, matrix_lr=matrix_lr, vector_lr=vector_lr)

    def loss(self, rng: Generator) -> Tensor:
        which = torch.randint(len(self.corpus.captions), (self.batch,), generator=rng).tolist()
        picks = torch.randint(self.corpus.frames.shape[1], (self.batch,), generator=rng).tolist()
        arrays = [self.corpus.frames[i, j] for i, j in zip(which, picks, strict=True)]
        device = next(self.vae.parameters()).device
        pixels = torch.from_numpy(np.stack(arrays)).to(device).float() / 127.5 - 1
        with torch.no_grad():
            latents = self.vae.encode(pixels).latent
            latents = latents + self.jitter * torch.randn(latents.shape, generator=rng).to(device)
        error = self.vae.decode(latents).sample - pixels
        return error.square().mean() + 0.05 * error.abs().mean()
