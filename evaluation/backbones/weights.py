"""Which pretrained weights the metrics know, where they lie, and how to get them. Nothing is downloaded."""

import hashlib
import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from freemask.errors import UserError
from freemask.optical import raft


@dataclass(frozen=True)
class Weights:
    """A named backbone. `look` finds its file or directory, or None. `sha256` may be a prefix."""

    name: str
    look: Callable[[], Path | None]
    licence: str
    get: str
    sha256: str = ""
    architecture: str = ""


def _embedded() -> Path | None:
    folder = Path(str(importlib.resources.files("freemask"))) / "weights" / "clip"
    return folder if (folder / "open_clip_config.json").is_file() else None


def _openai(file: str, repository: str) -> Callable[[], Path | None]:
    def look() -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        plain = Path.home() / ".cache" / "clip" / file
        if plain.is_file():
            return plain
        for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
            found = try_to_load_from_cache(repository, name)
            if isinstance(found, str):
                return Path(found)
        return None

    return look


def _torchvision(file: str) -> Callable[[], Path | None]:
    def look() -> Path | None:
        import torch.hub

        path = Path(torch.hub.get_dir()) / "checkpoints" / file
        return path if path.is_file() else None

    return look


_OPEN_CLIP = "python -c \"import open_clip; open_clip.create_model('{}', pretrained='openai')\""
_VISION = "python -c \"import torchvision.models as m; m.{}(weights='IMAGENET1K_V1')\""
_OPENAI_LICENCE = "MIT (OpenAI CLIP)"
_VISION_LICENCE = "BSD-3-Clause (torchvision); trained on ImageNet, whose terms are for research"


KNOWN = {
    weights.name: weights
    for weights in (
        Weights("embedded", _embedded, "Apache-2.0 (this project)", "freemask train what=clip"),
        Weights(
            "vit_b_32",
            _openai("ViT-B-32.pt", "timm/vit_base_patch32_clip_224.openai"),
            _OPENAI_LICENCE,
            _OPEN_CLIP.format("ViT-B-32-quickgelu"),
            "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
            "ViT-B-32-quickgelu",
        ),
        Weights(
            "vit_l_14",
            _openai("ViT-L-14.pt", "timm/vit_large_patch14_clip_224.openai"),
            _OPENAI_LICENCE,
            _OPEN_CLIP.format("ViT-L-14-quickgelu"),
            "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
            "ViT-L-14-quickgelu",
        ),
        Weights(
            "alex",
            _torchvision("alexnet-owt-7be5be79.pth"),
            _VISION_LICENCE,
            _VISION.format("alexnet"),
            "7be5be79",
        ),
        Weights(
            "vgg", _torchvision("vgg16-397923af.pth"), _VISION_LICENCE, _VISION.format("vgg16"), "397923af"
        ),
        Weights("raft_large", raft.usual, raft.LICENCE, raft.GET, raft.SHA256),
    )
}


@dataclass(frozen=True)
class Found:
    """A backbone that can be loaded here, and the label of its numbers. No path: it needs no file."""

    name: str
    label: str
    path: Path | None = None
    architecture: str = ""


def find(name: str, path: str | None = None) -> Found:
    """The weights called `name`: at `path`, else where their own libraries keep them."""
    known = KNOWN[name]
    place = Path(path).expanduser() if path is not None else known.look()
    if place is None or not place.exists():
        other = "or name a file with weights=PATH, or use backbone=auto"
        raise UserError(
            f"the weights of the metric backbone '{name}' are not on this machine",
            came=path if path is not None else "nothing in the usual caches",
            expected=f"weights under the licence {known.licence}",
            todo=f"get them with: {known.get}\n            {other}",
        )
    return Found(name, name if path is None else _label(known, place), place, known.architecture)


def present(name: str) -> bool:
    return KNOWN[name].look() is not None


def _label(known: Weights, place: Path) -> str:
    """Unknown content gets a label of its own, so that its numbers share no column with the real one's."""
    marks = [digest(file) for file in _files(place)]
    if known.sha256 and len(marks) == 1 and marks[0].startswith(known.sha256):
        return known.name
    mark = marks[0] if len(marks) == 1 else hashlib.sha256("".join(marks).encode()).hexdigest()
    return f"{known.name}:{mark[:8]}"


def _files(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(file for file in place.iterdir() if file.is_file())


def digest(file: Path) -> str:
    stat = file.stat()
    return _digest(str(file.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(file: str, _size: int, _changed: int) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
