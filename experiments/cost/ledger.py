"""The file that remembers which cells of a benchmark are measured, and what they were measured on."""

import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from experiments.config.identity import Identity
from experiments.cost.memory import can_reset, has_glibc
from experiments.cost.plan import Cell
from experiments.runs import environment
from freemask.errors import UserError
from freemask.types import Backbone

CPU = Path("/proc/cpuinfo")


class Ledger:
    """The report's JSON, written after each cell, so that the same command continues after an interruption."""

    def __init__(self, path: Path, identity: Identity, about: Mapping[str, Any]) -> None:
        self.path, self._dirty, self._begun = path, bool(about.get("dirty")), False
        self.data: dict[str, Any] = {"what": "fusion", "finished": False, **identity.record()}
        self.data |= {"about": dict(about), "starts": 0, "cells": {}, "summary": {}}

    @classmethod
    def open(cls, path: Path, identity: Identity, about: Mapping[str, Any], *, fresh: bool) -> "Ledger":
        """With what an earlier start of the same command has measured. A file of another command is refused."""
        ledger = cls(path, identity, about)
        if fresh or not path.exists():
            return ledger
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            there, known = dict(stored["parts"]), {key: stored[key] for key in ledger.data}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} cannot be read",
                came=f"{type(error).__name__}: {error}",
                todo="fresh=true makes it again",
            ) from error
        if stored["identity"] != identity.hash:
            raise UserError(
                f"{path} holds other measurements",
                came="; ".join(_differing(there, identity.parts)),
                expected="those of the same command, commit and machine: two never share a file",
                todo="fresh=true forgets them; or choose another name=... or out=...",
            )
        ledger.data = known
        return ledger

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """Those not measured yet; one that did not fit is tried again."""
        known = self.data["cells"]
        return [cell for cell in cells if "failed" in known.get(cell.name, {"failed": ""})]

    def put(self, cell: Cell, found: Mapping[str, Any]) -> None:
        if not self._begun:
            self._begun = True
            self.data |= {"starts": self.data["starts"] + 1, "finished": False}
            self.data["about"]["dirty"] |= self._dirty
        self.data["cells"][cell.name] = {**asdict(cell), **found, "start": self.data["starts"]}
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        half = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        half.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        half.replace(self.path)


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    for part in sorted({*there, *here}):
        old, new = (each.get(part) for each in (there, here))
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            old, new = {"": old}, {"": new}
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                yield f"{part}{'.' if key else ''}{key}: {old.get(key)} there, {new.get(key)} here"


def machine(backbone: Backbone) -> dict[str, Any]:
    """What numbers depend on besides the command."""
    name = _cpu() if backbone.device.type == "cpu" else environment.device_name(str(backbone.device))
    return {
        "device": name,
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "versions": environment.versions(),
        "commit": environment.commit()[0],
    }


def abilities() -> dict[str, bool]:
    """What of measuring memory this system can do."""
    return {"peaks_are_reset": can_reset(), "freed_memory_is_returned": has_glibc()}


def _cpu() -> str:
    try:
        lines = CPU.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
