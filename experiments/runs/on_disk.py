"""A run as it lies on disk: where its rows are, and the data that it was made of."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.build import build
from experiments.config.identity import FREE
from experiments.runs.plan import PLANS, Plan
from experiments.runs.rows import RECORD
from experiments.runs.store import RunStore
from experiments.config.variants import NAME
from freemask.errors import UserError
from freemask.types import DataSource


@dataclass(frozen=True)
class RunOnDisk:
    """A run that lies on disk: its stores by variant, and the data that it was made of."""

    folder: Path
    stores: Mapping[str | None, RunStore]
    reference: str | None
    data: Mapping[str, Any] | None

    @classmethod
    def open(cls, folder: Path) -> "RunOnDisk":
        record = _json(folder / RECORD)
        listed = record.get("variants")
        if isinstance(listed, Mapping):
            names = [name for name in listed if NAME.fullmatch(name) and (folder / name / "rows").is_dir()]
            stores: dict[str | None, RunStore] = {name: RunStore(folder / name) for name in names}
            first = _json(folder / names[0] / RECORD) if names else {}
        else:
            stores = {None: RunStore(folder)} if (folder / "rows").is_dir() else {}
            first = record
        if not stores:
            within = sorted(each.parent.name for each in folder.glob(f"*/{RECORD}"))
            raise UserError(
                f"{folder} holds no rows",
                came=folder,
                expected=f"a run's folder, such as {folder / within[0]}" if within else "a run's folder",
                todo="freemask run name=NAME, and freemask evaluate NAME",
            )
        return cls(folder, stores, record.get("reference"), _data_of(folder, first))

    def rows(self) -> dict[str, dict[str | None, dict[str, Any]]]:
        """The last rows by task, then by variant."""
        found: dict[str, dict[str | None, dict[str, Any]]] = {}
        for name, store in self.stores.items():
            for task, row in store.latest().items():
                found.setdefault(task, {})[name] = row
        return found


def open_data(run: RunOnDisk, chosen: Mapping[str, Any], *, own_data: bool) -> DataSource:
    """The data of the run; that of the command line must be the same, places aside."""
    if own_data and run.data is not None:
        try:
            return build(run.data, "data")
        except UserError as error:
            raise UserError(
                f"the data of {run.folder} cannot be opened: {error.wrong}",
                came=error.came,
                expected=error.expected,
                todo="name it as for the run: data=... data.root=...",
            ) from error
    there = {key: value for key, value in (run.data or {}).items() if key not in FREE}
    here = {key: value for key, value in chosen.items() if key not in FREE}
    differing = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
    if run.data is not None and differing:
        shown = "; ".join(
            f"data.{key}: {there.get(key)} there, {here.get(key)} here" for key in differing[:4]
        )
        raise UserError(
            f"{run.folder} was made of other data",
            came=shown,
            expected="the data of the run: frames are compared with their own sources",
            todo="leave out data=... to take the run's own, or give every data setting that the run was given",
        )
    return build(chosen, "data")


def _data_of(folder: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """From the youngest plan; of older runs what their identity says, which is without places."""
    plans = sorted((folder / PLANS).glob("*.json"), key=lambda path: path.stat().st_mtime)
    if plans:
        return dict(Plan.read(plans[-1]).variants[0].config["data"])
    data = (record.get("parts") or {}).get("data") or {}
    return {key: value for key, value in data.items() if key != "task_list"} or None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            "the run's record cannot be read", came=path, expected="the file that `freemask run` wrote"
        ) from error
    return found if isinstance(found, dict) else {}
