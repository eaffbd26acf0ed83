"""The diffusion jobs: single frames with the image network, clips with the video network grown from it, and clips that
begin with a given picture with the network grown from that."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from experiments.workshop.attention import Attention
from experiments.workshop.job import TrainingJob, some
from experiments.workshop.muon import split_parameters
from experiments.workshop.networks import (
    SHIPPED,
    grow,
    grow_eyes,
    picture_unet,
    text_encoder,
    unet2d,
    unet3d,
)
from experiments.workshop.tokenizer import token_ids, vocabulary
from freemask.backbones.i2vgen import along
from freemask.diffusion.noise_paths import Ddim

FPS = 8  # frames in a second, of every clip


def signal_and_noise() -> Tensor:
    """How much of each a latent holds, for every time (`T 2`)."""
    path = Ddim.from_config(json.loads((SHIPPED / "t2i/scheduler/scheduler_config.json").read_text()))
    return torch.tensor([path.scales(t) for t in range(path.train_times)])


class Diffusion(TrainingJob):
    """Velocity prediction on latents `clips f c h w`. `frames` is how many frames a sample has."""

    latents: Tensor
    levels: Tensor
    ids: Tensor
    caption: Tensor

    def __init__(self, latents: Tensor, captions: Sequence[str], *, batch: int, frames: int) -> None:
        super().__init__()
        self.size, self.frames = batch, frames
        texts = {text: place for place, text in enumerate(dict.fromkeys(["", *captions]))}
        self.register_buffer("latents", latents, persistent=False)
        self.register_buffer("levels", signal_and_noise(), persistent=False)
        self.register_buffer("ids", token_ids(list(texts)), persistent=False)
        self.register_buffer("caption", torch.tensor([texts[each] for each in captions]), persistent=False)

    def batch(self, rng: Generator) -> tuple[Tensor, ...]:
        """Noisy latents and velocities (`b f c h w`), times, and texts; one caption in ten is dropped."""
        which, clean = some(self.latents, rng, self.size, self.frames)
        dropped = torch.rand(self.size, generator=rng, device=clean.device) < 0.1
        texts = self.texts(torch.where(dropped, 0, self.caption[which]))
        return *self.noised(clean.float(), rng), texts, *self.beside(clean.float())

    @torch.no_grad()
    def read_by(self, encoder: Any) -> Tensor:
        """What a text encoder that does not learn says of every text."""
        return torch.cat([encoder(each).last_hidden_state.half() for each in self.ids.split(256)])

    def beside(self, clean: Tensor) -> tuple[Tensor, ...]:
        """What the network is given beside the texts."""
        return ()

    def texts(self, places: Tensor) -> Tensor:
        """What the network is given of these texts."""
        return self.ids[places]

    def noised(self, clean: Tensor, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, velocity target and times; times are stratified over the batch."""
        count, where = len(clean), {"generator": rng, "device": clean.device}
        strata = (torch.arange(count, device=clean.device) + torch.rand(count, **where)) / count
        t = (strata * len(self.levels)).long()
        noise = torch.randn(clean.shape, **where)
        signal, spread = self.levels[t].T[..., None, None, None, None]
        return signal * clean + spread * noise, signal * noise - spread * clean, t

    def predict(self, noisy: Tensor, t: Tensor, *given: Tensor) -> Tensor:
        """The velocity at times t of `b f c h w`."""
        raise NotImplementedError

    def loss(self, noisy: Tensor, target: Tensor, t: Tensor, *given: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (self.predict(noisy, t, *given).float() - target).square().mean()


class ImageDiffusion(Diffusion):
    """Single frames; the text encoder learns along."""

    taught = ("unet", "text_encoder")

    def __init__(self, latents: Tensor, captions: Sequence[str], *, batch: int) -> None:
        super().__init__(latents, captions, batch=batch, frames=1)
        self.text_encoder: Any = text_encoder(len(vocabulary()))
        self.unet: Any = unet2d(latents.shape[2])
        self.unet.set_attn_processor(Attention())

    def predict(self, noisy: Tensor, t: Tensor, texts: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.unet(noisy[:, 0], t, self.text_encoder(texts).last_hidden_state).sample[:, None]


class VideoDiffusion(Diffusion):
    """Clips, with a network grown from another one, `start`, whose layers learn more slowly: `spatial` times the rate.
    The text encoder stays as the image stage left it."""

    taught = ("unet",)
    table: Tensor

    def __init__(
        self,
        start: Any,
        encoder: Any,
        latents: Tensor,
        captions: Sequence[str],
        *,
        batch: int,
        spatial: float,
    ) -> None:
        super().__init__(latents, captions, batch=batch, frames=latents.shape[1])
        self.register_buffer("table", self.read_by(encoder), persistent=False)
        self.unet, new = self.grown(start, latents.shape[2])
        self.spatial, self.new = spatial, set(new)
        for module in self.unet.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.unet.set_attn_processor(Attention())

    def grown(self, start: Any, channels: int) -> tuple[Any, list[str]]:
        """The network, and which of its parameters are new."""
        made = unet3d(channels)
        return made, grow(start, made)

    def groups(self, matrix_lr: float, vector_lr: float) -> list[dict]:
        old = {name for name, _ in self.unet.named_parameters()} - self.new
        return [
            group
            for names, factor in ((self.new, 1.0), (old, self.spatial))
            for group in split_parameters(
                self.unet, names, matrix_lr=matrix_lr * factor, vector_lr=vector_lr * factor
            )
        ]

    def texts(self, places: Tensor) -> Tensor:
        return self.table[places].float()

    def predict(self, noisy: Tensor, t: Tensor, texts: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.unet(noisy.transpose(1, 2), t, texts).sample.transpose(1, 2)


class PictureDiffusion(VideoDiffusion):
    """Clips that begin with the picture that the network is shown, with a network grown from the video network."""

    def grown(self, start: Any, channels: int) -> tuple[Any, list[str]]:
        made = picture_unet(channels)
        new = grow_eyes(start, made, self.table[0, -1].float())
        # Noisy latents are read as before: at the rate of the new columns beside them, their own would be disturbed.
        reads_picture = (torch.arange(2 * channels) >= channels)[None, :, None, None]
        made.conv_in.weight.register_hook(lambda gradient: gradient * reads_picture.to(gradient))
        return made, new

    @torch.no_grad()
    def read_by(self, encoder: Any) -> Tensor:
        """What a text encoder that does not learn says of every text."""
        return torch.cat([encoder(each).last_hidden_state.half() for each in self.ids.split(256)])

    def beside(self, clean: Tensor) -> tuple[Tensor, ...]:
        return (clean[:, 0],)

    def predict(self, noisy: Tensor, t: Tensor, texts: Tensor, picture: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        said = noisy.new_zeros(len(noisy), 1, texts.shape[-1])  # no image encoder ships
        fps, shown = noisy.new_full((len(noisy),), FPS), along(picture, noisy.shape[1])
        out = self.unet(noisy.transpose(1, 2), t, fps, shown, said, texts).sample
        return out.transpose(1, 2)
