"""The two diffusion jobs: single frames with the image network, then clips with the video network grown from it."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from experiments.workshop.corpus import Corpus
from experiments.workshop.muon import split_parameters
from experiments.workshop.networks import SCHEDULE, grow, text_encoder, unet2d, unet3d
from experiments.workshop.tokenizer import MAX_TOKENS, write_tokenizer


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
        if self.frames == 1:
            which, frames = self.corpus.draw(rng, self.batch)
            frames = frames[:, None]
        else:
            which = torch.randint(len(self.corpus.captions), (self.batch,), generator=rng).tolist()
            frames = self.corpus.clips(which, self.frames)
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


class PlainAttention:
    """A processor in diffusers' form, without masks and group norms: the embedded networks have neither. On a CPU two
    matrix products and a softmax beat the fused kernel's backward pass."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        batch, tokens, _channels = hidden_states.shape

        def heads(x: Tensor) -> Tensor:
            return x.view(batch, x.shape[1], attn.heads, -1).transpose(1, 2)

        q, k, v = heads(attn.to_q(hidden_states)), heads(attn.to_k(context)), heads(attn.to_v(context))
        weights = ((q * attn.scale) @ k.transpose(-1, -2)).softmax(-1)
        return attn.to_out[0]((weights @ v).transpose(1, 2).reshape(batch, tokens, -1))


class ImageDiffusion(Diffusion):
    """Single frames; the text encoder learns along."""

    def __init__(
        self, vae: nn.Module, corpus: Corpus, work: Path, *, batch: int = 32, channels: int = 12
    ) -> None:
        super().__init__(vae, corpus, work, batch=batch, frames=1)
        self.text_encoder: Any = text_encoder(int(self.ids.max()) + 1)
        self.unet: Any = unet2d(channels)
        self.unet.set_attn_processor(PlainAttention())

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
        self.unet.set_attn_processor(PlainAttention())

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
