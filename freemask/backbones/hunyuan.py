"""Text-to-video transformers of diffusers' HunyuanVideoTransformer3DModel: HunyuanVideo (13B)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Slot
from freemask.backbones import hunyuan_attention, identity, tiny_hunyuan, weightless
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.hunyuan_text import HunyuanReader, Pair
from freemask.backbones.network import device_of, dtype_of
from freemask.backbones.parts import Parts, Wishes, refuse_more
from freemask.backbones.transformer import VideoTransformer
from freemask.backbones.turns import Offload
from freemask.backbones.weightless import Weights
from freemask.diffusion.flow import Flow
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Site

GUIDANCE = 6.0  # of the library's pipeline
TOLD = 1000  # what the network is told of it


class Hunyuan(VideoTransformer):
    """A HunyuanVideoTransformer3DModel with its autoencoder and text encoders, behind one door.

    It was taught to follow its prompt as if it were guided, in one pass: `embedded_guidance` is how strongly, and goes
    to every stream, of the clip's own prompt as well. Guidance by an empty prompt can be added, and is off (1).
    """

    networks = ("HunyuanVideoTransformer3DModel",)
    vaes = ("AutoencoderKLHunyuanVideo",)
    native_size = (720, 1280)
    text_columns = 256
    own_grid = "even"
    more_parts = ("text_encoder_2", "tokenizer_2")
    conditions = {
        **VideoTransformer.conditions,
        "pooled": "d, a summary of the text",
        "mask": "l, 1 where the text has a column; left out: all it has",
    }

    def __init__(self, parts: Parts, *, embedded_guidance: float | int = GUIDANCE, **options: Any) -> None:
        if not embedded_guidance >= 0:
            raise UserError(
                "model.embedded_guidance is too small.", came=embedded_guidance, expected="0 or more"
            )
        super().__init__(parts, **options)
        self.embedded_guidance, self.guided = embedded_guidance, parts.network.config.guidance_embeds

    @staticmethod
    def attention(network: Any, slot: Slot) -> Mapping[str, Site]:
        _check(network)
        return hunyuan_attention.install(network, slot)

    @classmethod
    def reader_of(
        cls, files: Checkpoint, *, device: torch.device, dtype: torch.dtype, max_tokens: int
    ) -> HunyuanReader:
        # The library's class of Llama would read other tokens out of this file than those that it says.
        language = Pair(
            files.tokenizer(as_filed=True), files.part("text_encoder", ("LlamaModel",), dtype, device)
        )
        clip = Pair(
            files.tokenizer("tokenizer_2"), files.part("text_encoder_2", ("CLIPTextModel",), dtype, device)
        )
        return HunyuanReader(language, clip, max_tokens)

    @classmethod
    def load(  # noqa: PLR0913 -- this signature is the schema that users fill in
        cls,
        path: Annotated[str | Path, Effect.FILES],
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        *,
        text_device: Annotated[str | None, Effect.NONE] = None,
        text_dtype: str | None = None,
        max_tokens: int | None = None,
        embedded_guidance: float | int = GUIDANCE,
        grid: str | None = None,
        shift: float | int | None = None,
        native: Sequence[int] | None = None,
        weights: Annotated[Weights | None, Effect.SAID] = None,
        revision: str | None = None,
        local_files_only: Annotated[bool, Effect.NONE] = False,
        allow_pickle: Annotated[bool, Effect.NONE] = False,
        guidance: float | int = 1.0,
        attention_slicing: Annotated[int, Effect.NONE] = 0,
        vae_tiling: bool = False,
        offload: Annotated[Offload, Effect.NONE] = "none",
    ) -> "Hunyuan":
        """As for Wan, and `embedded_guidance`, which every stream is told."""
        files = weightless.find(path, weights, revision, local_files_only, allow_pickle)
        wishes = Wishes(
            device=device,
            dtype=dtype,
            text_device=text_device,
            text_dtype=text_dtype,
            max_tokens=max_tokens,
            grid=grid,
            shift=shift,
            native=native,
            guidance=guidance,
            attention_slicing=attention_slicing,
            vae_tiling=vae_tiling,
            offload=offload,
        )
        return cls.made(files, wishes, embedded_guidance=embedded_guidance)

    @classmethod
    def identify(  # noqa: PLR0913 -- those arguments of `load` that choose the model
        cls,
        path: str | Path,
        *,
        max_tokens: int | None = None,
        embedded_guidance: float | int = GUIDANCE,
        grid: str | None = None,
        shift: float | int | None = None,
        weights: Weights | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
    ) -> str:
        """The identity of what `load` would make, from the files alone."""
        files = weightless.find(path, weights, revision, local_files_only, allow_pickle)
        wishes = Wishes(max_tokens=max_tokens, grid=grid, shift=shift)
        return cls.named(files, wishes, embedded_guidance=embedded_guidance)

    @classmethod
    def named(cls, files: Checkpoint, wishes: Wishes, *, embedded_guidance: float | int = GUIDANCE) -> str:
        usual = embedded_guidance == GUIDANCE
        return super().named(files, wishes, embedded_guidance=None if usual else float(embedded_guidance))

    @classmethod
    def random(
        cls,
        seed: int = 0,
        *,
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        max_tokens: int = 32,
        embedded_guidance: float | int = GUIDANCE,
    ) -> "Hunyuan":
        """A tiny network with random weights: no files, no meaning, every code path."""
        made, place = tiny_hunyuan.parts(seed, dtype_of(dtype), max_tokens), device_of(device)
        modules = {"transformer": made.transformer, "vae": made.vae, "text": made.language.encoder}
        codec = cls.codec_of(made.vae.to(place), patch=made.transformer.config.patch_size)
        reader = HunyuanReader(made.language, made.clip, max_tokens).to(place)
        facts = {"tokens": max_tokens, "guidance": float(embedded_guidance)}
        model = cls(
            Parts(made.transformer.to(place), codec, reader, Flow(shift=7.0, grid="even")),
            name=identity.of_modules({**modules, "clip": made.clip.encoder}, facts),
            native=(32, 32),
            embedded_guidance=embedded_guidance,
        )
        model.guidance = 1.0
        return model

    def _call(
        self, x: Float[Tensor, "s lf c lh lw"], told: Float[Tensor, " s"], parts: Mapping[str, Tensor]
    ) -> Float[Tensor, "s lf c lh lw"]:
        maps = rearrange(x, "s f c h w -> s c f h w").contiguous()
        strength = torch.full((len(x),), TOLD * self.embedded_guidance, device=x.device, dtype=x.dtype)
        out = self.network(
            maps,
            told,
            parts["text"],
            parts["mask"],
            parts["pooled"],
            guidance=strength if self.guided else None,
            return_dict=False,
        )[0]
        return rearrange(out, "s c f h w -> s f c h w")


def _check(network: Any) -> None:
    """Refuse networks with more in them than video and text."""
    config = network.config
    blocks = [*network.transformer_blocks, *network.single_transformer_blocks]
    strange = {
        f"a picture as a condition ({config.image_condition_type})": config.image_condition_type is not None,
        "projections that were fused": any(
            getattr(block.attn, "fused_projections", False) for block in blocks
        ),
        f"{config.in_channels} channels in, {config.out_channels} out": config.in_channels
        != config.out_channels,
    }
    refuse_more(strange, "HunyuanVideo: a noisy clip, a time, a guidance and a text")
