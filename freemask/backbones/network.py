"""What all backbones share: the call and its taps, what a stream may be given, tuned weights, savings of memory."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from freemask.attention.processor import Call, Slot
from freemask.backbones import identity
from freemask.backbones.checkpointing import saved
from freemask.backbones.quick import quicken
from freemask.backbones.speed import Speed
from freemask.backbones.tuning import Tuned
from freemask.errors import UserError, nearest
from freemask.types import NO_TAPS, Backbone, Clip, Given, Grid, NoisePath, Site, Stream, Taps, Text, Time

TEXT = "l d, or f l d where each frame has a text of its own"
SAVING = ("model.attention_slicing", "model.vae_batch")
GUIDANCE = 7.5  # of most latent diffusion models
ROWS = 8  # of the attention batch at once, where memory is short
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def of_prompts(guidance: float | int) -> float | int:
    """How strongly a model follows prompts, checked."""
    if not guidance >= 0:
        raise UserError("model.guidance is too small", came=guidance, expected="at least 0")
    return guidance


class Network(Backbone):
    """A network of diffusers with its autoencoder and text encoder. A family says how it is called (`_run`), where
    its attention layers are and how their grids follow from the latents."""

    guidance: float = GUIDANCE

    def __init__(  # noqa: PLR0913 -- the parts of a model
        self,
        network: Any,
        codec: Any,
        reader: Any,
        noise_path: NoisePath,
        *,
        slot: Slot,
        sites: Mapping[str, Site],
        features: Mapping[str, Site],
        takes: Mapping[str, str],
        name: str,
        attention_slicing: int = 0,
    ) -> None:
        if attention_slicing < 0:
            raise UserError(
                "attention_slicing is a number of batch rows.", came=attention_slicing, expected="0 = off"
            )
        self.network: nn.Module = network.eval().requires_grad_(False)
        self.codec, self.reader, self.noise_path = codec, reader, noise_path
        self.origin, self.attention_slicing = name, attention_slicing
        self.device, self.dtype = network.device, network.dtype
        quicken(self.network)
        self.multiple, self.compression = codec.multiple, codec.compression
        self.max_tokens = reader.max_tokens
        self.takes: Mapping[str, str] = MappingProxyType(dict(takes))
        self.sites: Mapping[str, Site] = MappingProxyType(dict(sites))
        self.features: Mapping[str, Site] = MappingProxyType(dict(features))
        self._slot = slot
        self._tuned: Tuned | None = None
        self.speed = Speed()

    def given_speed(self, speed: Speed) -> None:
        """Once, after loading."""
        speed.give(self.network, self._slot)
        self.speed = speed

    @property
    def identity(self) -> str:
        if self._tuned is None:
            return self.origin
        return identity.of_facts({"origin": self.origin, "tuned": self._tuned.identity})

    def encode(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "lf c lh lw"]:
        return self.codec.encode(frames)

    def spread(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "lf c lh lw"]:
        return self.codec.spread(frames)

    def decode(
        self, latents: Float[Tensor, "lf c lh lw"], frames: int | None = None
    ) -> Float[Tensor, "f 3 h w"]:
        return self.codec.decode(latents)[:frames]

    def embed(self, prompt: str) -> Text:
        return self.reader(prompt)

    def seen(self, clip: Clip) -> Mapping[str, Tensor]:
        return {}

    def predict(
        self,
        x: Float[Tensor, "s lf c lh lw"],
        t: Time,
        given: Mapping[Stream, Given],
        *,
        taps: Taps = NO_TAPS,
    ) -> Float[Tensor, "s lf c lh lw"]:
        if len(given) != len(x):
            raise ValueError(f"a stack of {len(x)} needs as many streams, not {list(given)}")
        for name in taps.features:
            if name not in self.features:
                raise UserError(
                    "This network has no such module whose output could be seen.",
                    came=name,
                    expected="one of Backbone.features",
                    todo=nearest(name, self.features),
                )
        if taps.look is not None and all(site.role != "self" for site in self.sites.values()):
            raise UserError(
                "In no layer of this network could frames be told whom to look at.",
                came=", ".join(sorted({site.role for site in self.sites.values()})) + " attention",
                expected="a network with spatial self-attention, frame by frame",
            )
        for stream, each in given.items():
            if not isinstance(each, Given):
                raise TypeError(
                    f"the stream '{stream}' was given a {type(each).__name__}, not a Given (text.given)"
                )
        known_parts(given, self.takes)
        given = {name: self._completed(each, x[0]) for name, each in given.items()}
        parts = stacked(given, self.takes, frames=x.shape[1])
        parts = {name: value.to(self.device, self.dtype) for name, value in parts.items()}
        frames, height, width = x.shape[1], *x.shape[-2:]
        call = Call(t, tuple(given), frames, taps, self.attention_slicing, height, width)
        call.stepwise = bool(taps.features) or self._tuned is not None or torch.is_grad_enabled()
        with self._slot.opened(call):
            out = self._run(x.to(self.device, self.dtype), parts, call)
        return out.to(x.device, x.dtype).contiguous()

    def _completed(self, given: Given, x: Float[Tensor, "lf c lh lw"]) -> Given:
        """What a stream is given, its shapes checked, with what may be left out."""
        return given

    def _run(
        self, x: Float[Tensor, "s lf c lh lw"], parts: Mapping[str, Tensor], call: Call
    ) -> Float[Tensor, "s lf c lh lw"]:
        """The network itself, in its own layout."""
        raise NotImplementedError

    def grid(self, site: Site, frames: int, height: int, width: int) -> Grid:
        """Every halving of an odd side rounds up."""
        cell = self.codec.multiple * site.stride
        return Grid(1 + -(-(frames - 1) // self.compression), -(-height // cell), -(-width // cell))

    def fresh(self, kind: str, *, seed: int, bias: bool, rank: int) -> dict[str, Tensor]:
        if kind != "none":
            raise UserError(
                "Only an image model that is run over frames can be given temporal layers.",
                came=f"{type(self).__name__}, tuning.temporal={kind}",
                expected="model=embedded_image, sd14, sd15, ...",
                todo="tuning=queries or tuning=lora tune what a model has",
            )
        return {}

    @contextmanager
    def tuned(
        self,
        patterns: Sequence[str],
        *,
        rank: int = 0,
        more: Mapping[str, Tensor] | None = None,
        checkpointing: bool = False,
    ) -> Iterator[Tuned]:
        if self._tuned is not None:
            raise RuntimeError("this network is being tuned already")
        thrift = saved(self.network, self._slot) if checkpointing else nullcontext()
        with self._with_layers(more or {}), thrift, Tuned(self.network, patterns, rank, more) as self._tuned:
            try:
                yield self._tuned
            finally:
                self._tuned = None

    def _with_layers(self, weights: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Temporal layers that are there for a while."""
        if weights:
            raise UserError(
                "This network can be given no temporal layers.",
                came=f"{min(weights)} and {len(weights) - 1} more",
                expected="an image model that is run over frames",
            )
        return nullcontext()

    @contextmanager
    def saving_memory(self) -> Iterator[dict[str, str]]:
        before = self.attention_slicing, self.codec.batch
        self.attention_slicing = min(before[0] or ROWS, ROWS)
        self.codec.batch = 1
        after = self.attention_slicing, self.codec.batch
        changed = zip(SAVING, before, after, strict=True)
        said = {name: f"{old} -> {new}" for name, old, new in changed if old != new}
        try:
            with saved(self.network, self._slot):
                yield said
        finally:
            self.attention_slicing, self.codec.batch = before

    def describe(self) -> dict[str, Any]:
        roles = [site.role for site in self.sites.values()]
        path: Any = self.noise_path
        return {
            "identity": self.identity,
            "parameters": sum(weight.numel() for weight in self.network.parameters()),
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "native": f"{self.native[0]}x{self.native[1]}",
            "guidance": self.guidance,
            "multiple": self.multiple,
            "max_tokens": self.max_tokens,
            "sites": {role: roles.count(role) for role in dict.fromkeys(roles)},
            "prediction": path.prediction,
            "warnings": list(path.warnings),
        }


