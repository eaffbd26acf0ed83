"""A kind of work that needs no torch, for tests of what is the same for all kinds."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.identity import Identity
from experiments.jobs.job import Done, Lane
from experiments.runs.plan import Item, Plan, Variant
from experiments.runs.rows import brief, now


class PlainJob:
    brief = staticmethod(brief)

    def group(self, variant: Variant) -> str:
        return str(variant.config.get("model"))

    def load(self, lanes: Sequence[Lane], plan: Plan, device: str | None, progress: Any) -> "Loaded":
        return Loaded(lanes)


JOB = PlainJob()


@dataclass(frozen=True)
class Loaded:
    lanes: Sequence[Lane]

    def do(self, place: int, item: Item, progress: Any) -> Done:
        row = self.lanes[place].head(item)
        time.sleep(item.data.get("seconds", 0))
        if item.data.get("deadly") and not Path(item.data["deadly"]).exists():
            Path(item.data["deadly"]).touch()
            os._exit(9)
        row |= {"status": item.data.get("status", "done"), "finished": now(), "seconds": {"work": 1.0}}
        row["metrics"] = {"x": float(len(item.id))}
        return Done(row, {}, {"x": {"unit": "letters"}})


def plan_of(items: Sequence[Item], names: Sequence[str | None] = (None,)) -> Plan:
    variants = [
        Variant(name, (), {"method": "plain"}, {"seed": 0}, Identity({"seed": 0, "name": name}))
        for name in names
    ]
    return Plan("tests.plain_job", variants, items)
