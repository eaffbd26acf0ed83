"""What a run is: a hash over everything that changes a result, and over nothing that does not."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from freemask.backbones.checkpoint import EMBEDDED
from freemask.backbones.identity import of_folder
from freemask.errors import UserError
from freemask.types import EditTask

COMPONENTS = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
# Settings that change speed, memory or a place on disk, never a number.
SPEED = {"device", "attention_slicing", "vae_slicing", "vae_batch", "local_files_only", "allow_pickle"}
PLACES = {"root", "path", "tasks", "manifest", "regions", "clip"}
FREE = SPEED | PLACES


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
    listed = [asdict(task) | {"assets": _names(task.assets)} for task in tasks]
    parts = {
        "method": config["method"],
        "mask": config["mask"],
        "fusion": config["fusion"],
        "model": _bound(config["model"]) | {"weights": _weights(config["model"].get("path"))},
        "data": _bound(config["data"]) | {"task_list": _digest(listed)},
        "metric": config["metric"],
        "seed": config["seed"],
    }
    return Identity(json.loads(json.dumps(parts, default=str)))


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
    folder = EMBEDDED if path == "embedded" else Path(path).expanduser()
    return of_folder(folder, COMPONENTS) if folder.is_dir() else path


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, node
