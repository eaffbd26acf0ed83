"""Frames to latents and back, through a diffusers autoencoder. Only here: the range -1..1 and scale factors."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.errors import UserError


class Codec:
    """A VAE that works frame by frame, `batch` frames at a time. It never runs in half precision."""

    compression = 1  # frames in a latent frame

    def __init__(self, vae: Any, *, batch: int = 1, slicing: bool = False, tiling: bool = False) -> None:
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
        self.multiple = _multiple(vae)

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "f c lh lw"]:
        self._check(frames)
        parts = [self._latents(part * 2 - 1) for part in self._moved(frames)]
        return ((torch.cat(parts) - self.shift) * self.scale).contiguous()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "f c lh lw"]) -> Float[Tensor, "f 3 h w"]:
        parts = [self.vae.decode(part).sample for part in self._moved(latents / self.scale + self.shift)]
        return (torch.cat(parts).float() / 2 + 0.5).clamp(0, 1).cpu()

    def _moved(self, stack: Tensor) -> list[Tensor]:
        # One layout in memory, whoever calls: kernels round differently for others.
        stack = stack.contiguous()
        return [part.to(self.vae.device, self.vae.dtype) for part in stack.split(self.batch)]

    def _latents(self, images: Tensor) -> Tensor:
        """The most likely latent, not a sample: the same clip always gives the same latents."""
        out = self.vae.encode(images)
        return out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latent

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


def _multiple(vae: Any) -> int:
    ratio = getattr(vae, "spatial_compression_ratio", None)
    return int(ratio or 2 ** (len(vae.config.block_out_channels) - 1))


def _near(size: int, multiple: int) -> int:
    return max(multiple, round(size / multiple) * multiple)
