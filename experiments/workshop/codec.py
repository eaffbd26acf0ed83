"""The autoencoder of the embedded models: a fixed linear encoder (principal components of 4 x 4 patches), and the job
that teaches its decoder."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from experiments.workshop.corpus import Corpus
from experiments.workshop.job import TrainingJob, some
from experiments.workshop.networks import autoencoder

PATCH = 4
JITTER = 0.03


def patches(frames: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 48 y x"]:
    return F.pixel_unshuffle(frames, PATCH)


def principal(frames: Float[Tensor, "b 3 h w"], channels: int) -> tuple[Tensor, Tensor]:
    """Weight `channels 48` and bias of the encoder for frames in -1..1.

    Components are half-whitened (divided by the square root of their deviation), then all share one factor that
    makes the mean variance of the latents 1: the small components stay small but are not lost in the noise.
    """
    flat = patches(frames).permute(0, 2, 3, 1).reshape(-1, 3 * PATCH**2).double()
    mean = flat.mean(0)
    centred = flat - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(flat))
    values, vectors = values.flip(0)[:channels], vectors.flip(1)[:, :channels]
    vectors = vectors * vectors.sum(0).sign().where(vectors.sum(0) != 0, torch.ones(channels).double())
    scale = values**-0.25
    scale = scale / (values * scale**2).mean().sqrt()
    weight = (vectors * scale).T
    return weight.float(), (-weight @ mean).float()


def set_linear_encoder(vae: Any, weight: Float[Tensor, "c 48"], bias: Float[Tensor, " c"]) -> None:
    """Make the encoder exactly `bias + weight @ patch`: every residual branch is zero, the shortcuts reorder pixels."""
    encoder = vae.encoder
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        for channel in range(3):
            encoder.conv_in.conv.weight[channel, channel, 1, 1] = 1.0
        encoder.conv_out.weight[:, :, 1, 1] = weight[:, _order()]
        encoder.conv_out.bias.copy_(bias)
    encoder.requires_grad_(False)


def _order() -> Tensor:
    """Two unshuffles by 2 list a patch's pixels in another order than one unshuffle by 4."""
    index = torch.arange(3 * PATCH**2, dtype=torch.float32)[None, :, None, None]
    picture = F.pixel_shuffle(index, PATCH)
    twice = F.pixel_unshuffle(F.pixel_unshuffle(picture, 2), 2)
    return twice[0, :, 0, 0].long()


def linear_autoencoder(corpus: Corpus, *, channels: int, width: int, blocks: int) -> Any:
    """The encoder from the principal components of some corpus frames; the decoder still random."""
    chosen = corpus.frames[:: max(1, len(corpus.frames) // 500), ::4]
    vae = autoencoder(channels, width, blocks)
    set_linear_encoder(vae, *principal(chosen.flatten(0, 1).float() / 127.5 - 1, channels))
    return vae


class Reconstruction(TrainingJob):
    """Mean squared error plus a little absolute error, which keeps edges crisp; latents get a touch of noise."""

    taught = ("vae",)
    frames: Tensor

    def __init__(self, vae: Any, corpus: Corpus, *, batch: int) -> None:
        super().__init__()
        self.vae: Any = vae
        self.size = batch
        self.register_buffer("frames", corpus.frames, persistent=False)

    def batch(self, rng: Generator) -> tuple[Tensor, ...]:
        """Pixels, and latents of them with noise."""
        pixels = some(self.frames, rng, self.size)[1][:, 0].float() / 127.5 - 1
        with torch.no_grad():
            latents = self.vae.encode(pixels).latent
        noise = torch.randn(latents.shape, generator=rng, device=pixels.device)
        return pixels, latents + JITTER * noise

    def loss(self, pixels: Tensor, latents: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        error = self.vae.decode(latents).sample.float() - pixels
        return error.square().mean() + 0.05 * error.abs().mean()
