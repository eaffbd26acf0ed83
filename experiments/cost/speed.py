"""The work of `freemask bench what=speed`: the seconds of an edit by stages, for clips of more and more work.

Rungs are measured one after the other in one process. What there is no time for says so, and so does what does not fit
into memory; the rest goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter, process_time
from typing import Any

from experiments.config.build import build
from experiments.cost.counting import Counted, Launched, Staged
from experiments.cost.job import SETTING, about, with_something_to_measure
from experiments.cost.machine import keep_what_is_freed, settle, wait
from experiments.cost.rungs import TRIED, Clock, Rung, rung_of, told
from experiments.cost.work import Edits, in_mode
from experiments.jobs import seeds, thrift
from experiments.jobs.attempt import Attempt
from experiments.jobs.edit import made_on, model_of
from experiments.jobs.job import Done, Job, Lane
from experiments.runs.plan import Item, Plan
from freemask.backbones.weightless import is_random
from freemask.memory import Meter
from freemask.types import Edit, EditTask, Progress

BY_STEPS = (
    "inversion",
    "sampling",
    "reconstruction",
    "null text",
)  # stages that grow with the number of steps
GB = 1e9


class SpeedJob(Job):
    def load(self, lanes: Sequence[Lane], plan: Plan, device: str | None, progress: Progress) -> "Climbing":
        config = lanes[0].variant.config
        progress("loading the model", 0, 1)
        began = perf_counter()
        backbone = model_of(config, device)
        wait(backbone.device)
        seconds = perf_counter() - began
        method = with_something_to_measure(build(config["method"], "method"))
        edits = Edits(backbone, method, EditTask.of(config["task"]), *backbone.native)
        sizes = backbone.multiple, backbone.native
        rungs = {item.id: rung_of(item.data, *sizes) for item in plan.items if item.id != SETTING}
        return Climbing(lanes[0], edits, config["options"], rungs, seconds)


JOB = SpeedJob()


@dataclass
class Climbing:
    """`began` is when the first rung was."""

    lane: Lane
    edits: Edits
    options: Mapping[str, Any]
    rungs: Mapping[str, Rung]
    load_seconds: float
    began: float | None = None
    per_step: dict[Rung, float] = field(default_factory=dict)

    def do(self, place: int, item: Item, progress: Progress) -> Done:
        attempt = Attempt(self.lane.head(item))
        attempt.tell(**made_on(self.edits.backbone))
        progress(item.id, 0, 1)
        found = self._about if item.id == SETTING else lambda: self.measure(item.id)
        with attempt.timed("speed"):
            if not attempt.work(lambda: attempt.done(found={**self._size(item), **found()})):
                attempt.tell(found={"out_of_memory": True, **self._size(item)})
                thrift.free()
        attempt.tell(seconds=attempt.seconds)
        return Done(attempt.row)

    def measure(self, name: str) -> dict[str, Any]:
        """Counted first, which also warms up; then tried, for its memory and to know how long a step takes; then
        timed."""
        self.began = perf_counter() if self.began is None else self.began
        rung, steps = self.rungs[name], self.options["at_steps"]
        expected = told(rung, self.per_step)
        if self._clock(name).too_long(expected):
            return {"left_out": expected}
        tried, device = min(TRIED, steps), self.edits.backbone.device
        scaled = growing(self.edits.method, rung.mode)
        counts = self._counted(rung, tried)
        keep_what_is_freed(False)
        settle(device)
        with Meter(device) as first:
            edit = self._edit(rung, tried)
        keep_what_is_freed(True)
        short = whole(edit.seconds, steps / tried, scaled)
        self.per_step[rung] = sum(short.get(stage, 0.0) for stage in BY_STEPS) / steps
        measured = self._clock(name).measured(steps, self.per_step[rung])
        clock, processor = perf_counter(), process_time()
        with Meter(device) as second:
            edit = self._edit(rung, measured)
        share = (process_time() - processor) / (perf_counter() - clock)
        stages = whole(edit.seconds, steps / measured, scaled)
        if measured == tried:  # as short once more: the better of the two
            stages = {stage: min(seconds, short.get(stage, seconds)) for stage, seconds in stages.items()}
        gpu = [each.whole.gpu_gb for each in (first, second) if each.whole.gpu_gb is not None]
        return {
            "steps": measured,
            "stages": stages,
            "counts": {
                stage: whole_counts(own, steps / tried if stage in scaled else 1)
                for stage, own in counts.items()
            },
            "rss_gb": first.whole.rss_gb,
            "gpu_gb": max(gpu, default=None),
            "seconds": sum(stages.values()),
            "cpu_seconds": sum(stages.values()) * share,
        }

    def _counted(self, rung: Rung, steps: int) -> dict[str, dict[str, int]]:
        """How often work is launched is looked at in the shortest clips alone: that takes its time, and is the same for
        all."""
        device = self.edits.backbone.device
        meters: list[Staged] = [Counted(device)]
        if device.type == "cuda" and rung.frames == self._shortest():
            meters.append(Launched(device))
        found: dict[str, dict[str, int]] = {}
        for meter in meters:
            with meter:
                self._edit(rung, steps)
            for stage, own in meter.counts.items():
                found[stage] = {**found.get(stage, {}), **own}
        return found

    def _size(self, item: Item) -> dict[str, int]:
        rung = self.rungs.get(item.id)
        return {} if rung is None else {"height": rung.height, "width": rung.width}

    def _clock(self, name: str) -> Clock:
        assert self.began is not None
        left = self.options["seconds"] - (perf_counter() - self.began)
        ahead = [*self.rungs.values()][[*self.rungs].index(name) :]
        return Clock(left, ahead, self._shortest())

    def _shortest(self) -> int:
        return min(each.frames for each in self.rungs.values())

    def _edit(self, rung: Rung, steps: int) -> Edit:
        edits = replace(self.edits, height=rung.height, width=rung.width)
        method, clip = in_mode(edits.method, rung.mode, steps), edits.clip(rung.frames)
        wait(edits.backbone.device)
        return method(edits.backbone, clip, edits.task, seeds.generator(0, edits.task.id))

    def _about(self) -> dict[str, Any]:
        backbone = self.edits.backbone
        return {
            **about(self.edits),
            "load_seconds": self.load_seconds,
            "random": is_random(backbone.identity),
            "parameters": backbone.describe()["parameters"],
        }


def growing(method: Any, mode: str) -> tuple[str, ...]:
    """The stages that take longer with more steps. Some methods invert in a number of steps of their own."""
    fixed = mode != "plain" and getattr(method, "inversion_steps", None) is not None
    return tuple(stage for stage in BY_STEPS if not (fixed and stage == "inversion"))


def whole(seconds: Mapping[str, float], factor: float, stages: Sequence[str] = BY_STEPS) -> dict[str, float]:
    """Of an edit of all steps, from one of some."""
    return {name: each * (factor if name in stages else 1) for name, each in seconds.items()}


def whole_counts(counts: Mapping[str, int], factor: float) -> dict[str, float]:
    return {key: each * factor for key, each in counts.items()}
