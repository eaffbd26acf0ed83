"""Reads a stored case: its manifest, its tensors, its edits."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import safe_open
from torch import Tensor

from freemask.errors import UserError


@dataclass(frozen=True)
class Edit:
    """One prompt of a case, as its manifest's p2p_config has it; what is absent means what the authors' code does."""

    name: str
    source: str
    target: str
    said: Mapping[str, Any]
    controlled: bool

    @property
    def blend_words(self) -> tuple[list[str], list[str]] | None:
        found = self.said.get("blend_words")
        if found in (None, "None"):
            return None
        source, target = ([each] if isinstance(each, str) else list(each) for each in found)
        return source, target

    @property
    def threshold(self) -> float:
        return float(self.said.get("blend_th", (0.3, 0.3))[0])

    @property
    def by_keys(self) -> bool:
        return bool(self.said.get("key_value_replace", False))

    @property
    def weights(self) -> dict[str, float]:
        found = self.said.get("eq_params") or {"words": [], "values": []}
        said = found["words"]
        words = [said] if isinstance(said, str) else list(said)
        return dict(zip(words, found["values"], strict=False))

    def windows(self) -> tuple[Any, dict[str, Any]]:
        """Of text attention: the share of the steps (or the pair begin, end), and those of single words."""
        found = self.said["cross_replace_steps"]
        if not isinstance(found, Mapping):
            return found, {}
        words = dict(found)
        return words.pop("default_", 1.0), words

    @property
    def kind(self) -> str:
        return "shape" if self.blend_words else "style"

    @property
    def words(self) -> dict[str, str]:
        return dict(zip(*self.blend_words, strict=False)) if self.blend_words else {}


@dataclass(frozen=True)
class Case:
    path: Path
    about: Mapping[str, Any]
    tensors: Mapping[str, Any] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: str | Path) -> "Case":
        place = Path(path).expanduser()
        try:
            about = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                "the case cannot be read",
                came=place,
                expected=f"a manifest ({error})",
                todo="name a CASE.json",
            ) from error
        return cls(place, about, about.get("tensors", {}))

    @property
    def folder(self) -> Path:
        """Above the goldens: where models, masks and pictures lie."""
        return self.path.resolve().parent.parent

    @property
    def model(self) -> Path:
        named = self.folder / self.about["model_dir"]
        found = named if named.is_dir() else self.folder / "models" / Path(self.about["model_dir"]).name
        if not found.is_dir():
            raise UserError(
                "the case's model is not there", came=named, expected="a folder in diffusers layout"
            )
        return found

    @property
    def inflated(self) -> bool:
        """Whether the network is an image model run over frames."""
        return "FateZero" in str(self.about.get("official_repo", ""))

    @property
    def temporal(self) -> Path | None:
        """The temporal weights of the authors' inflated network."""
        named = self.about.get("unet3d_temporal_weights")
        if named is None:
            return None
        found = self.folder / named
        if not found.is_file():
            raise UserError("the case's temporal weights are not there", came=found)
        return found

    @property
    def steps(self) -> int:
        return int(self.about["num_inference_steps"])

    @property
    def editing(self) -> Mapping[str, Any]:
        return self.about["config"]["editing_config"]

    @cached_property
    def _file(self) -> Any:
        path = self.path.with_name(self.about.get("file", f"{self.path.stem}.safetensors"))
        try:
            return safe_open(path, "pt")
        except OSError as error:
            raise UserError("the case's tensors cannot be read", came=path, expected=error) from error

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        if name not in self:
            raise UserError(f"the case has no tensor '{name}'", came=self.path)
        self.used.add(name)
        return self._file.get_tensor(name)

    def unused(self) -> list[str]:
        """What was never looked at, by the first parts of its names."""
        rest = (name.split("_step")[0].split("/") for name in set(self.tensors) - self.used)
        return sorted({parts[0] if parts[0] == "camap" else "/".join(parts[:2]) for parts in rest})

    def names(self, start: str) -> Iterator[str]:
        return (name for name in self.tensors if name.startswith(start))

    def latents(self, name: str) -> Tensor:
        """Stored as (..., c f h w), here (..., f c h w); a leading batch of one goes."""
        found = self[name]
        found = rearrange(found, "... c f h w -> ... f c h w")
        return found[0] if name.endswith("init_latents") else found

    def number(self, key: str, default: float) -> float:
        return float(self.about.get("tolerance", {}).get(key, default))

    def edits(self) -> list[Edit]:
        """The prompts of which latents are stored."""
        found = []
        config = self.editing.get("p2p_config") or {}
        controllers = self.about.get("controllers") or {}
        for place, prompt in enumerate(self.about.get("editing_prompts") or ()):
            name = f"edit{place}"
            if f"{name}/latents" not in self:
                continue
            said = config.get(str(place), config.get(place, {}))
            controlled = name in controllers and not self.about.get("base_no_control")
            if controlled and not self.editing.get("use_inversion_attention", True):
                raise UserError(
                    f"{name} takes its maps from another edit instead of the inversion",
                    came="use_inversion_attention: false",
                    expected="a case whose edits use the inversion's attention",
                )
            found.append(Edit(name, self.about["source_prompt"], prompt, said, controlled))
        return found


def as_map(case: Case, edit: Edit) -> tuple[Tensor, Tensor] | None:
    start = f"{edit.name}/ctrl/"
    return stored_map(case, start) if f"{start}mapper" in case else None


def stored_map(case: Case, start: str) -> tuple[Tensor, Tensor]:
    """The stored word map in the form of ours: the matrix on the source's columns, and the share of the own one."""
    mapper = case[f"{start}mapper"][0]
    if mapper.ndim == 2:
        return mapper, torch.zeros(len(mapper))
    alphas = case[f"{start}refine_alphas"].flatten()
    matrix = torch.zeros(len(mapper), len(mapper))
    matrix[mapper, torch.arange(len(mapper))] = 1
    return matrix * alphas, 1 - alphas
