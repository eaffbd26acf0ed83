"""The two diffusion jobs: single frames with the image network, then clips with the video network grown from it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from experiments.workshop.training.attention import use_plain_attention
from experiments.workshop.training.corpus import Corpus
from experiments.workshop.training.networks import SCHEDULE, grow, text_encoder, unet2d, unet3d
from experiments.workshop.training.optim import split_parameters
from experiments.workshop.training.tokenizer import MAX_TOKENS, write_tokenizer


def signal_levels() -> Float[Tensor, " T"]:
    """Cumulative alphas of the scaled-linear schedule, in double precision until the end."""
    low, high = SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5
    betas = torch.linspace(low, high, SCHEDULE["num_train_timesteps"], dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def tokenizer(folder: Path):
    from transformers import CLIPTokenizer

    write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def token_ids(folder: Path, captions: tuple[str, ...]) -> Int[Tensor, "n l"]:
    """Ids of the captions; the last row is the empty prompt."""
    encoded = tokenizer(folder)([*captions, ""], padding="max_length", max_length=MAX_TOKENS)
    return torch.tensor(encoded.input_ids)


class Diffusion(nn.Module):
    """Velocity prediction on latents of a frozen autoencoder. `frames` is how many frames a sample has."""

    levels: Tensor
    ids: Tensor

    def __init__(self, vae: Any, corpus: Corpus, work: Path, *, batch: int, frames: int) -> None:
        super().__init__()
        self.vae: Any = vae.requires_grad_(False)
        self.corpus, self.batch, self.frames = corpus, batch, frames
        self.register_buffer("levels", signal_levels(), persistent=False)
        self.register_buffer("ids", token_ids(work / "tokenizer", corpus.captions), persistent=False)

    def draw(self, rng: Generator) -> tuple[Tensor, Tensor]:
        """Latents `b f c h w` and token ids `b l`; one caption in ten is dropped."""
        which = torch.randint(len(self.corpus.captions), (self.batch,), generator=rng)
        total = self.corpus.frames.shape[1]
        if self.frames == 1:
            picks = torch.randint(total, (self.batch,), generator=rng)
            arrays = [
                self.corpus.frames[i, j : j + 1] for i, j in zip(which.tolist(), picks.tolist(), strict=True)
            ]
        else:
            arrays = [self.corpus.frames[i, : self.frames] for i in which.tolist()]
        pixels = torch.from_numpy(np.stack(arrays)).to(self.levels.device).float() / 127.5 - 1
        with torch.no_grad():
            latents = self.vae.encode(pixels.flatten(0, 1)).latent.unflatten(0, (self.batch, self.frames))
        dropped = torch.rand(self.batch, generator=rng) < 0.1
        return latents, self.ids[torch.where(dropped, len(self.ids) - 1, which).to(self.ids.device)]

    def noised(self, latents: Tensor, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, velocity target and times; times are stratified over the batch."""
        strata = (torch.arange(self.batch) + torch.rand(self.batch, generator=rng)) / self.batch
        t = (strata * len(self.levels)).long().to(latents.device)
        noise = torch.randn(latents.shape, generator=rng).to(latents.device)
        level = self.levels[t][:, None, None, None, None]
        signal, spread = level.sqrt(), (1 - level).sqrt()
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

    def __init__(
        self, vae: nn.Module, corpus: Corpus, work: Path, *, batch: int = 32, channels: int = 12
    ) -> None:
        super().__init__(vae, corpus, work, batch=batch, frames=1)
        self.text_encoder: Any = text_encoder(int(self.ids.max()) + 1)
        self.unet: Any = unet2d(channels)
        use_plain_attention(self.unet)

    def trained(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "text_encoder": self.text_encoder}

    def groups(self, matrix_lr: float, vector_lr: float) -> list[dict]:
        modules = nn.ModuleDict(self.trained())
        return split_parameters(modules, matrix_lr=matrix_lr, vector_lr=vector_lr)

    def predict(self, noisy: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        text = self.text_encoder(ids).last_hidden_state
        return self.unet(noisy[:, 0], t, text).sample[:, None]


class VideoDiffusion(Diffusion):
    """Clips; the text encoder stays as the image stage left it, spatial layers learn more slowly."""

    def __init__(
        self, image: ImageDiffusion, corpus: Corpus, work: Path, *, batch: int = 4, spatial: float = 0.3
    ) -> None:
        super().__init__(image.vae, corpus, work, batch=batch, frames=8)
        self.text_encoder: Any = image.text_encoder.requires_grad_(False)
        self.unet: Any = unet3d(image.unet.config.in_channels)
        self.spatial = spatial
        self.new = set(grow(image.unet, self.unet))
        for module in self.unet.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        use_plain_attention(self.unet)

    def trained(self) -> dict[str, nn.Module]:
        return {"unet": self.unet}

    def groups(self, matrix_lr: float, vector_lr: float) -> list[dict]:
        groups = []
        for fresh, factor in ((True, 1.0), (False, self.spatial)):
            chosen = nn.ParameterDict(
                {
                    name.replace(".", "/"): parameter
                    for name, parameter in self.unet.named_parameters()
                    if (name in self.new) == fresh
                }
            )
            groups += split_parameters(chosen, matrix_lr=matrix_lr * factor, vector_lr=vector_lr * factor)
        return groups

    def predict(self, noisy: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        with torch.no_grad():
            text = self.text_encoder(ids).last_hidden_state
        return self.unet(noisy.transpose(1, 2), t, text).sample.transpose(1, 2)
