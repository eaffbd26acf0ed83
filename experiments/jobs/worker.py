"""A process at work on a frozen plan: `python -m experiments.jobs.worker RUN/plans/DIGEST.json --share 0/8`.

Every engine ends here. A worker reads the plan and nothing else, claims each item before it begins, and appends a row
when it has finished; so it may be started, killed and started again anywhere, beside any number of others."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.jobs.job import Job, Lane, Loaded, job_of, open_lanes
from experiments.runs.claims import Claims, Presence, writer_name
from experiments.runs.plan import Item, Launch, Plan
from experiments.runs.rows import Row, cannot_write, keep_columns, now
from freemask.errors import UserError

Hear = Callable[[Row, Mapping[str, Path]], None]


def nobody_hears(row: Row, files: Mapping[str, Path]) -> None:
    """For workers that are watched through their rows."""


def silent(stage: str, done: int, total: int) -> None:
    """For workers that nobody looks at."""


class Worker:
    """Does items of a plan, with one model in memory at a time. `device` overrides where the settings put models."""

    def __init__(
        self,
        launch: Launch,
        writer: str,
        *,
        hear: Hear = nobody_hears,
        progress: Callable[[str, int, int], None] = silent,
        device: str | None = None,
    ) -> None:
        self.plan = Plan.read(launch.plan)
        self.job = job_of(self.plan)
        self.groups = grouped(self.job, open_lanes(self.plan, launch))
        self._items = {item.id: item for item in self.plan.items}
        self._hear, self._progress, self._device = hear, progress, device
        self._presence = Presence(launch.run, writer)
        self._claims = {id(lane): Claims(lane.store.folder) for group in self.groups for lane in group}
        self._tried: set[tuple[str | None, str]] = set()
        self._loaded: tuple[int, Loaded] | None = None

    def __enter__(self) -> "Worker":
        self._presence.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._presence.__exit__()

    def share(self, mine: Sequence[Item], others: Sequence[Item] = ()) -> None:
        """Own items, then what nobody has begun of the others'; again, until there is nothing left to take. So what a
        worker that dies meanwhile had in hand is taken up by those that live."""
        for number in range(len(self.groups)):
            while True:
                done = [self.do(number, item.id) for item in mine]
                done += [self.do(number, item.id, again=False) for item in others]
                if not any(done):
                    break

    def do(self, group: int, item: str, *, again: bool = True) -> int:
        """One item in every lane of a group that needs it; how many did. So variants keep pace, and a table of a
        half-finished run compares them on the same items."""
        one, done = self._items[item], 0
        for place, lane in enumerate(self.groups[group]):
            key, claims = (lane.variant.name, item), self._claims[id(lane)]
            if key in self._tried or not lane.needs(one, again) or not claims.take(item):
                continue
            try:
                lane.index.refresh()  # somebody may have finished it since the last look
                if lane.needs(one, again):
                    self._tried.add(key)
                    self._do(group, place, one)
                    done += 1
            finally:
                claims.drop(item)
        return done

    def _do(self, group: int, place: int, item: Item) -> None:
        lane = self.groups[group][place]
        self._presence.doing(lane.variant.name, item.id)
        done = self._ready(group).do(place, item, self._progress)
        try:
            keep_columns(lane.store.folder, done.columns)
        except OSError as error:
            raise cannot_write(lane.store.folder, error) from error
        done.row["writer"], done.row["finished"] = self._presence.writer, now()
        if done.files:
            within = {kind: path.relative_to(lane.store.folder) for kind, path in done.files.items()}
            done.row["files"] = {kind: path.as_posix() for kind, path in within.items()}
        lane.store.append(self._presence.writer, done.row)
        self._presence.doing(None, None)
        self._hear(done.row, done.files)

    def _ready(self, group: int) -> Loaded:
        if self._loaded is None or self._loaded[0] != group:
            self._loaded = None  # the last model goes before the next one comes
            made = self.job.load(self.groups[group], self.plan, self._device, self._progress)
            self._loaded = group, made
        return self._loaded[1]


def grouped(job: Job, lanes: Sequence[Lane]) -> list[list[Lane]]:
    """Lanes that share what is loaded."""
    groups: dict[str, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(job.group(lane.variant), []).append(lane)
    return list(groups.values())


def part(items: Sequence[Item], index: int, count: int) -> tuple[list[Item], list[Item]]:
    """Share `index` of `count` of the full ordered list, and the rest: the other shares' last items first, since those
    are the ones that nobody will reach soon."""
    mine = list(items[index::count])
    rest = [item for place, item in enumerate(items) if place % count != index]
    return mine, rest[::-1]


def work(launch: Launch, engine: str, index: int, count: int, **sight: Any) -> None:
    """What a process does that an engine started: its share, then what is left of the others'. `sight` goes to
    Worker."""
    if launch.home.is_dir():
        os.chdir(launch.home)
    with Worker(launch, writer_name(engine, index), **sight) as worker:
        worker.share(*part(worker.plan.items, index, count))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.jobs.worker", description=__doc__)
    parser.add_argument("plan", type=Path, help="RUN/plans/DIGEST.json, as `freemask run` wrote it")
    parser.add_argument(
        "--share", default="0/1", metavar="K/N", help="share K of N, and what is left of the others"
    )
    parser.add_argument("--item", help="this item alone, in every variant")
    parser.add_argument("--keep", choices=("all", "sample", "none"), default="all")
    parser.add_argument(
        "--retry", metavar="TIME", help="redo what failed before this time (2026-01-31T12:00:00)"
    )
    given = parser.parse_args(words)
    index, _, count = given.share.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        parser.error("--share takes K/N with K from 0 to N-1")
    launch = Launch(given.plan.resolve(), given.keep, Path.cwd(), given.retry)
    try:
        if given.item is None:
            work(launch, "worker", int(index), int(count))
            return 0
        with Worker(launch, writer_name("worker", int(index))) as worker:
            if given.item not in {item.id for item in worker.plan.items}:
                raise UserError("the plan has no such item", came=given.item, expected="an id of its list")
            for number in range(len(worker.groups)):
                worker.do(number, given.item)
        return 0
    except UserError as error:
        print(f"freemask: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
