"""What makes two checkpoints the same: their content, never their place."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

WHOLE = 64 * 2**20  # files up to this size are hashed in full
PIECE = 64 * 2**10
SAMPLES = 64


def of_folder(folder: Path, parts: list[str]) -> str:
    """Hash of the files of these components, hidden ones apart. Of larger files: size, first bytes (the header of
    safetensors) and samples of 64 KiB at 64 evenly spaced places."""
    digest = hashlib.sha256()
    for part in sorted(parts):
        for path in sorted(each for each in (folder / part).rglob("*") if each.is_file()):
            if any(piece.startswith(".") for piece in path.relative_to(folder).parts):
                continue
            digest.update(f"{path.relative_to(folder).as_posix()}:{path.stat().st_size}\n".encode())
            digest.update(_content(path))
    return digest.hexdigest()[:16]


def of_file(path: Path) -> str:
    """The same of a single file."""
    return hashlib.sha256(f"{path.stat().st_size}\n".encode() + _content(path)).hexdigest()[:16]


def of_facts(facts: dict[str, Any]) -> str:
    """Of what a backbone adds to its files."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Of tensors in memory, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}:{tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().double().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def of_modules(modules: dict[str, nn.Module], config: dict[str, Any]) -> str:
    """Hash of parameters in memory, for networks that were never saved."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, module in sorted(modules.items()):
        for key, value in module.state_dict().items():
            digest.update(f"{name}.{key}:{tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()[:16]


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size <= WHOLE:
        return hashlib.sha256(path.read_bytes()).digest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for i in range(SAMPLES):
            file.seek(i * (size - PIECE) // (SAMPLES - 1))
            digest.update(file.read(PIECE))
    return digest.digest()
