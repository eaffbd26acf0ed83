"""Text-to-video transformers of diffusers' LTXVideoTransformer3DModel: LTX-Video 0.9.x."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Slot
from freemask.backbones import identity, ltx_attention, tiny_ltx, weightless
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.ltx_parts import LtxCodec, LtxReader
from freemask.backbones.network import device_of, dtype_of
from freemask.backbones.parts import Cells, Parts, Wishes
from freemask.backbones.transformer import VideoTransformer
from freemask.backbones.turns import Offload
from freemask.backbones.weightless import Weights
from freemask.diffusion.flow import Flow
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Site

FPS = 25  # of the library's pipeline


class Ltx(VideoTransformer):
    """An LTXVideoTransformer3DModel with its autoencoder and text encoder, behind one door.

    It knows how much time lies between frames: `fps` of a clip, 25 as the library's pipeline takes. Checkpoints from
    0.9.5 on (`late`) place latent frames where the first of their frames is, read prompts without their padding, and
    cut the noise path in another way.
    """

    networks = ("LTXVideoTransformer3DModel",)
    vaes = ("AutoencoderKLLTXVideo",)
    native_size = (512, 704)
    text_columns = 128
    conditions = {
        **VideoTransformer.conditions,
        "mask": "l, 1 where the text has a column; left out: all it has",
    }

    def __init__(self, parts: Parts, *, fps: float | int = FPS, late: bool = False, **options: Any) -> None:
        if not fps > 0:
            raise UserError("model.fps is the number of frames in a second.", came=fps, expected="above 0")
        super().__init__(parts, **options)
        self.fps, self.late = fps, late

    @staticmethod
    def cells(network: Any) -> Cells:
        return 1, 1, 1

    @staticmethod
    def attention(network: Any, slot: Slot) -> Mapping[str, Site]:
        return ltx_attention.attention(network, slot)

    @classmethod
    def grid_of(cls, files: Checkpoint) -> str:
        return "quadratic" if _late(files) else "even"

    @classmethod
    def codec_of(cls, vae: Any, *, patch: int = 1, tiling: bool = False) -> LtxCodec:
        return LtxCodec(vae, int(vae.temporal_compression_ratio), patch=patch, tiling=tiling)

    @classmethod
    def reader_of(
        cls, files: Checkpoint, *, device: torch.device, dtype: torch.dtype, max_tokens: int
    ) -> LtxReader:
        encoder = files.part("text_encoder", ("T5EncoderModel",), dtype, device)
        return LtxReader(files.tokenizer(), encoder, max_tokens, late=_late(files))

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
        fps: float | int = FPS,
        grid: str | None = None,
        shift: float | int | None = None,
        native: Sequence[int] | None = None,
        weights: Annotated[Weights | None, Effect.SAID] = None,
        revision: str | None = None,
        local_files_only: Annotated[bool, Effect.NONE] = False,
        allow_pickle: Annotated[bool, Effect.NONE] = False,
        guidance: float | int = 3.0,
        attention_slicing: Annotated[int, Effect.NONE] = 0,
        vae_tiling: bool = False,
        offload: Annotated[Offload, Effect.NONE] = "none",
    ) -> "Ltx":
        """As for Wan, and `fps`: how many frames of a clip make a second. The scheduler's shift grows with the length
        of a clip; None is that of the shortest."""
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
        return cls.made(files, wishes, fps=fps, late=_late(files))

    @classmethod
    def identify(  # noqa: PLR0913 -- those arguments of `load` that choose the model
        cls,
        path: str | Path,
        *,
        max_tokens: int | None = None,
        fps: float | int = FPS,
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
        return cls.named(files, wishes, fps=fps, late=_late(files))

    @classmethod
    def named(cls, files: Checkpoint, wishes: Wishes, *, fps: float | int, late: bool) -> str:
        return super().named(files, wishes, fps=None if fps == FPS else float(fps), late=late or None)

    @classmethod
    def random(  # noqa: PLR0913 -- as for load
        cls,
        seed: int = 0,
        *,
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        max_tokens: int = 32,
        fps: float | int = FPS,
        grid: str = "even",
        shift: float | int = 2.6,
    ) -> "Ltx":
        """A tiny network with random weights: no files, no meaning, every code path."""
        made, place = tiny_ltx.parts(seed, dtype_of(dtype), max_tokens), device_of(device)
        modules = {"transformer": made.transformer, "vae": made.vae, "text_encoder": made.text_encoder}
        facts = {"fps": fps, "grid": grid, "shift": shift, "tokens": max_tokens}
        codec = cls.codec_of(made.vae.to(place))
        reader = LtxReader(made.tokenizer, made.text_encoder.to(place), max_tokens)
        way = Flow(shift=shift, grid=grid, terminal=0.1)
        parts = Parts(made.transformer.to(place), codec, reader, way)
        return cls(parts, name=identity.of_modules(modules, facts), native=(32, 32), fps=fps)

    def _call(
        self, x: Float[Tensor, "s lf c lh lw"], told: Float[Tensor, " s"], parts: Mapping[str, Tensor]
    ) -> Float[Tensor, "s lf c lh lw"]:
        size = x.shape[1], *x.shape[-2:]
        tokens, columns = rearrange(x, "s f c h w -> s (f h w) c"), parts["mask"][:, None] > 0.5
        places = self._places(*size).expand(len(x), -1, -1)
        out = self.network(tokens, parts["text"], told, columns, video_coords=places, return_dict=False)[0]
        return rearrange(out, "s (f h w) c -> s f c h w", f=size[0], h=size[1])

    def _places(self, frames: int, height: int, width: int) -> Float[Tensor, "1 3 n"]:
        """Of every token: seconds, and pixels down and across."""
        first = self.compression - 1 if self.late else 0  # frames that the first latent does not have
        seconds = (torch.arange(frames) * self.compression - first).clamp(min=0) / self.fps
        pixels = (torch.arange(side) * float(self.multiple) for side in (height, width))
        grids = torch.meshgrid(seconds, *pixels, indexing="ij")
        return torch.stack(grids).flatten(1)[None].to(self.device)


def _late(files: Checkpoint) -> bool:
    """Whether the checkpoint is one of 0.9.5 or later, which belong to another pipeline."""
    return files.index().get("_class_name") == "LTXConditionPipeline"
