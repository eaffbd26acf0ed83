"""What video transformers share: cells of latents, latent frames that fill them, and how a checkpoint becomes one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Call, Slot
from freemask.backbones import identity, weightless
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.codec import CausalCodec, Codec
from freemask.backbones.network import Network, of_prompts
from freemask.backbones.parts import Cells, Parts, Wishes, read, sides
from freemask.backbones.turns import Offload, Turns
from freemask.backbones.weightless import Weights
from freemask.diffusion.scheduler import noise_path
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Given, Grid, Role, Site, Text

COMPONENTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")


class VideoTransformer(Network):
    """A transformer over the tokens of all frames, with its autoencoder and text encoder, behind one door.

    A family says which classes its parts have, fills in `attention`, `reader_of` and `_call`, and says where its cells
    and its autoencoder are of another kind.
    The transformer runs in `dtype` (what its class keeps in single precision stays so), the text encoder in
    `text_dtype`; autoencoder and latents stay in single precision (double for float64).
    """

    lacking: ClassVar[tuple[Role, ...]] = ("self", "temporal")  # no layer sees one frame, or one place, alone
    networks: ClassVar[tuple[str, ...]]
    vaes: ClassVar[tuple[str, ...]]
    native_size: ClassVar[Sequence[int]]
    text_columns: ClassVar[int]  # where nobody says how many
    conditions: ClassVar[Mapping[str, str]] = {"text": "l d, one for the whole clip"}
    own_grid: ClassVar[str | None] = None  # of pipelines that cut the noise path themselves
    more_parts: ClassVar[tuple[str, ...]] = ()  # which some checkpoints of the family have

    def __init__(
        self,
        parts: Parts,
        *,
        name: str,
        native: Sequence[int],
        attention_slicing: int = 0,
        turns: Turns | None = None,
    ) -> None:
        slot = Slot()
        self.patch: Cells = self.cells(parts.network)
        height, width = sides("native", native, 2)
        super().__init__(
            *parts,
            slot=slot,
            sites=self.attention(parts.network, slot),
            features={},
            takes=self.conditions,
            name=name,
            attention_slicing=attention_slicing,
        )
        self.native = height, width
        self.turns = Turns(self.device) if turns is None else turns
        self.device = self.turns.card

    @staticmethod
    def cells(network: Any) -> Cells:
        side = network.config.patch_size
        return network.config.patch_size_t or 1, side, side

    @staticmethod
    def attention(network: Any, slot: Slot) -> Mapping[str, Site]:
        """Puts our processors in, and says where they sit, in the order of the call."""
        raise NotImplementedError

    @classmethod
    def codec_of(cls, vae: Any, *, patch: int, tiling: bool = False) -> Codec:
        return CausalCodec(vae, int(vae.temporal_compression_ratio), patch=patch, tiling=tiling)

    @classmethod
    def reader_of(
        cls, files: Checkpoint, *, device: torch.device, dtype: torch.dtype, max_tokens: int
    ) -> Any:
        raise NotImplementedError

    def _completed(self, given: Given, x: Float[Tensor, "lf c lh lw"]) -> Given:
        """Where the network is told which columns of a text count: all, if nothing is said."""
        if "mask" not in self.conditions or "mask" in given.parts or "text" not in given.parts:
            return given
        return given.plus(mask=torch.ones(given.parts["text"].shape[-2]))

    def _call(
        self, x: Float[Tensor, "s lf c lh lw"], told: Float[Tensor, " s"], parts: Mapping[str, Tensor]
    ) -> Float[Tensor, "s lf c lh lw"]:
        """The network, in its own layout; `told` is the time for it. The latents fill whole cells."""
        raise NotImplementedError

    @classmethod
    def check(cls, files: Checkpoint) -> None:
        """Refuses, from the files alone, what the family cannot run."""

    @classmethod
    def grid_of(cls, files: Checkpoint) -> str | None:
        """How the checkpoint's pipeline cuts the noise path; None: as its scheduler does."""
        return cls.own_grid

    @classmethod
    def facts(cls, files: Checkpoint) -> dict[str, Any]:
        """What else of the checkpoint is part of the model's identity, where it is there."""
        return {}

    @classmethod
    def network_of(cls, files: Checkpoint, dtype: torch.dtype, place: torch.device) -> Any:
        return cls.transformer(files, "transformer", dtype, place)

    @classmethod
    def transformer(cls, files: Checkpoint, part: str, dtype: torch.dtype, place: torch.device) -> Any:
        network: Any = files.part(part, cls.networks, dtype, place)
        if dtype == torch.float64:  # what its class keeps in single precision would be too narrow
            network = torch.nn.Module.to(network, dtype)
        return network

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
        grid: str | None = None,
        shift: float | int | None = None,
        native: Sequence[int] | None = None,
        weights: Annotated[Weights | None, Effect.SAID] = None,
        revision: str | None = None,
        local_files_only: Annotated[bool, Effect.NONE] = False,
        allow_pickle: Annotated[bool, Effect.NONE] = False,
        guidance: float | int = 5.0,
        attention_slicing: Annotated[int, Effect.NONE] = 0,
        vae_tiling: bool = False,
        offload: Annotated[Offload, Effect.NONE] = "none",
    ) -> "VideoTransformer":
        """`path` is a folder in diffusers layout or a hub id; nothing is downloaded for the former, nor where `weights`
        are random: then the published shape is filled with seeded numbers.

        `text_device` and `text_dtype`: the text encoder may be larger than the transformer; None: as `device`, and in
        single precision. `max_tokens` columns of text; None: as many as the family was trained with. `grid` and
        `shift` of the noise path; None: as the scheduler's file says. `native`: height and width it was trained on.
        `vae_tiling` saves memory and changes pixels a little at the seams. `offload`: what leaves the GPU while it is
        not used: none, text (the text encoder), or model (text encoder, autoencoder and transformer take turns).
        """
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
        return cls.made(files, wishes)

    @classmethod
    def made(cls, files: Checkpoint, wishes: Wishes, **own: Any) -> Any:
        """`own`: what only this family's class takes."""
        cls.check(files)
        way = noise_path(files.scheduler(), grid=wishes.grid or cls.grid_of(files), shift=wishes.shift)
        parts, turns = read(cls, files, wishes, way)
        made = cls(
            parts,
            name=cls.named(files, wishes, **own),
            native=cls.native_size if wishes.native is None else wishes.native,
            attention_slicing=wishes.attention_slicing,
            turns=turns,
            **own,
        )
        made.guidance = of_prompts(wishes.guidance)
        return made

    @classmethod
    def identify(  # noqa: PLR0913 -- those arguments of `load` that choose the model
        cls,
        path: str | Path,
        *,
        max_tokens: int | None = None,
        grid: str | None = None,
        shift: float | int | None = None,
        weights: Weights | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
    ) -> str:
        """The identity of what `load` would make, from the files alone."""
        files = weightless.find(path, weights, revision, local_files_only, allow_pickle)
        return cls.named(files, Wishes(max_tokens=max_tokens, grid=grid, shift=shift))

    @classmethod
    def named(cls, files: Checkpoint, wishes: Wishes, **own: Any) -> str:
        """What was chosen beside the files is part of the name only where it was."""
        more = [part for part in cls.more_parts if part in files.classes]
        parts = files.identity([*COMPONENTS, *more])
        tokens = None if wishes.max_tokens == cls.text_columns else wishes.max_tokens
        chosen = {"grid": wishes.grid, "shift": wishes.shift, "max_tokens": tokens, **own}
        facts = {key: value for key, value in {**cls.facts(files), **chosen}.items() if value is not None}
        return files.marked(identity.of_facts({"parts": parts, **facts})) if facts else parts

    @classmethod
    def experts(cls, network: Any) -> Sequence[Any]:
        """The networks of which one runs at a time."""
        return [network]

    def expert(self, told: Float[Tensor, " s"]) -> Any:
        """The one that runs at this time."""
        return self.network

    def encode(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "lf c lh lw"]:
        self.turns.take(self.codec)
        return super().encode(frames)

    def decode(
        self, latents: Float[Tensor, "lf c lh lw"], frames: int | None = None
    ) -> Float[Tensor, "f 3 h w"]:
        self.turns.take(self.codec)
        return super().decode(latents, frames)

    def embed(self, prompt: str) -> Text:
        self.turns.take(self.reader)
        return super().embed(prompt)

    @contextmanager
    def saving_memory(self) -> Iterator[dict[str, str]]:
        with super().saving_memory() as changed, self.turns.of_all() as moved:
            yield {**changed, **moved}

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
        self.turns.take(self.expert(told))
        return self._call(whole, told, parts)[:, :frames]
