"""The work of `freemask bench`: one cell of its table after the other, measured on one edit of a moving pattern.

Cells are measured one at a time in each process; several processes at once disturb each other's times."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from torch import Tensor

from experiments.config.build import build
from experiments.cost.machine import PLAIN, device_of, keep_what_is_freed, limits, machine, peak_of
from experiments.cost.work import EDIT, FREE, OF_WHOLE_CLIPS, Edits, layers, official_maps, reach_of, timed
from experiments.jobs.attempt import Attempt
from experiments.jobs.edit import made_on, model_of
from experiments.jobs.job import Done, Job, Lane
from experiments.runs import environment
from experiments.runs.plan import Item, Plan
from freemask.data.geometry import Geometry
from freemask.diffusion.guidance import strength
from freemask.errors import UserError
from freemask.fusion.settings import ATTENTION, PARTS
from freemask.masks.strategies.none import NoMask
from freemask.methods.ddim import Ddim
from freemask.methods.invert_fuse import InvertFuse
from freemask.methods.masked import MaskSettings
from freemask.types import EditTask, Method, Progress

SETTING = "setting"  # the item that tells what is measured, and on what
WARM = 2  # steps of the edit that is run before one of its size is measured


@dataclass(frozen=True)
class Cell:
    """One measurement: `what` is kept (sizes, and the difference from recompute), time or memory."""

    what: str
    mode: str
    frames: int
    steps: int
    number: int = 0

    @property
    def name(self) -> str:
        more = f" #{self.number + 1}" if self.what == "time" else ""
        return f"{self.what} {self.mode} {self.frames} frames {self.steps} steps{more}"


def cells_of(options: Mapping[str, Any]) -> Iterator[Cell]:
    """Memory first, where nothing depends on the order; then sizes, recompute before what is compared with it; then
    times, the modes in turn."""
    at, modes = (options["at_frames"], options["at_steps"]), options["modes"]
    grid = product(options["frames"], options["grid_modes"], options["steps"])
    for frames, mode, steps in sorted({*grid, *((at[0], mode, at[1]) for mode in modes)}):
        yield Cell("memory", mode, frames, steps)
    for mode in sorted(modes, key=lambda each: each != "recompute"):
        if mode != FREE and EDIT not in modes:  # other edits, which are compared with nothing
            yield Cell("kept", mode, *at)
    for number in range(options["repeats"]):
        for mode in modes if number % 2 == 0 else modes[::-1]:
            yield Cell("time", mode, *at, number)


def with_something_to_measure(method: Any) -> Method:
    if isinstance(method, Ddim):
        wrong = "this method is what the others are measured against"
        raise UserError(wrong, came="method=ddim", todo="method=tokenflow, method=freemask, ...")
    if isinstance(method, InvertFuse) and all(method.fusion.mode(part) == "off" for part in ATTENTION):
        wrong = "without fusion there is nothing to measure"
        raise UserError(wrong, came="fusion=none", todo="fusion=official")
    return method


class CostJob(Job):
    def load(self, lanes: Sequence[Lane], plan: Plan, device: str | None, progress: Progress) -> "Measuring":
        config = lanes[0].variant.config
        keep_what_is_freed(False)  # from the start, for what the allocator kept before it would use again
        progress("loading the model", 0, 1)
        backbone = model_of(config, device)
        size = config["options"]["size"]
        short, sides = (size, (None, None)) if isinstance(size, int | None) else (None, size)
        asked = Geometry(short_side=short, height=sides[0], width=sides[1])
        fit = asked.fitted(multiple=backbone.multiple, native=backbone.native).fit(*backbone.native)
        method = with_something_to_measure(build(config["method"], "method"))
        edits = Edits(backbone, method, EditTask.of(config["task"]), fit.height, fit.width)
        return Measuring(lanes[0], edits, config["options"])


JOB = CostJob()


@dataclass
class Measuring:
    """Measures cells, all in one process. Before the first of a mode and size, a short edit makes what libraries keep
    from then on."""

    lane: Lane
    edits: Edits
    options: Mapping[str, Any]
    warm: set[tuple[str, int]] = field(default_factory=set)
    reference: Tensor | None = None

    def do(self, place: int, item: Item, progress: Progress) -> Done:
        attempt = Attempt(self.lane.head(item))
        attempt.tell(**made_on(self.edits.backbone))
        progress(item.id, 0, 1)
        found = self._about if item.id == SETTING else lambda: self.measure(Cell(**item.data))
        with attempt.timed(item.data.get("what", SETTING)):
            attempt.work(lambda: attempt.done(found=found()))
        attempt.tell(seconds=attempt.seconds)
        return Done(attempt.row)

    def measure(self, cell: Cell) -> dict[str, Any]:
        keep_what_is_freed(cell.what != "memory")
        size, device = (cell.mode, cell.frames), self.edits.backbone.device
        if cell.what == "kept":
            return self._kept(cell)
        if size not in self.warm:
            self.edits.work(*size, min(WARM, cell.steps))()
            self.warm.add(size)
        return (timed if cell.what == "time" else peak_of)(self.edits.work(*size, cell.steps), device)

    def _kept(self, cell: Cell) -> dict[str, Any]:
        if cell.mode != "recompute" and self.reference is None:
            self.reference, _ = self.edits.kept("recompute", cell.frames, cell.steps)
        frames, sizes = self.edits.kept(cell.mode, cell.frames, cell.steps)
        if self.reference is None:
            self.reference = frames
        return {"mb": sizes, "difference": float((frames - self.reference).abs().max())}

    def _about(self) -> dict[str, Any]:
        edits = self.edits
        return {
            **about(edits),
            "size": [edits.height, edits.width],
            "latents": list(edits.backbone.encode(edits.clip(1).frames).shape[1:]),
            "official": self._official(),
        }

    def _official(self) -> dict[str, Any] | None:
        """Computed, not measured: what keeping every attention map takes, as the official code does. That code is for
        layers that look at frames one by one, or at some frames: of other networks it says nothing."""
        roles = {site.role for site in self.edits.backbone.sites.values()}
        if roles & {*OF_WHOLE_CLIPS} or not isinstance(self.edits.method, InvertFuse):
            return None
        backbone, found, steps = self.edits.backbone, layers(self.edits), self.options["at_steps"]
        each, sizes = backbone.dtype.itemsize, {}
        for frames in sorted({self.options["at_frames"], *self.options["frames"]}):
            reach = reach_of(backbone, frames)
            sizes[str(frames)] = official_maps(found, reach, frames=frames, steps=steps, bytes_each=each)
        return {"computed": True, "steps": steps, "bytes_each": each, "mb_by_frames": sizes}


def about(edits: Edits) -> dict[str, Any]:
    """What was measured, and where."""
    backbone, method = edits.backbone, edits.method
    return {
        **machine(),
        "device": device_of(backbone.device),
        "fusion": fusion_of(method),
        "masks": masks_of(method, edits.task),
        "guidance": strength(getattr(method, "guidance", None), backbone),
        "dirty": environment.commit()[1],
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "speed": str(getattr(backbone, "speed", PLAIN)),
        "gpu": backbone.device.type == "cuda",
        "limits": limits(),
    }


def fusion_of(method: Any) -> dict[str, str]:
    """Empty of a method that fuses nothing."""
    if not isinstance(method, InvertFuse):
        return {}
    return {"variant": method.fusion.variant, **{part: method.fusion.mode(part) for part in PARTS}}


def masks_of(method: Any, task: EditTask) -> str:
    """What masks act in this edit."""
    if isinstance(method, InvertFuse):
        return type(method.mask).__name__ if method.fusion.uses_masks(task.kind) else "none"
    acting = method.acting_mask(task) if isinstance(method, MaskSettings) else NoMask()
    return "none" if isinstance(acting, NoMask) else type(acting).__name__
