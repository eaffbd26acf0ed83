"""Frames to latents and back, through a diffusers autoencoder. Only here: the range -1..1 and scale factors."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.errors import UserError


class Codec:
    """A VAE that works frame by frame, `batch` frames at a time. It never runs in half precision."""

    compression = 1  # frames in a latent frame

    def __init__(
        self, vae: Any, *, batch: int = 1, patch: int = 1, slicing: bool = False, tiling: bool = False
    ) -> None:
        """`patch` is the side of the network's cells, in latents."""
        if batch < 1:
            raise UserError(
                "vae_batch is the number of frames that the VAE sees at once.", came=batch, expected=">= 1"
            )
        self.vae, self.batch = vae.eval().requires_grad_(False), batch
        if slicing:
            vae.enable_slicing()
        if tiling:
            vae.enable_tiling()
        self.scale = float(getattr(vae.config, "scaling_factor", None) or 1.0)
        self.shift = float(getattr(vae.config, "shift_factor", None) or 0.0)
        self.multiple = _multiple(vae) * patch

    def to(self, device: torch.device) -> "Codec":
        self.vae.to(device)
        return self

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "f c lh lw"]:
        self._check(frames)
        parts = [self._latents(part * 2 - 1) for part in self._moved(frames)]
        return ((torch.cat(parts) - self.shift) * self.scale).contiguous()

    def unscaled(self, latents: Float[Tensor, "f c lh lw"]) -> Float[Tensor, "f c lh lw"]:
        """As the autoencoder has them."""
        return latents / self.scale + self.shift

    @torch.no_grad()
    def spread(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "f c lh lw"]:
        """How far latents may lie from those of `encode`: the standard deviation that the autoencoder says."""
        parts = [self._spread(part * 2 - 1) for part in self._moved(frames)]
        return (torch.cat(parts) * self.scale).contiguous()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "f c lh lw"]) -> Float[Tensor, "f 3 h w"]:
        parts = [self.vae.decode(part).sample for part in self._moved(self.unscaled(latents))]
        return (torch.cat(parts).float() / 2 + 0.5).clamp(0, 1).cpu()

    def _moved(self, stack: Tensor) -> list[Tensor]:
        # One layout in memory, whoever calls: kernels round differently for others.
        stack = stack.contiguous()
        return [part.to(self.vae.device, self.vae.dtype) for part in stack.split(self.batch)]

    def _latents(self, images: Tensor) -> Tensor:
        """The most likely latent, not a sample: the same clip always gives the same latents."""
        out = self.vae.encode(images)
        return out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latent

    def _spread(self, images: Tensor) -> Tensor:
        out = self.vae.encode(images)
        return out.latent_dist.std if hasattr(out, "latent_dist") else torch.zeros_like(out.latent)

    def _check(self, frames: Tensor) -> None:
        height, width = frames.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise UserError(
                "This model cannot take frames of this size.",
                came=f"{height}x{width} (height x width)",
                expected=f"multiples of {self.multiple}",
                todo=f"use {_near(height, self.multiple)}x{_near(width, self.multiple)}",
            )
        if frames.min() < 0 or frames.max() > 1:
            raise UserError(
                "Frames must be in 0..1.",
                came=f"{float(frames.min()):.3g}..{float(frames.max()):.3g}",
                expected="0..1",
            )


class CausalCodec(Codec):
    """A VAE over time: the first frame alone, and each later latent for `compression` frames. It goes through a clip
    in order, so that there is no batch to choose."""

    def __init__(self, vae: Any, compression: int, *, patch: int = 1, tiling: bool = False) -> None:
        super().__init__(vae, patch=patch, tiling=tiling)
        self.compression = compression
        self.mean, self.std = (each.view(1, -1, 1, 1).to(vae.device, vae.dtype) for each in _statistics(vae))

    def to(self, device: torch.device) -> "CausalCodec":
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        super().to(device)
        return self

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "lf c lh lw"]:
        """Such a VAE drops what is beyond 1 + compression k frames: the last frame is repeated up to there."""
        self._check(frames)
        found = rearrange(self._latents(self._whole(frames)), "1 c f h w -> f c h w") - self.shift
        return ((found - self.mean) / self.std * self.scale).contiguous()

    @torch.no_grad()
    def spread(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "lf c lh lw"]:
        found = rearrange(self._spread(self._whole(frames)), "1 c f h w -> f c h w")
        return (found / self.std * self.scale).contiguous()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "lf c lh lw"]) -> Float[Tensor, "f 3 h w"]:
        """As many frames as the latents may stand for."""
        moved = latents.to(self.vae.device, self.vae.dtype)
        own = self._clip(moved / self.scale * self.std + self.mean + self.shift)
        frames = rearrange(self._decoded(own), "1 c f h w -> f c h w")
        return (frames.float() / 2 + 0.5).clamp(0, 1).cpu()

    def _decoded(self, own: Float[Tensor, "1 c lf lh lw"]) -> Float[Tensor, "1 3 f h w"]:
        return self.vae.decode(own).sample

    def _whole(self, frames: Tensor) -> Float[Tensor, "1 3 f h w"]:
        lacking = -(len(frames) - 1) % self.compression
        return self._clip(torch.cat([frames, frames[-1:].expand(lacking, *frames.shape[1:])]) * 2 - 1)

    def _clip(self, stack: Tensor) -> Tensor:
        return rearrange(stack, "f c h w -> 1 c f h w").contiguous().to(self.vae.device, self.vae.dtype)


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and spread of each channel of the latents, from the configuration or the weights; none known: 0 and 1."""
    kept = {"latents_mean": 0.0, "latents_std": 1.0, **dict(vae.named_buffers())}
    mean, std = (
        torch.as_tensor(vae.config.get(name) or kept[name]) for name in ("latents_mean", "latents_std")
    )
    return mean, std


def _multiple(vae: Any) -> int:
    ratio = getattr(vae, "spatial_compression_ratio", None)
    return int(ratio or 2 ** (len(vae.config.block_out_channels) - 1))


def _near(size: int, multiple: int) -> int:
    return max(multiple, round(size / multiple) * multiple)