def known_parts(given: Mapping[Stream, Given], takes: Mapping[str, str]) -> None:
    for stream, each in given.items():
        strange = [name for name in each.parts if name not in takes]
        if strange:
            raise UserError(
                f"This model cannot be given '{strange[0]}'.",
                came=f"{', '.join(each.parts)} for the stream '{stream}'",
                expected=_said(takes),
                todo=nearest(strange[0], takes),
            )


def stacked(given: Mapping[Stream, Given], takes: Mapping[str, str], *, frames: int) -> dict[str, Tensor]:
    """What the streams are given, part by part, as stacks. Where one stream has a text for every frame, all do."""
    for stream, each in given.items():
        lacking = sorted(set(takes) - set(each.parts))
        if lacking:
            raise UserError(
                f"This model must be given '{lacking[0]}'.",
                came=f"no {', '.join(lacking)} for the stream '{stream}'",
                expected=_said(takes),
            )
    return {name: _one(name, [each.parts[name] for each in given.values()], frames) for name in takes}


def _said(takes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({words})" for name, words in takes.items())


def _one(name: str, values: Sequence[Tensor], frames: int) -> Tensor:
    if len({value.ndim for value in values}) > 1:
        most = max(value.ndim for value in values)
        values = [value if value.ndim == most else value.expand(frames, *value.shape) for value in values]
    shapes = [tuple(value.shape) for value in values]
    if len(set(shapes)) > 1:
        raise UserError(
            f"What the streams are given as '{name}' does not fit together.",
            came=", ".join(map(str, shapes)),
            expected="equal shapes",
        )
    return torch.stack(list(values))


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def dtype_of(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise UserError("Unknown dtype.", came=name, expected=", ".join(DTYPES), todo=nearest(name, DTYPES))
    return DTYPES[name]


def device_of(name: str) -> torch.device:
    """'auto' takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError("Unknown device.", came=name, expected="cpu, cuda, cuda:0 or auto") from error
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(
            "There is no such GPU.",
            came=name,
            expected=f"{count} GPUs are visible",
            todo="use model.device=cpu",
        )
    return device
