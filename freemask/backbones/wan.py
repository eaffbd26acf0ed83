"""Text-to-video transformers of diffusers' WanTransformer3DModel: Wan2.1 and networks built like it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Call, Slot
from freemask.backbones import checkpoint, identity, tiny_wan, wan_attention
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.codec import CausalCodec, Codec
from freemask.backbones.network import Network, device_of, dtype_of, of_prompts, wide
from freemask.backbones.text import T5Reader
from freemask.diffusion.flow import Flow
from freemask.diffusion.scheduler import noise_path
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Grid, NoisePath, Site

VAES = ("AutoencoderKLWan", "AutoencoderDC")
ENCODERS = ("UMT5EncoderModel", "T5EncoderModel", "CLIPTextModel")
COMPONENTS = ["transformer", "vae", "text_encoder", "tokenizer", "scheduler"]
NATIVE = (480, 832)
MAX_TOKENS = 512


class Parts(NamedTuple):
    """The parts of a checkpoint, on their device."""

    network: Any
    codec: Codec
    reader: T5Reader
    noise_path: NoisePath


class Wan(Network):
    """A WanTransformer3DModel with its autoencoder and text encoder, behind one door.

    The transformer runs in `dtype` (what its class keeps in single precision stays so), the text encoder in
    `text_dtype`; autoencoder and latents stay in single precision (double for float64).
    """

    def __init__(
        self, parts: Parts, *, name: str, native: Sequence[int] = NATIVE, attention_slicing: int = 0
    ) -> None:
        slot, sites = Slot(), wan_attention.attention_sites(parts.network)
        super().__init__(
            *parts,
            slot=slot,
            sites=sites,
            features={},
            takes={"text": "l d, one for the whole clip"},
            name=name,
            attention_slicing=attention_slicing,
        )
        self.patch: tuple[int, int, int] = tuple(parts.network.config.patch_size)
        height, width = _sides("native", native, 2)
        self.native = height, width
        wan_attention.install(parts.network, sites, slot)

    @classmethod
    def load(  # noqa: PLR0913 -- this signature is the schema that users fill in
        cls,
        path: Annotated[str | Path, Effect.FILES],
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        *,
        text_device: Annotated[str | None, Effect.NONE] = None,
        text_dtype: str | None = None,
        max_tokens: int = MAX_TOKENS,
        grid: str | None = None,
        shift: float | int | None = None,
        native: Sequence[int] = NATIVE,
        revision: str | None = None,
        local_files_only: Annotated[bool, Effect.NONE] = False,
        allow_pickle: Annotated[bool, Effect.NONE] = False,
        guidance: float | int = 5.0,
        attention_slicing: Annotated[int, Effect.NONE] = 0,
        vae_tiling: bool = False,
    ) -> "Wan":
        """`path` is a folder in diffusers layout or a hub id; nothing is downloaded for the former.

        `text_device` and `text_dtype`: the text encoder is five times as large as the smallest transformer; None: as
        `device`, and in single precision. `max_tokens` columns of text are attended to, words or not. `grid` and
        `shift` of the noise path; None: as the scheduler's file says. `native`: height and width it was trained on.
        `vae_tiling` saves memory and changes pixels a little at the seams.
        """
        files = checkpoint.find(
            path, revision=revision, local_files_only=local_files_only, allow_pickle=allow_pickle
        )
        _check(files)
        way = _way(files, grid, shift)
        place, precision = device_of(device), dtype_of(dtype)
        of_text = wide(precision) if text_dtype is None else dtype_of(text_dtype)
        network: Any = files.part("transformer", ("WanTransformer3DModel",), precision)
        if precision == torch.float64:  # what its class keeps in single precision would be too narrow
            network = torch.nn.Module.to(network, precision)
        encoder = files.part("text_encoder", ENCODERS, of_text).to(device_of(text_device or device))
        kind = CausalCodec if files.classes.get("vae") == "AutoencoderKLWan" else Codec
        vae = files.part("vae", VAES, wide(precision)).to(place)
        codec = kind(vae, patch=network.config.patch_size[1], tiling=vae_tiling)
        reader = T5Reader(files.tokenizer(), encoder, max_tokens)
        name = _name(files, grid, shift, max_tokens)
        parts = Parts(network.to(place), codec, reader, way)
        made = cls(parts, name=name, native=native, attention_slicing=attention_slicing)
        made.guidance = of_prompts(guidance)
        return made

    @classmethod
    def identify(  # noqa: PLR0913 -- those arguments of `load` that choose the model
        cls,
        path: str | Path,
        *,
        max_tokens: int = MAX_TOKENS,
        grid: str | None = None,
        shift: float | int | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
    ) -> str:
        """The identity of what `load` would make, from the files alone."""
        files = checkpoint.find(
            path, revision=revision, local_files_only=local_files_only, allow_pickle=allow_pickle
        )
        return _name(files, grid, shift, max_tokens)

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
        cells, place = _sides("patch", patch, 3), device_of(device)
        made = tiny_wan.parts(seed, dtype_of(dtype), max_tokens, cells)
        modules = {"transformer": made.transformer, "vae": made.vae, "text_encoder": made.text_encoder}
        facts = {"patch": cells, "grid": grid, "shift": shift, "tokens": max_tokens}
        codec = CausalCodec(made.vae.to(place), patch=cells[1])
        reader = T5Reader(made.tokenizer, made.text_encoder.to(place), max_tokens)
        way = Flow(shift=shift, grid=grid)
        parts = Parts(made.transformer.to(place), codec, reader, way)
        return cls(parts, name=identity.of_modules(modules, facts), native=(32, 32))

    def grid(self, site: Site, frames: int, height: int, width: int) -> Grid:
        latents = 1 + -(-(frames - 1) // self.compression)
        return Grid(-(-latents // self.patch[0]), height // self.multiple, width // self.multiple)

    def _run(
        self, x: Float[Tensor, "s lf c lh lw"], parts: Mapping[str, Tensor], call: Call
    ) -> Float[Tensor, "s lf c lh lw"]:
        """Where latent frames share a cell, the last one is repeated until all cells are full."""
        (deep, high, across), frames, (height, width) = self.patch, x.shape[1], x.shape[-2:]
        if height % high or width % across or parts["text"].ndim != 3:
            raise UserError(
                "This model cannot take a clip or a text of this form.",
                came=f"latents of {height}x{width}, texts of {tuple(parts['text'].shape[1:])}",
                expected=f"sides that are multiples of {high}, and one text for the whole clip: l d",
            )
        lacking = -frames % deep
        whole = torch.cat([x, x[:, -1:].expand(-1, lacking, -1, -1, -1)], dim=1)
        call.frames, call.height, call.width = whole.shape[1] // deep, height // high, width // across
        told = torch.full((len(x),), float(self.noise_path.told(call.t)), device=self.device)
        maps = rearrange(whole, "s f c h w -> s c f h w").contiguous()
        out = self.network(maps, told, parts["text"], return_dict=False)[0]
        return rearrange(out, "s c f h w -> s f c h w")[:, :frames]


def _sides(name: str, given: Sequence[int], count: int) -> tuple[int, ...]:
    if len(given) != count or any(isinstance(each, bool) or each < 1 for each in given):
        raise UserError(f"'{name}' is not possible.", came=given, expected=f"{count} whole numbers above 0")
    return tuple(int(each) for each in given)


def _check(files: Checkpoint) -> None:
    """Refuse pipelines that need more than one network, or more than one time for all tokens."""
    came = ["two transformers (transformer_2)"] if "transformer_2" in files.classes else []
    came += ["a time for every token (expand_timesteps)"] if files.index().get("expand_timesteps") else []
    if came:
        raise UserError(
            "This kind of Wan checkpoint is not run yet.",
            came=", ".join(came),
            expected="one transformer and one time, as in Wan2.1-T2V-1.3B",
        )


def _way(files: Checkpoint, grid: str | None, shift: float | int | None) -> NoisePath:
    path = noise_path(files.scheduler())
    if grid is None and shift is None:
        return path
    if not isinstance(path, Flow):
        raise UserError(
            "Grid and shift are those of flow matching.",
            came=f"grid={grid}, shift={shift}",
            expected="null: the checkpoint's noise path is another",
        )
    return replace(path, grid=grid or path.grid, shift=path.shift if shift is None else shift)


def _name(files: Checkpoint, grid: str | None, shift: float | int | None, max_tokens: int) -> str:
    """What was chosen beside the files is part of the name only where it was."""
    parts = identity.of_folder(files.folder, COMPONENTS)
    chosen = {"grid": grid, "shift": shift, "max_tokens": None if max_tokens == MAX_TOKENS else max_tokens}
    facts = {key: value for key, value in chosen.items() if value is not None}
    return identity.of_facts({"parts": parts, **facts}) if facts else parts
