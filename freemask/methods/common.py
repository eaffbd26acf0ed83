"""What methods share: seconds and memory per stage, and refusals of numbers that make no sense."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor

from freemask import memory
from freemask.errors import UserError
from freemask.fusion.settings import Fusion
from freemask.masks.plan import Checks, MaskStrategy
from freemask.masks.several import local_part
from freemask.masks.strategies.none import NoMask
from freemask.masks.words import located
from freemask.types import Backbone, Clip, EditTask, NoisePath, Site, Time

Noise = Callable[[], Tensor]
MOST_STEPS, SHOWN = 500, 8  # of inversions that are proposed: their steps, and how many of them
SAME = 1e-2  # of a time: the first one of some grids is cut off by as much


class Stopwatch:
    """Seconds per named stage; waits for the device, so that a stage is charged for its own work. Peak memory goes to
    whoever measures it meanwhile (`freemask.memory`)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = self._now()
        with memory.stage(name):
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - began

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def at_least(name: str, came: float | int | None, least: float | int) -> None:
    """None is no number: what it stands for is said where it may be."""
    if came is not None and not came >= least:
        raise UserError(f"'{name}' is too small.", came=came, expected=f"at least {least}")


def whole(name: str, came: object, least: int | None = None) -> None:
    if not isinstance(came, int) or isinstance(came, bool):
        raise UserError(f"'{name}' must be a whole number.", came=came, expected="such as 50")
    if least is not None:
        at_least(name, came, least)


def share(name: str, came: float | int | None, of: str = "", *, above: bool = False) -> None:
    """`of` what, such as the steps; `above`: none at all is no share."""
    if came is not None and not (0 < came <= 1 if above else 0 <= came <= 1):
        expected = "above 0, at most 1" if above else "0 to 1"
        raise UserError(f"'{name}' is a share{of and f' of {of}'}.", came=came, expected=expected)


def of_kind(name: str, came: object, kind: type) -> None:
    """A piece of configuration that was never built would otherwise mean: none at all."""
    if not isinstance(came, kind):
        raise UserError(
            f"'{name}' was never made",
            came=came,
            expected=f"a {kind.__name__}, as {name}=NAME makes it",
            todo=f"see `freemask list {name}`",
        )


def check_masks(fusion: Fusion, mask: MaskStrategy, task: EditTask, clip: Callable[[], Clip]) -> None:
    """Refuses an edit whose masks cannot be made, as far as that can be seen without a model."""
    local = local_part(task, fusion.masked_for)
    if fusion.uses_masks(task.kind) and local is not None:
        check_mask(mask, local, clip)


def check_mask(mask: MaskStrategy, task: EditTask, clip: Callable[[], Clip]) -> None:
    if isinstance(mask, NoMask):
        return
    for each in task.each:
        if task.edits and not each.words:
            continue
        if hasattr(mask, "phrase"):
            located(each)
        if isinstance(mask, Checks):
            mask.check(each, clip())


def only_images(method: str, sites: Mapping[str, Site]) -> None:
    other = sorted({site.role for site in sites.values()} - {"self", "cross"})
    if other:
        raise UserError(
            f"{method} makes an image model's frames steady; this model has layers that see several frames.",
            came=f"attention of the kind {', '.join(other)}",
            expected="an image model, such as model=embedded_image or model=sd15, without temporal layers",
        )


def of_layers(name: str, strides: Sequence[int], sites: Mapping[str, Site]) -> None:
    known = sorted({site.stride for site in sites.values() if site.role == "self"})
    if wrong := [each for each in strides if each not in known]:
        raise UserError(
            "No layer has this stride.",
            came=f"{name}={list(strides)}: {wrong[0]}",
            expected=", ".join(map(str, known)),
        )


def controlled(there: bool, said: object = None) -> None:
    """`said`: what the configuration says of ControlNets."""
    if not there:
        raise UserError(
            "This model has no ControlNet, which is to hold the edit.",
            came=f"model.control={'null' if said is None else said}",
            expected="an image model with a ControlNet",
            todo="model=embedded_image model.control=embedded_edges, model=sd15 model.control=PATH, or"
            " model=random_image model.control=1",
        )


def path_warnings(backbone: Backbone) -> tuple[str, ...]:
    return tuple(getattr(backbone.noise_path, "warnings", ()))


def finer(steps: int, inversion_steps: int | None) -> None:
    if inversion_steps is not None:
        whole("inversion_steps", inversion_steps, steps)


def paths(
    backbone: Backbone, steps: int, inversion_steps: int | None
) -> tuple[Sequence[Time], Sequence[Time]]:
    """The times of sampling and those of the inversion, which may be more but must be there where sampling looks.

    Times that are fractions may differ in their last digits: sampling takes the inversion's.
    """
    down = backbone.noise_path.times(steps)
    if inversion_steps is None or inversion_steps == steps:
        return down, down
    up = backbone.noise_path.times(inversion_steps)
    found = [min(up, key=lambda other, t=t: abs(other - t)) for t in down]
    missing = [t for t, other in zip(down, found, strict=True) if abs(other - t) > SAME]
    if missing:
        fitting = _fitting(backbone.noise_path, down)
        raise UserError(
            "The inversion passes by some of the times of sampling.",
            came=f"inversion_steps={inversion_steps}, steps={steps}: not at {missing[0]:g}",
            expected=f"for {steps} steps of sampling on this path, inversion_steps={' or '.join(map(str, fitting))}",
            todo="choose one of these, or other steps; the euler grid of flow matching never nests",
        )
    return found, up


def _fitting(path: NoisePath, down: Sequence[Time]) -> list[int]:
    """Some of the numbers of steps of which the times hold these."""
    found = []
    for steps in range(len(down), MOST_STEPS + 1, len(down)):
        try:
            times = set(path.times(steps))
        except UserError:  # more than the path has
            break
        found += [steps] if times.issuperset(down) else []
    return found[:SHOWN]


def drawing(rng: Generator, like: Tensor) -> Noise:
    """Drawn on the CPU in single precision: the same noise on every device and in every dtype."""
    return lambda: torch.randn(like.shape, generator=rng, dtype=torch.float32).to(like)
