"""Text-to-video transformers of diffusers' CogVideoXTransformer3DModel: CogVideoX 2B and 5B."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Slot
from freemask.backbones import cogvideox_attention, identity, tiny_cogvideox
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.codec import CausalCodec
from freemask.backbones.network import device_of, dtype_of
from freemask.backbones.parts import Parts
from freemask.backbones.text import PaddedReader
from freemask.backbones.transformer import VideoTransformer
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Site


class CogVideoXCodec(CausalCodec):
    """Its decoder knows a first frame only where the number of latents is odd (1 + 8 k frames)."""

    def _decoded(self, own: Float[Tensor, "1 c lf lh lw"]) -> Float[Tensor, "1 3 f h w"]:
        """An even number: the last latent twice, and what it stands for is cut again."""
        latents = own.shape[2]
        whole = own if latents % 2 else torch.cat([own, own[:, :, -1:]], dim=2)
        return self.vae.decode(whole).sample[:, :, : 1 + self.compression * (latents - 1)]


class CogVideoX(VideoTransformer):
    """A CogVideoXTransformer3DModel with its autoencoder and text encoder, behind one door."""

    networks = ("CogVideoXTransformer3DModel",)
    vaes = ("AutoencoderKLCogVideoX",)
    native_size = (480, 720)
    text_columns = 226

    def __init__(self, parts: Parts, **options: Any) -> None:
        super().__init__(parts, **options)
        config = parts.network.config
        self.rotary = bool(config.use_rotary_positional_embeddings)
        self.head_width = config.attention_head_dim
        self.base = config.sample_height // self.patch[1], config.sample_width // self.patch[2]
        if not self.rotary and self.max_tokens != config.max_text_seq_length:
            raise UserError(
                "The positions of this network are those of another number of text columns.",
                came=f"max_tokens={self.max_tokens}",
                expected=config.max_text_seq_length,
            )

    @staticmethod
    def attention(network: Any, slot: Slot) -> Mapping[str, Site]:
        return cogvideox_attention.install(network, slot)

    @classmethod
    def codec_of(cls, vae: Any, *, patch: int, tiling: bool = False) -> CogVideoXCodec:
        return CogVideoXCodec(vae, int(vae.config.temporal_compression_ratio), patch=patch, tiling=tiling)

    @classmethod
    def reader_of(
        cls, files: Checkpoint, *, device: torch.device, dtype: torch.dtype, max_tokens: int
    ) -> PaddedReader:
        encoder = files.part("text_encoder", ("T5EncoderModel",), dtype, device)
        return PaddedReader(files.tokenizer(), encoder, max_tokens)

    @classmethod
    def random(
        cls,
        seed: int = 0,
        *,
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        max_tokens: int = 32,
        rotary: bool = True,
    ) -> "CogVideoX":
        """A tiny network with random weights: no files, no meaning, every code path. Positions turn queries and keys
        (`rotary`, as in 5B), or are added to the tokens (as in 2B)."""
        made, place = tiny_cogvideox.parts(seed, dtype_of(dtype), max_tokens, rotary), device_of(device)
        modules = {"transformer": made.transformer, "vae": made.vae, "text_encoder": made.text_encoder}
        codec = cls.codec_of(made.vae.to(place), patch=made.transformer.config.patch_size)
        reader = PaddedReader(made.tokenizer, made.text_encoder.to(place), max_tokens)
        parts = Parts(made.transformer.to(place), codec, reader, tiny_cogvideox.PATH)
        name = identity.of_modules(modules, {"rotary": rotary, "tokens": max_tokens})
        return cls(parts, name=name, native=(32, 32))

    def _call(
        self, x: Float[Tensor, "s lf c lh lw"], told: Float[Tensor, " s"], parts: Mapping[str, Tensor]
    ) -> Float[Tensor, "s lf c lh lw"]:
        places = self._places(x.shape[1], *x.shape[-2:]) if self.rotary else None
        return self.network(x, parts["text"], told, image_rotary_emb=places, return_dict=False)[0]

    def _places(self, frames: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Angles of the video tokens: another size is laid over the grid of the training, in the middle of it."""
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        size = height // self.patch[1], width // self.patch[2]
        turned: Any = get_3d_rotary_pos_embed(
            self.head_width,
            crops_coords=laid_over(size, self.base),
            grid_size=size,
            temporal_size=frames,
            device=self.device,
        )
        return turned


def laid_over(size: tuple[int, int], base: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first and the last corner of the largest picture of this form within another one, in the middle."""
    (height, width), (high, wide) = size, base
    upright = height / width > high / wide
    inner = (high, round(high / height * width)) if upright else (round(wide / width * height), wide)
    top, left = round((high - inner[0]) / 2), round((wide - inner[1]) / 2)
    return (top, left), (top + inner[0], left + inner[1])
