"""A published model without its files: the shape that its configurations say, filled with seeded random weights.

Such a model takes the time and the memory of the real one; its pictures mean nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor, nn

from freemask.backbones import checkpoint, identity, tiny, tiny_hunyuan, tiny_hunyuan15, tiny_wan
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.turns import REST
from freemask.errors import UserError, nearest

Weights = Literal["random"]
RANDOM = "random"
MARK = f"{RANDOM}-"  # before the identity of such a model
SHAPES = Path(__file__).parent / "shapes"
SEED = 0
BLOCK = 2**20 + 7  # numbers that are drawn; a prime, so that no two rows of a matrix are alike
HALVES = (torch.float16, torch.bfloat16)
TOKENIZERS: Mapping[str, Any] = {"CLIP": tiny, "T5": tiny_wan, "Llama": tiny_hunyuan, "Qwen": tiny_hunyuan15}
LAST = 512  # text tokens where nothing is said


@dataclass(frozen=True)
class Weightless(Checkpoint):
    """Stands for a checkpoint. `parts` says of each what its configuration file would."""

    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def part(self, name: str, classes: Sequence[str], dtype: torch.dtype, place: torch.device = REST) -> Any:
        kind, library = self.kind(name, classes), checkpoint.library(name)
        maker, shape = checkpoint.maker(library, kind), _options(self.parts[name])
        if library.__name__ == "transformers":
            return filled(lambda: maker(maker.config_class(**shape)), dtype, place)
        return filled(lambda: maker(**shape), dtype, place)

    def tokenizer(self, name: str = "tokenizer", *, as_filed: bool = False) -> Any:
        """One that spells most words out."""
        most = int(self.parts[name].get("model_max_length", LAST))
        kind = next(each for each in TOKENIZERS if self.classes[name].startswith(each))
        return TOKENIZERS[kind].tokenizer(most)

    def scheduler(self) -> dict[str, Any]:
        return dict(self.parts["scheduler"])

    def index(self) -> dict[str, Any]:
        return dict(self.parts.get("index", {}))

    def config(self, name: str, file: str = "config.json") -> dict[str, Any]:
        return _options(self.parts[name])

    def has(self, name: str) -> bool:
        return name in self.parts

    def identity(self, parts: Sequence[str]) -> str:
        here = {each: self.parts[each] for each in sorted(parts) if each in self.parts}
        return MARK + identity.of_facts({"shape": here, "seed": SEED, "block": BLOCK})

    def marked(self, name: str) -> str:
        return MARK + name


def find(
    path: str | Path,
    weights: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
) -> Checkpoint:
    """As `checkpoint.find`, by the settings of a model that all families have; with weights=random, what stands for the
    files."""
    if weights is None:
        options = {"local_files_only": local_files_only, "allow_pickle": allow_pickle}
        return checkpoint.find(path, revision=revision, **options)
    if weights != RANDOM:
        raise UserError(
            "Weights are those of the path, or random.", came=weights, expected=f"null or {RANDOM}"
        )
    return published(str(path))


def published(path: str) -> Weightless:
    """By the name of a checkpoint at the hub."""
    known = {
        str(each["hub"]): (file, each) for file in sorted(SHAPES.glob("*.yaml")) if (each := _read(file))
    }
    if path not in known:
        raise UserError(
            "The published shape of this model is not known, so that it cannot be built without its files.",
            came=f"weights={RANDOM} with path={path}",
            expected=", ".join(known),
            todo=nearest(path, known),
        )
    file, said = known[path]
    parts = {name: _read(SHAPES / "parts" / f"{each}.yaml") if isinstance(each, str) else each
             for name, each in said.items() if name not in ("hub", "source")}  # fmt: skip
    classes = {name: str(each["_class_name"]) for name, each in parts.items() if "_class_name" in each}
    return Weightless(file.parent / file.stem, classes, parts=parts)


def is_random(name: str) -> bool:
    """By the identity of a model."""
    return name.startswith(MARK)


def filled(build: Any, dtype: torch.dtype, place: torch.device) -> Any:
    """What `build` makes, on its device from the start: its own first numbers are never drawn. Which numbers it gets
    depends on no device. What its class keeps in single precision stays so, as where files are read."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network: Any = build()
    getattr(network, "tie_weights", lambda: None)()  # shared weights were parted when they lost their numbers
    kept = _kept(network, dtype)
    numbers, made = Numbers(place), {}
    for path, owner in network.named_modules():
        for name, old in list(owner.named_parameters(recurse=False)):
            wide = kept & {*path.split("."), name}
            if id(old) not in made:  # some parts share a weight
                new = numbers.like(name, old, torch.float32 if wide else dtype)
                made[id(old)] = old, nn.Parameter(new, requires_grad=False)
            setattr(owner, name, made[id(old)][1])
    saved = network.state_dict().keys()
    for path, owner in network.named_modules():
        for name, old in list(owner.named_buffers(recurse=False)):
            file = ".".join(filter(None, (path, name))) in saved and old.is_floating_point()
            setattr(owner, name, old.to(place, dtype if file else old.dtype))
    return network.eval()


class Numbers:
    """One draw on the processor, handed out again and again from where it was left: filling a large network takes as
    long as writing it."""

    def __init__(self, place: torch.device) -> None:
        self.place, self.given = place, 0
        if place.type != "meta":
            drawn = torch.randn(BLOCK, generator=torch.Generator().manual_seed(SEED))
            self.twice = torch.cat([drawn, drawn]).to(place)

    def like(self, name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Matrices as wide as a linear layer is born with; what scales is 1, and biases are 0."""
        made = torch.empty(weight.shape, dtype=dtype, device=self.place)
        if self.place.type == "meta":
            return made
        each = weight[0].numel() if weight.ndim else 1
        if each == 1:
            return made.fill_(0 if name == "bias" else 1)
        start, count = self.given % BLOCK, weight.numel()
        self.given += count
        whole, rest = divmod(count, BLOCK)
        source = (self.twice[start : start + min(count, BLOCK)] * (3 * each) ** -0.5).to(dtype)
        flat = made.view(-1)
        if whole:
            flat[: whole * BLOCK].view(whole, BLOCK).copy_(source.expand(whole, -1))
        flat[whole * BLOCK :].copy_(source[:rest])
        return made


def _kept(network: Any, dtype: torch.dtype) -> set[str]:
    """Names on the way to weights that stay in single precision; transformers does so for float16 alone."""
    where = HALVES if isinstance(network, _diffusers()) else (torch.float16,)
    return set(getattr(network, "_keep_in_fp32_modules", None) or ()) if dtype in where else set()


def _diffusers() -> Any:
    from diffusers.models.modeling_utils import ModelMixin

    return ModelMixin


def _options(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if not key.startswith("_")}


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
