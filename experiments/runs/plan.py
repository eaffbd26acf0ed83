"""The frozen plan of a run: the kind of work, every variant's resolved configuration, and the items; written once.

A plan is RUN/plans/<digest>.json and never changes. Workers read nothing else: what somebody does to the configuration
or to a task list meanwhile does not reach them."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.config.fingerprint import Identity
from experiments.runs.rows import cannot_write, write_text
from experiments.runs.run import PLANS
from freemask.errors import UserError


@dataclass(frozen=True)
class Variant:
    """One configuration as it is worked on. The only one of a plain run has no name and lies in the run's folder."""

    name: str | None
    overrides: Sequence[str]
    choices: Mapping[str, str | None]
    config: Mapping[str, Any]
    identity: Identity

    def folder(self, run: Path) -> Path:
        return run if self.name is None else run / self.name


@dataclass(frozen=True)
class Item:
    """One thing to do. `data` is what the kind of work needs to know of it. `marks`: the variants that it is for
    ("" for one without a name), and what their last row must be marked with to count; None: for all, unmarked."""

    id: str
    data: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, str] | None = None

    def mark(self, variant: str | None) -> str | None:
        """None: it is not for that variant."""
        return "" if self.marks is None else self.marks.get(variant or "")


@dataclass(frozen=True)
class Plan:
    """`job` is a module of experiments.jobs."""

    job: str
    variants: Sequence[Variant]
    items: Sequence[Item]

    @property
    def size(self) -> int:
        """How many rows it asks for."""
        return sum(item.mark(each.name) is not None for each in self.variants for item in self.items)

    def write(self, run: Path) -> Path:
        """Where it lies; the same plan is written once, however often it is launched."""
        text = self._text()
        path = run / PLANS / f"{_digest(text)}.json"
        try:
            if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
                os.utime(path)  # the plan of the latest launch is the youngest
            else:
                write_text(path, text)
        except OSError as error:
            raise cannot_write(path, error) from error
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
        variants = [
            Variant(each["name"], each["overrides"], each["choices"], each["config"], Identity(each["parts"]))
            for each in found["variants"]
        ]
        return cls(found["job"], variants, [Item(**each) for each in found["items"]])

    def _text(self) -> str:
        variants = [
            {
                "name": each.name,
                "overrides": list(each.overrides),
                "choices": dict(each.choices),
                "identity": each.identity.hash,
                "config": each.config,
                "parts": each.identity.parts,
            }
            for each in self.variants
        ]
        items = [asdict(each) for each in self.items]
        return json.dumps({"job": self.job, "variants": variants, "items": items}, indent=1, default=str)


@dataclass(frozen=True)
class Launch:
    """One start of a run, small enough to be sent anywhere. `redo`: items whose last row is older than that moment are
    done again, where it failed or, with `whole`, all. `keep` is all, sample or none: whose files stay. `home` is where
    relative paths begin."""

    plan: Path
    keep: str
    home: Path
    redo: str | None = None
    whole: bool = False

    @property
    def run(self) -> Path:
        return self.plan.parent.parent


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
