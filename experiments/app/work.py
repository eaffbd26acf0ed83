"""One job at a time, which stops between two steps when it is told to; and the model that is kept for the next one."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Lock
from typing import Any

from experiments.jobs import thrift
from experiments.jobs.edit import model_of
from freemask.types import Backbone

WAIT = 0.05  # seconds between two looks whether it is this job's turn


class Stopped(BaseException):
    """Somebody pressed Stop. As Ctrl-C it is no Exception, or it would become the row of an edit that failed."""


class Reporter:
    """Tells the page how far the work is, and ends the work where that was asked for."""

    def __init__(self, show: Callable[[float, str], None], stop: Event) -> None:
        self._show, self._stop = show, stop
        self.lines: list[str] = []

    def stage(self, name: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Stopped
        counted = f"{name}: {done} of {total}" if total > 1 else name
        self._show(done / total if total else 0.0, counted)

    def busy(self, name: str) -> None:
        self.stage(name, 0, 1)

    def say(self, line: str) -> None:
        self.lines.append(line.removeprefix("note: "))


class Jobs:
    """`who` is whoever started a job, and the only one who can stop it."""

    def __init__(self) -> None:
        self._turn, self._told = Lock(), Lock()
        self._stops: dict[str, list[Event]] = {}

    @contextmanager
    def one(self, who: str, show: Callable[[float, str], None]) -> Iterator[Reporter]:
        """Begins when no other job is at work."""
        stop = Event()
        with self._told:
            self._stops.setdefault(who, []).append(stop)
        reporter = Reporter(show, stop)
        try:
            while not self._turn.acquire(timeout=WAIT):
                reporter.busy("waiting for another job")
            try:
                yield reporter
            finally:
                self._turn.release()
        finally:
            with self._told:
                self._stops[who].remove(stop)
                self._stops = {name: each for name, each in self._stops.items() if each}

    def stop(self, who: str) -> int:
        """How many jobs were told to stop."""
        with self._told:
            stops = self._stops.get(who, [])
            for each in stops:
                each.set()
            return len(stops)

    def stop_all(self) -> None:
        with self._told:
            for each in [event for stops in self._stops.values() for event in stops]:
                each.set()


class Shelf:
    """The model of the last job. Another one takes its place; two may be more than the memory holds."""

    def __init__(self) -> None:
        self._key, self._model = "", None

    def model(self, config: Mapping[str, Any]) -> Backbone:
        key = json.dumps(config["model"], sort_keys=True, default=str)
        if key != self._key or self._model is None:
            self._key, self._model = "", None
            thrift.free()
            self._model = model_of(config)
            self._key = key
        return self._model
