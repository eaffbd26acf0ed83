"""The work of `freemask run`: one task from clip to row - edit, check, measure, keep."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from evaluation.suite import Suite
from experiments.config.build import build
from experiments.jobs import beyond, seeds, thrift
from experiments.jobs.attempt import measured
from experiments.jobs.job import Done, Job, Lane, kept
from experiments.jobs.outcome import Outcome, is_mask, keep_files
from experiments.jobs.truth import Truth, informed
from experiments.runs import environment
from experiments.runs.plan import Item, Plan
from experiments.runs.rows import Row
from freemask.backbones.network import Network
from freemask.backbones.speed import Speed
from freemask.data import regions
from freemask.diffusion.guidance import strength
from freemask.errors import UserError
from freemask.tuning.recipe import NoTuning, Recipe
from freemask.types import Backbone, Clip, DataSource, Edit, EditTask, Method, Progress, silent

# What every model has that is used here or by a method.
DOOR = sorted({*Backbone.__annotations__, *(name for name in vars(Backbone) if not name.startswith("_"))})


@dataclass
class Editor:
    """A loaded model, a method and a suite of metrics: what turns a task into an edit and its row."""

    backbone: Backbone
    method: Method
    suite: Suite
    seed: int
    tuning: NoTuning | Recipe = NoTuning()
    embedded: str = ""  # the name of a model that ships with the project
    began: Callable[[Outcome], None] | None = None  # is told once what is known before the edit

    def edit(self, row: Row, task: EditTask, data: DataSource, progress: Progress = silent) -> Outcome:
        """`row` is the head of the task's row. Never raises for a task's own fault: look at the row's status."""
        outcome = Outcome(row, task=task)
        outcome.tell(**made_on(self.backbone), retried=None)
        if "guidance" in (known := vars(self.method)):
            emphasis = known.get("emphasis", 1)
            outcome.tell(guidance=strength(known["guidance"], self.backbone, emphasis))
        with measured(outcome, self.backbone.device):
            if not outcome.work(lambda: self._work(self.method, outcome, data, progress)):
                message = outcome.row.get("message", "")
                outcome.begin_again()
                with thrift.thrifty(self.backbone, self.method) as (method, changed):
                    outcome.work(lambda: self._work(method, outcome, data, progress), thrift.TODO)
                outcome.tell(retried={"message": message, "changed": changed})
        return outcome

    def _work(self, method: Method, outcome: Outcome, data: DataSource, progress: Progress) -> None:
        task = outcome.task
        with outcome.timed("load"):
            truth = Truth.of(data, task)
            outcome.clip, outcome.oracle = truth.clip, truth.oracle
            outcome.tell(frames=list(truth.clip.frames.shape))
            outcome.warnings += beyond.remarks(self.backbone, self.embedded, task, data)
            outcome.warnings += beyond.meaningless(self.backbone.identity)
            outcome.warnings += regions.remarks(task, truth.clip)
            outcome.warnings += beyond.repeated(self.backbone.compression, len(truth.clip.frames))
            self._tell(method, outcome)
        with ExitStack() as until:
            facts = self._tuned(until, outcome, truth.clip, progress)
            with outcome.timed("edit"):
                rng = seeds.generator(self.seed, task.id)
                edit = informed(method, data, task)(self.backbone, truth.clip, task, rng, progress)
        # `edit` is what the method did not name.
        rest = outcome.seconds["edit"] - sum(edit.seconds.values())
        outcome.seconds |= {"edit": max(0.0, rest), **edit.seconds}
        outcome.edit = edit
        outcome.warnings += edit.warnings
        _refuse_broken(edit)
        with outcome.timed("metrics"):
            progress("metrics", 0, 1)
            frames = edit.frames.detach().float().cpu()
            found = self.suite(truth.case(task, frames, outcome.masks().get("mask")))
        outcome.done(facts={**facts, **edit.facts}, **found.row())

    def _tuned(self, until: ExitStack, outcome: Outcome, clip: Clip, progress: Progress) -> dict[str, Any]:
        """The model is another one until then."""
        if isinstance(self.tuning, NoTuning):
            return {}
        with outcome.timed("tuning"):
            learnt = until.enter_context(self.tuning.on(self.backbone, clip, outcome.task, progress))
        return {**learnt.facts, "tuned_weights": self.backbone.identity}

    def _tell(self, method: Method, outcome: Outcome) -> None:
        foretell = getattr(method, "foretell", None)
        if self.began is None or outcome.clip is None:
            return
        if foretell is not None:
            outcome.tell(facts=dict(foretell(self.backbone, outcome.clip, outcome.task)))
        self.began(outcome)


