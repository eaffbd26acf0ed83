"""The frozen plan of a run: every variant's resolved configuration times the tasks, written once, then worked on.

A plan is RUN/plans/<digest>.json and never changes. Workers read nothing else: what somebody does to the configuration
or to the task list meanwhile does not reach them."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.config.identity import Identity
from experiments.runs.rows import write_text
from experiments.config.variants import Variant
from freemask.errors import UserError
from freemask.types import EditTask

PLANS = "plans"
# What work needs of a resolved configuration. Engines, loggers and what is kept belong to a launch, not to the plan.
NEEDED = ("method", "mask", "fusion", "model", "data", "metric", "seed")


@dataclass(frozen=True)
class Frozen:
    """One variant as it is worked on; the only one of a plain run has no name."""

    name: str | None
    overrides: Sequence[str]
    config: Mapping[str, Any]
    identity: Identity

    def folder(self, run: Path) -> Path:
        return run if self.name is None else run / self.name


@dataclass(frozen=True)
class Plan:
    variants: Sequence[Frozen]
    tasks: Sequence[EditTask]

    @classmethod
    def of(
        cls, variants: Sequence[Variant], identities: Sequence[Identity], tasks: Sequence[EditTask]
    ) -> "Plan":
        frozen = [
            Frozen(each.name, each.overrides, {key: each.config[key] for key in NEEDED}, own)
            for each, own in zip(variants, identities, strict=True)
        ]
        return cls(frozen, list(tasks))

    def write(self, run: Path) -> Path:
        """Where it lies; the same plan is written once, however often it is launched."""
        text = self._text()
        path = run / PLANS / f"{_digest(text)}.json"
        try:
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                os.utime(path)  # the plan of the latest launch is the youngest
            else:
                write_text(path, text)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                "cannot write the run", came=f"{path}: {error}", todo="paths.runs=FOLDER"
            ) from error
        return path

    @classmethod
    def read(cls, path: Path) -> "Plan":
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError("the plan cannot be read", came=f"{path}: {error}") from error
        if _digest(text) != path.stem:
            raise UserError(
                "the plan was changed after it was frozen",
                came=f"{path}, whose content is {_digest(text)}",
                expected="a file that still is what its name says",
                todo="start the run again by its own command: it writes the plan anew",
            )
        found = json.loads(text)
        frozen = [
            Frozen(each["name"], each["overrides"], each["config"], Identity(each["parts"]))
            for each in found["variants"]
        ]
        return cls(frozen, [EditTask(**each) for each in found["tasks"]])

    def _text(self) -> str:
        variants = [
            {
                "name": each.name,
                "overrides": list(each.overrides),
                "identity": each.identity.hash,
                "config": each.config,
                "parts": each.identity.parts,
            }
            for each in self.variants
        ]
        tasks = [asdict(each) for each in self.tasks]
        return json.dumps({"variants": variants, "tasks": tasks}, indent=1, default=str)


@dataclass(frozen=True)
class Launch:
    """One start of a run, small enough to be sent anywhere. `retry` is the moment of a start that asked to redo
    failures: rows that failed before it are done again. `keep` is all, sample or none. `home` is where relative
    paths begin."""

    plan: Path
    retry: str | None
    keep: str
    home: Path

    @property
    def run(self) -> Path:
        return self.plan.parent.parent


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
