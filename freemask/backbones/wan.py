"""Text-to-video transformers of diffusers' WanTransformer3DModel: Wan2.1 and networks built like it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Slot
from freemask.backbones import identity, tiny_wan, wan_attention
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.codec import CausalCodec, Codec
from freemask.backbones.network import device_of, dtype_of
from freemask.backbones.text import T5Reader
from freemask.backbones.transformer import Cells, Parts, VideoTransformer, sides
from freemask.diffusion.flow import Flow
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Site

ENCODERS = ("UMT5EncoderModel", "T5EncoderModel", "CLIPTextModel")
CHUNK = 4  # frames that AutoencoderKLWan takes at once, whatever its configuration says


class Wan(VideoTransformer):
    """A WanTransformer3DModel with its autoencoder and text encoder, behind one door."""

    networks = ("WanTransformer3DModel",)
    vaes = ("AutoencoderKLWan", "AutoencoderDC")
    native_size = (480, 832)
    text_columns = 512

    @classmethod
    def check(cls, files: Checkpoint) -> None:
        """Refuse pipelines that need more than one network, or more than one time for all tokens."""
        came = ["two transformers (transformer_2)"] if "transformer_2" in files.classes else []
        came += ["a time for every token (expand_timesteps)"] if files.index().get("expand_timesteps") else []
        if came:
            raise UserError(
                "This kind of Wan checkpoint is not run yet.",
                came=", ".join(came),
                expected="one transformer and one time, as in Wan2.1-T2V-1.3B",
            )

    @staticmethod
    def cells(network: Any) -> Cells:
        return tuple(network.config.patch_size)

    @staticmethod
    def attention(network: Any, slot: Slot) -> Mapping[str, Site]:
        sites = wan_attention.attention_sites(network)
        wan_attention.install(network, sites, slot)
        return sites

    @classmethod
    def codec_of(cls, vae: Any, *, patch: int, tiling: bool = False) -> Codec:
        """An autoencoder over time, or one of pictures."""
        if type(vae).__name__ != "AutoencoderKLWan":
            return Codec(vae, patch=patch, tiling=tiling)
        frames = int(vae.config.scale_factor_temporal)
        if frames != CHUNK or 2 ** sum(vae.config.temperal_downsample) != CHUNK:
            raise UserError(
                "This VAE compresses time in another way than its own code can run.",
                came=f"scale_factor_temporal {frames}",
                expected=f"{CHUNK} frames in a latent frame",
            )
        return CausalCodec(vae, frames, patch=patch, tiling=tiling)

    @classmethod
    def reader_of(
        cls, files: Checkpoint, *, device: torch.device, dtype: torch.dtype, max_tokens: int
    ) -> T5Reader:
        encoder = files.part("text_encoder", ENCODERS, dtype).to(device)
        return T5Reader(files.tokenizer(), encoder, max_tokens)

    @classmethod
    def random(  # noqa: PLR0913 -- as for load
        cls,
        seed: int = 0,
        *,
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        max_tokens: int = 32,
        patch: Sequence[int] = (1, 2, 2),
        grid: str = "unipc",
        shift: float | int = 3.0,
    ) -> "Wan":
        """A tiny network with random weights: no files, no meaning, every code path."""
        cells, place = sides("patch", patch, 3), device_of(device)
        made = tiny_wan.parts(seed, dtype_of(dtype), max_tokens, cells)
        modules = {"transformer": made.transformer, "vae": made.vae, "text_encoder": made.text_encoder}
        facts = {"patch": cells, "grid": grid, "shift": shift, "tokens": max_tokens}
        codec = cls.codec_of(made.vae.to(place), patch=cells[1])
        reader = T5Reader(made.tokenizer, made.text_encoder.to(place), max_tokens)
        parts = Parts(made.transformer.to(place), codec, reader, Flow(shift=shift, grid=grid))
        return cls(parts, name=identity.of_modules(modules, facts), native=(32, 32))

    def _call(
        self, x: Float[Tensor, "s lf c lh lw"], told: Float[Tensor, " s"], parts: Mapping[str, Tensor]
    ) -> Float[Tensor, "s lf c lh lw"]:
        maps = rearrange(x, "s f c h w -> s c f h w").contiguous()
        out = self.network(maps, told, parts["text"], return_dict=False)[0]
        return rearrange(out, "s c f h w -> s f c h w")
