"""The two diffusion jobs: single frames with the image network, then clips with the video network grown from it."""

import json
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Generator, Tensor, nn

from experiments.workshop.corpus import Corpus
from experiments.workshop.job import TrainingJob
from experiments.workshop.muon import split_parameters
from experiments.workshop.networks import SHIPPED, grow, text_encoder, unet2d, unet3d
from experiments.workshop.tokenizer import token_ids, vocabulary
from freemask.diffusion.noise_paths import Ddim


def signal_and_noise() -> Tensor:
    """How much of each a latent holds, for every time (`T 2`)."""
    path = Ddim.from_config(json.loads((SHIPPED / "t2i/scheduler/scheduler_config.json").read_text()))
    return torch.tensor([path.scales(t) for t in range(path.train_times)])


class Diffusion(TrainingJob):
    """Velocity prediction on latents of a frozen autoencoder. `frames` is how many frames a sample has."""

    levels: Tensor
    ids: Tensor

    def __init__(self, vae: Any, corpus: Corpus, *, batch: int, frames: int) -> None:
        super().__init__()
        self.vae: Any = vae.requires_grad_(False)
        self.corpus, self.batch, self.frames = corpus, batch, frames
        self.register_buffer("levels", signal_and_noise(), persistent=False)
        self.register_buffer("ids", token_ids([*corpus.captions, ""]), persistent=False)

    def draw(self, rng: Generator) -> tuple[Tensor, Tensor]:
        """Latents `b f c h w` and token ids `b l`; one caption in ten is dropped."""
        which, frames = self.corpus.draw(rng, self.batch, self.frames)
        pixels = frames.to(self.levels.device).float() / 127.5 - 1
        with torch.no_grad():
            latents = self.vae.encode(pixels.flatten(0, 1)).latent.unflatten(0, (self.batch, self.frames))
        dropped = torch.rand(self.batch, generator=rng) < 0.1
        rows = torch.where(dropped, len(self.ids) - 1, torch.tensor(which))
        return latents, self.ids[rows.to(self.ids.device)]

    def noised(self, latents: Tensor, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, velocity target and times; times are stratified over the batch."""
        strata = (torch.arange(self.batch) + torch.rand(self.batch, generator=rng)) / self.batch
        t = (strata * len(self.levels)).long().to(latents.device)
        noise = torch.randn(latents.shape, generator=rng).to(latents.device)
        signal, spread = self.levels[t].T[..., None, None, None, None]
        return signal * latents + spread * noise, signal * noise - spread * latents, t

    def predict(self, noisy: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """The velocity at times t of `b f c h w`."""
        raise NotImplementedError

    def loss(self, rng: Generator) -> Tensor:
        latents, ids = self.draw(rng)
        noisy, target, t = self.noised(latents, rng)
        return (self.predict(noisy, t, ids) - target).square().mean()


class ImageDiffusion(Diffusion):
    """Single frames; the text encoder learns along."""

    taught = ("unet", "text_encoder")

    def __init__(self, vae: nn.Module, corpus: Corpus, *, batch: int, channels: int) -> None:
        super().__init__(vae, corpus, batch=batch, frames=1)
        self.text_encoder: Any = text_encoder(len(vocabulary()))
        self.unet: Any = unet2d(channels)
        self.unet.set_attn_processor(AttnProcessor())  # on a CPU faster backwards than the fused kernel

    def predict(self, noisy: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        text = self.text_encoder(ids).last_hidden_state
        return self.unet(noisy[:, 0], t, text).sample[:, None]


class VideoDiffusion(Diffusion):
    """Clips; the text encoder stays as the image stage left it, spatial layers learn more slowly."""

    taught = ("unet",)

    def __init__(self, image: ImageDiffusion, corpus: Corpus, *, batch: int, spatial: float) -> None:
        super().__init__(image.vae, corpus, batch=batch, frames=8)
        self.text_encoder: Any = image.text_encoder.requires_grad_(False)
        self.unet: Any = unet3d(image.unet.config.in_channels)
        self.spatial = spatial
        self.new = set(grow(image.unet, self.unet))
        for module in self.unet.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.unet.set_attn_processor(AttnProcessor())

    def groups(self, matrix_lr: float, vector_lr: float) -> list[dict]:
        old = {name for name, _ in self.unet.named_parameters()} - self.new
        return [
            group
            for names, factor in ((self.new, 1.0), (old, self.spatial))
            for group in split_parameters(
                self.unet, names, matrix_lr=matrix_lr * factor, vector_lr=vector_lr * factor
            )
        ]

    def predict(self, noisy: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        with torch.no_grad():
            text = self.text_encoder(ids).last_hidden_state
        return self.unet(noisy.transpose(1, 2), t, text).sample.transpose(1, 2)