class EditJob(Job):
    def load(self, lanes: Sequence[Lane], plan: Plan, device: str | None, progress: Progress) -> "Editing":
        progress("loading the model", 0, 1)
        config = lanes[0].variant.config
        first = make_editor(config, device)
        editors = [first] + [
            replace(
                first,
                method=build(config["method"], "method"),
                tuning=build(config["tuning"], "tuning"),
                seed=config["seed"],
            )
            for config in (lane.variant.config for lane in lanes[1:])
        ]
        data = data_for(first.backbone, config)
        return Editing(lanes, editors, data, kept(plan.items, lanes[0].launch.keep))


JOB = EditJob()


@dataclass
class Editing:
    lanes: Sequence[Lane]
    editors: Sequence[Editor]
    data: DataSource
    keep: set[str]

    def do(self, place: int, item: Item, progress: Progress) -> Done:
        lane, editor = self.lanes[place], self.editors[place]
        outcome = editor.edit(lane.head(item), EditTask.of(item.data), self.data, progress)
        with outcome.timed("files"):
            files = keep_files(lane.store, outcome) if item.id in self.keep else {}
        return Done(outcome.row, files, outcome.columns)


def make_editor(
    config: Mapping[str, Any], device: str | None = None, backbone: Backbone | None = None
) -> Editor:
    """Small parts first, so that a mistake shows before the model is loaded, unless one is there already."""
    method = build(config["method"], "method")
    tuning = build(config["tuning"], "tuning")
    suite = Suite(build(config["metric"], "metric"))
    loaded = model_of(config, device) if backbone is None else backbone
    shipped = beyond.shipped(config["model"])
    return Editor(loaded, method, suite, config["seed"], tuning, shipped)


def model_of(config: Mapping[str, Any], device: str | None = None) -> Any:
    """`device` overrides where the configuration puts it."""
    made = build(config["model"] if device is None else {**config["model"], "device": device}, "model")
    lacking = [name for name in DOOR if not hasattr(made, name)]
    if lacking:
        raise UserError(
            "This model is no backbone.",
            came=f"{type(made).__name__} without {', '.join(lacking)}",
            expected="all that Backbone in freemask.types has (docs/door.md)",
        )
    speed = build(config["speed"], "speed") if "speed" in config else Speed()
    if speed != Speed():
        if not isinstance(made, Network):
            raise UserError(
                "This model cannot be given another speed.",
                came=type(made).__name__,
                expected="a network of diffusers (freemask.backbones.network)",
                todo="leave speed= out",
            )
        made.given_speed(speed)
    return made


def data_for(backbone: Backbone, config: Mapping[str, Any]) -> DataSource:
    data = build(config["data"], "data")
    fit(data, backbone)
    return data


def fit(data: DataSource, backbone: Any) -> None:
    """Clips that are read from files come in sizes that the model can take."""
    asked = getattr(data, "geometry", None)
    if asked is not None:
        vars(data)["geometry"] = asked.fitted(multiple=backbone.multiple, native=backbone.native)


def made_on(backbone: Backbone) -> dict[str, Any]:
    """What a row says of the model."""
    return {
        "model": backbone.identity,
        "device": environment.device_name(str(backbone.device)),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "speed": str(getattr(backbone, "speed", "plain")),
    }


def _refuse_broken(edit: Edit) -> None:
    frames = edit.frames
    for name, each in edit.extras.items():
        grid = (len(frames), *frames.shape[-2:])
        if is_mask(name) and (tuple(each.shape) != grid or not bool(((each >= 0) & (each <= 1)).all())):
            raise ValueError(f"'{name}' is no mask of {grid} in 0..1, but {tuple(each.shape)}")
    if not bool(frames.isfinite().all()):
        raise UserError(
            "the edit holds values that are not numbers", came="NaN or infinity", todo="model.dtype=float32"
        )
    if float(frames.max()) < 1 / 255:
        raise UserError(
            "the edit is black", came="every pixel is 0", todo="model.dtype=float32, or less guidance"
        )
