"""The work of `freemask bench`: one cell of its table after the other, measured on one edit of a moving pattern.

Cells are measured one at a time in each process; several processes at once disturb each other's times."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from experiments.config.build import build
from experiments.cost.machine import abilities, device_of, machine
from experiments.cost.memory import keep_what_is_freed
from experiments.cost.plan import Cell, Measure
from experiments.cost.work import Edits, layers, official_maps, reach_of
from experiments.jobs.attempt import Attempt
from experiments.jobs.edit import made_on
from experiments.jobs.job import Done, Lane
from experiments.runs import environment
from experiments.runs.plan import Item, Plan, Variant
from experiments.runs.rows import brief, now
from freemask.data.geometry import Geometry
from freemask.errors import UserError
from freemask.fusion.settings import Fusion
from freemask.methods.invert_fuse import InvertFuse
from freemask.types import EditTask, Progress

SETTING = "setting"  # the item that tells what is measured, and on what


def items_of(cells: Sequence[Cell]) -> list[Item]:
    return [Item(SETTING), *(Item(cell.name, asdict(cell)) for cell in cells)]


def fusing(method: Any) -> InvertFuse:
    if not isinstance(method, InvertFuse):
        came, todo = type(method).__name__, "method=freemask or method=fatezero"
        raise UserError("this method fuses nothing", came=came, expected="one that does", todo=todo)
    if not isinstance(method.fusion, Fusion):
        raise UserError(
            "without fusion there is nothing to measure", came="fusion=none", todo="fusion=official"
        )
    return method


class CostJob:
    brief = staticmethod(brief)

    def group(self, variant: Variant) -> str:
        return ""

    def load(self, lanes: Sequence[Lane], plan: Plan, device: str | None, progress: Progress) -> "Measuring":
        config = lanes[0].variant.config
        keep_what_is_freed(False)  # from the start, for what the allocator kept before it would use again
        progress("loading the model", 0, 1)
        model = config["model"] if device is None else {**config["model"], "device": device}
        backbone: Any = build(model, "model")
        size = config["options"]["size"]
        short, sides = (size, (None, None)) if isinstance(size, int | None) else (None, size)
        asked = Geometry(short_side=short, height=sides[0], width=sides[1])
        fit = asked.fitted(multiple=backbone.multiple, native=backbone.native).fit(*backbone.native)
        method = fusing(build(config["method"], "method"))
        edits = Edits(backbone, method, EditTask(**config["task"]), fit.height, fit.width)
        return Measuring(lanes[0], edits, Measure(edits), config["options"])


JOB = CostJob()


@dataclass(frozen=True)
class Measuring:
    lane: Lane
    edits: Edits
    measure: Measure
    options: Mapping[str, Any]

    def do(self, place: int, item: Item, progress: Progress) -> Done:
        attempt = Attempt(self.lane.head(item))
        attempt.tell(**made_on(self.edits.backbone))
        progress(item.id, 0, 1)
        with attempt.timed(item.id.split(" ")[0]):
            attempt.work(lambda: self._work(item, attempt))
        attempt.tell(seconds=attempt.seconds, finished=now())
        return Done(attempt.row)

    def _work(self, item: Item, attempt: Attempt) -> None:
        if item.id == SETTING:
            attempt.done(found={**self._about(), "official": self._official()})
            return
        cell = Cell(**item.data)
        keep_what_is_freed(cell.what != "memory")
        attempt.done(found=self.measure(cell))

    def _about(self) -> dict[str, Any]:
        backbone, method = self.edits.backbone, self.edits.method
        assert isinstance(method.fusion, Fusion)
        return {
            **machine(),
            "device": device_of(backbone.device),
            "fusion": {"variant": method.fusion.variant, **method.fusion.parts},
            "masks": type(method.mask).__name__ if method.fusion.masks(self.edits.task.kind) else "none",
            "guidance": method.guidance,
            "dirty": environment.commit()[1],
            "dtype": str(backbone.dtype).removeprefix("torch."),
            "gpu": backbone.device.type == "cuda",
            "size": [self.edits.height, self.edits.width],
            "latents": list(backbone.encode(self.edits.clip(1).frames).shape[1:]),
            **abilities(),
        }

    def _official(self) -> dict[str, Any]:
        """Computed, not measured: what keeping every attention map takes, as the official code does."""
        found, steps = layers(self.edits), self.options["at_steps"]
        size = self.edits.backbone.dtype.itemsize
        sizes = {}
        for frames in sorted({self.options["at_frames"], *self.options["frames"]}):
            reach = reach_of(self.edits.backbone, frames)
            sizes[str(frames)] = official_maps(found, reach, frames=frames, steps=steps, bytes_each=size)
        return {"computed": True, "steps": steps, "bytes_each": size, "mb_by_frames": sizes}
