"""What a run is: a hash over everything that changes a result, and over nothing that does not."""

import hashlib
import inspect
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object

from experiments.config import choices
from experiments.config.build import build
from freemask.backbones.checkpoint import SHIPPED, find
from freemask.backbones.identity import of_file, of_folder
from freemask.errors import UserError
from freemask.fusion.settings import PARTS, SWITCHES
from freemask.masks.codebook import Codebook
from freemask.types import EditTask

COMPONENTS = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
# Settings that change speed, memory or a place on disk, never a number.
SPEED = {"device", "attention_slicing", "vae_slicing", "vae_batch", "local_files_only", "allow_pickle"}
PLACES = {"root", "path", "tasks", "manifest", "regions", "clip"}
FREE = SPEED | PLACES
# The same of a method and what it is made of; of a codebook it is the content that counts.
FREE_OF_METHOD = {
    "features",
    "cache_on",
    "budget_gb",
    "inversions",
    "inversions_gb",
    "heat_gb",
    "codebook",
    "folders",
}


@dataclass(frozen=True)
class Identity:
    parts: Mapping[str, Any]

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()[:16]

    def record(self) -> dict[str, Any]:
        return {"identity": self.hash, "parts": self.parts}

    def compare(self, stored: Mapping[str, Any], folder: Path) -> None:
        if stored.get("identity") == self.hash:
            return
        there, here = dict(_flat(stored["parts"])), dict(_flat(self.parts))
        differing = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
        shown = [f"{key}: {there.get(key)} there, {here.get(key)} here" for key in differing[:5]]
        raise UserError(
            f"{folder} holds a run with another configuration",
            came="; ".join(shown) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else ""),
            expected="the configuration that began the run: results of two never share a folder",
            todo="choose another name=..., undo the change, or delete the folder",
        )


def identity_of(config: Mapping[str, Any], tasks: Sequence[EditTask]) -> Identity:
    """From a resolved run configuration and the whole task list (a limit changes no result)."""
    return identities_of([config], tasks)[0]


def identities_of(configs: Sequence[Mapping[str, Any]], tasks: Sequence[EditTask]) -> list[Identity]:
    """Of several configurations over one task list."""
    task_list = _digest([asdict(task) | {"assets": _names(task.assets)} for task in tasks])
    return [_identity(config, task_list) for config in configs]


def _identity(config: Mapping[str, Any], task_list: str) -> Identity:
    parts = {
        "method": method_of(config),
        "model": _model(config["model"]),
        "data": _bound(config["data"]) | {"task_list": task_list},
        "metric": config["metric"],
        "seed": config["seed"],
    }
    return Identity(json.loads(json.dumps(parts, default=str)))


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    found = _bound(model) | {"weights": _weights(model.get("path"))}
    temporal = Path(model["temporal"]).expanduser() if model.get("temporal") else None
    if temporal is not None and temporal.exists():
        found["temporal"] = of_file(temporal) if temporal.is_file() else of_folder(temporal, ["."])
    return found


def method_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of the method's settings changes numbers. Masks and fusion are among them where it refers to them."""
    found = {f"codebook of {key}": digest for key, digest in _codebooks(config["method"], config["model"])}
    return _plainly(_without(config["method"], FREE_OF_METHOD)) | found


def _plainly(node: Any) -> Any:
    """Parts of a fusion by one name each, however they were switched on or off."""
    if isinstance(node, list):
        return [_plainly(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    found = {key: _plainly(value) for key, value in node.items()}
    if str(node.get("_target_")).endswith("fusion.settings.fusion"):
        found |= {part: SWITCHES.get(found[part], found[part]) for part in PARTS if part in found}
    return found


def _without(node: Any, keys: Collection[str]) -> Any:
    if isinstance(node, Mapping):
        return {key: _without(value, keys) for key, value in node.items() if key not in keys}
    return [_without(each, keys) for each in node] if isinstance(node, list) else node


def _codebooks(node: Any, model: Mapping[str, Any], key: str = "method") -> Iterator[tuple[str, str]]:
    """Every `codebook: auto` or `codebook: FILE`, and the digest of what lies there."""
    if not isinstance(node, Mapping):
        return
    for name, each in node.items():
        if name == "codebook" and each is not None:
            yield key, _codebook(str(each), node.get("folders"), model).digest
        yield from _codebooks(each, model, f"{key}.{name}")


def _codebook(named: str, folders: Any, model: Mapping[str, Any]) -> Codebook:
    if named != "auto":
        return Codebook.read(named)
    places = [folders] if isinstance(folders, str) else folders or ()
    return Codebook.find(backbone_identity(model), places, model=_option(model))


def _option(model: Mapping[str, Any]) -> str | None:
    """The name under which conf/model has it."""
    for each in choices.group("model"):
        known = choices.content("model", each.name)
        if all(known.get(key) == model.get(key) for key in ("_target_", "path")):
            return each.name
    return None


def backbone_identity(model: Mapping[str, Any]) -> str:
    """What the loaded model will call itself; only a model without files has to be made for that."""
    if model.get("path") is None:
        return build(model, "model").identity
    identify = getattr(_class_of(model), "identify", None)
    if identify is not None:
        takes = inspect.signature(identify).parameters
        return identify(**{key: value for key, value in model.items() if key in takes})
    known = {key: model[key] for key in ("revision", "local_files_only", "allow_pickle") if key in model}
    return of_folder(find(model["path"], **known).folder, COMPONENTS)


def _class_of(model: Mapping[str, Any]) -> Any:
    """Whose method `load` or `random` the configuration names."""
    try:
        return get_object(model["_target_"].rpartition(".")[0])
    except (HydraException, ImportError, AttributeError, ValueError):
        return None  # building the model says what is wrong


def free_of_places(data: Mapping[str, Any]) -> dict[str, Any]:
    """A data source's settings that change a number."""
    return _bound(data)


def _names(assets: Mapping[str, str]) -> dict[str, str]:
    return {key: Path(path).name for key, path in assets.items()}


def _bound(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in FREE}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _weights(path: str | None) -> str | None:
    """The content of a local model's files; a hub id stands for itself."""
    if path is None:
        return None
    folder = SHIPPED.get(path) or Path(path).expanduser()
    return of_folder(folder, COMPONENTS) if folder.is_dir() else path


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, node
