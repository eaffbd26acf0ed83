"""run.json: what a folder holds. One reader and one writer of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.runs.rows import cannot_write, write_text
from freemask.errors import UserError

RECORD = "run.json"


@dataclass(frozen=True)
class Record:
    """Of one configuration: what `Identity.record` says of it, the chosen options, and what was typed. Of a run of
    several: what was typed for all, their own overrides by name, and the one that others are compared with. `job` is
    the kind of work (edit, calibrate, ...)."""

    job: str = "edit"
    told: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, str | None] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    variants: Mapping[str, Sequence[str]] | None = None
    reference: str | None = None

    @property
    def parts(self) -> Mapping[str, Any]:
        found = self.told.get("parts")
        return found if isinstance(found, Mapping) else {}

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """A record that cannot be read is an error; of a folder without one, too."""
        path = folder / RECORD
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or not {"parts", "variants"} & found.keys():
                raise ValueError("it is no record")
        except (OSError, ValueError) as error:
            raise UserError(
                "the run's record cannot be read",
                came=f"{path}: {error}",
                expected="the file that `freemask run` wrote",
                todo="another name=...",
            ) from error
        listed = found.pop("variants", None)
        return cls(
            job=str(found.pop("job", "edit")),
            choices=found.pop("choices", {}),
            overrides=tuple(found.pop("overrides", ())),
            variants=dict(listed) if isinstance(listed, dict) else None,
            reference=found.pop("reference", None),
            told=found,
        )

    @classmethod
    def seen(cls, folder: Path) -> "Record":
        """As far as it can be read, for those who only look."""
        try:
            return cls.read(folder)
        except UserError:
            return cls()

    def write(self, folder: Path) -> None:
        said: dict[str, Any] = {"job": self.job}
        if self.variants is None:
            said |= {**self.told, "choices": dict(self.choices)}
        else:
            said |= {
                "variants": {name: list(each) for name, each in self.variants.items()},
                "reference": self.reference,
            }
        said["overrides"] = list(self.overrides)
        try:
            write_text(folder / RECORD, json.dumps(said, indent=2, ensure_ascii=False))
        except OSError as error:
            raise cannot_write(folder, error) from error
