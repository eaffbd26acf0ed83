"""Text-to-video transformers of diffusers' WanTransformer3DModel: Wan2.1, Wan2.2, and networks built like them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from freemask.attention.processor import Slot
from freemask.backbones import identity, tiny_wan, wan_attention
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.codec import CausalCodec, Codec
from freemask.backbones.network import device_of, dtype_of
from freemask.backbones.parts import Cells, Parts, sides
from freemask.backbones.text import T5Reader
from freemask.backbones.transformer import VideoTransformer
from freemask.diffusion.flow import Flow
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Site

ENCODERS = ("UMT5EncoderModel", "T5EncoderModel", "CLIPTextModel")
TRAIN_TIMES = 1000  # where the scheduler's file does not say
CHUNK = 4  # frames that AutoencoderKLWan takes at once, whatever its configuration says


class Experts(nn.Module):
    """Two transformers that share the noise path: one for times from `boundary` on, another below, as in Wan2.2-A14B.

    Both have the same layers under the same names, and the time says which runs. So what is seen of a layer at a time
    is of the one that runs there, up the path and down it: a codebook has one cost for each layer and time as ever,
    and a curve over layers has both in it, each at its own times.
    """

    def __init__(self, transformer: Any, transformer_2: Any, boundary: float) -> None:
        super().__init__()
        self.transformer, self.transformer_2, self.boundary = transformer, transformer_2, boundary
        self.config, self.dtype = transformer.config, transformer.dtype

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    def forward(self, maps: Tensor, told: Tensor, text: Tensor, **options: Any) -> Any:
        return self.at(told)(maps, told, text, **options)

    def at(self, told: Tensor) -> Any:
        return self.transformer if told[0] >= self.boundary else self.transformer_2


class Wan(VideoTransformer):
    """A WanTransformer3DModel, or two of them, with autoencoder and text encoder, behind one door.

    Pipelines with `expand_timesteps` (Wan2.2-TI2V-5B) tell the network a time for every token. Where no first frame
    is given, as here, these times are all the same, and one says as much.
    """

    networks = ("WanTransformer3DModel",)
    vaes = ("AutoencoderKLWan", "AutoencoderDC")
    native_size = (480, 832)
    text_columns = 512
    more_parts = ("transformer_2",)

    @classmethod
    def check(cls, files: Checkpoint) -> None:
        """Two networks need a boundary between them, and one needs none."""
        two, boundary = "transformer_2" in files.classes, _boundary(files)
        if two != (boundary is not None):
            raise UserError(
                "It is not clear at which times which transformer of this checkpoint runs.",
                came=f"{'a' if two else 'no'} transformer_2, and the boundary_ratio {boundary}",
                expected="both in model_index.json, as in Wan2.2-T2V-A14B, or neither",
            )

    @classmethod
    def facts(cls, files: Checkpoint) -> dict[str, Any]:
        return {"boundary": _boundary(files)}

    @classmethod
    def network_of(cls, files: Checkpoint, dtype: torch.dtype, place: torch.device) -> Any:
        first, boundary = super().network_of(files, dtype, place), _boundary(files)
        if boundary is None:
            return first
        times = int(files.scheduler().get("num_train_timesteps", TRAIN_TIMES))
        return Experts(first, cls.transformer(files, "transformer_2", dtype, place), boundary * times)

    @staticmethod
    def cells(network: Any) -> Cells:
        return tuple(network.config.patch_size)

    @staticmethod
    def attention(network: Any, slot: Slot) -> Mapping[str, Site]:
        experts = Wan.experts(network)
        found = [wan_attention.attention_sites(each) for each in experts]
        if found[0] != found[-1]:
            raise UserError(
                "The two transformers of this checkpoint are not built alike.",
                came=" and ".join(f"{len(each)} attention layers" for each in found),
                expected="the same layers in both",
            )
        for each in experts:
            wan_attention.install(each, found[0], slot)
        return found[0]

    @classmethod
    def experts(cls, network: Any) -> Sequence[Any]:
        two = isinstance(network, Experts)
        return [network.transformer, network.transformer_2] if two else [network]

    def expert(self, told: Float[Tensor, " s"]) -> Any:
        return self.network.at(told) if isinstance(self.network, Experts) else self.network

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
        encoder = files.part("text_encoder", ENCODERS, dtype, device)
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


def _boundary(files: Checkpoint) -> float | None:
    """The noise level from which on the first of two transformers runs."""
    return files.index().get("boundary_ratio")
