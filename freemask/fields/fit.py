"""The fit itself: Adam, step after step, kept on the way and at the end for every method, prompt and run."""

import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from freemask.errors import UserError
from freemask.fields.networks import Weights
from freemask.kept import Kept
from freemask.tuning.lock import alone
from freemask.types import Progress

SAVE_EVERY = 60  # seconds
WHAT = "fit"
VERSION = 1  # of how fields are fitted: with another one, kept fits are made again


@runtime_checkable
class Work(Protocol):
    """What is fitted. At the steps of `restarts` Adam forgets what it knew of the gradients."""

    @property
    def steps(self) -> int: ...

    @property
    def restarts(self) -> tuple[int, ...]: ...

    @property
    def name(self) -> str:
        """The same for what gives the same fit."""
        ...

    def begin(self) -> dict[str, Tensor]: ...

    def rate(self, step: int) -> float: ...

    def share(self, name: str) -> float:
        """Of the rate, for the weight of this name."""
        ...

    def loss(self, weights: Weights, step: int) -> Tensor: ...


class Fitted(NamedTuple):
    """`seconds` are those of the fit itself, whichever edit paid for it; `error` is the mean of its last steps.
    `device`: where it was made; None: it was kept before that was written down."""

    weights: dict[str, Tensor]
    seconds: float
    error: float
    kept: bool
    device: str | None = None

    def facts(self) -> dict[str, str | float | int | bool | None]:
        known = {"fit_kept": self.kept, "fit_seconds": round(self.seconds, 1), "fit_error": self.error}
        return known if self.device is None else {**known, "fit_device": self.device}


@dataclass
class Learner:
    """`whole`: not in the middle of a change of its weights, after which others could not go on from here."""

    work: Work
    weights: dict[str, Tensor]
    errors: list[float] = field(default_factory=list)
    whole: bool = True

    def __post_init__(self) -> None:
        self.adam = self._adam()

    def _adam(self) -> torch.optim.Adam:
        groups: dict[float, list[Tensor]] = {}
        for name, each in self.weights.items():
            groups.setdefault(self.work.share(name), []).append(each.requires_grad_())
        alike = [{"params": found, "share": share} for share, found in groups.items()]
        return torch.optim.Adam(alike, lr=self.work.rate(0))

    @torch.enable_grad()
    def step(self) -> None:
        at = len(self.errors)
        if at in self.work.restarts:
            self.adam = self._adam()
        for group in self.adam.param_groups:
            group["lr"] = self.work.rate(at) * group["share"]
        self.adam.zero_grad()
        loss = self.work.loss(self.weights, at)
        loss.backward()
        error = float(loss.detach())
        grown = [each.grad for each in self.weights.values() if each.grad is not None]
        length = torch.nn.utils.get_total_norm(grown)
        if not bool(torch.isfinite(loss)) or not bool(torch.isfinite(length)):
            raise UserError(
                f"Step {at + 1} of the fit met numbers that are not finite.",
                came=f"a loss of {error:g}",
                expected="a fit that converges",
                todo="a smaller method.fit.rate, and look whether the clip and its flow hold numbers",
            )
        self.whole = False
        self.adam.step()
        self.errors.append(error)
        self.whole = True

    def tensors(self) -> dict[str, Tensor]:
        """All that going on from here needs."""
        found = {f"weight {name}": each.detach() for name, each in self.weights.items()}
        for name, each in self.weights.items():
            found |= {f"{key} {name}": value for key, value in self.adam.state[each].items()}
        return found | {"errors": torch.tensor(self.errors, dtype=torch.float64)}

    @torch.no_grad()
    def go_on(self, tensors: Mapping[str, Tensor]) -> None:
        found = dict(tensors)
        self.errors = found.pop("errors").tolist()
        for key, value in found.items():
            kind, _, name = key.partition(" ")
            weight: Any = self.weights[name]
            if kind == "weight":
                weight.copy_(value)
            else:  # Adam's own; it counts its steps on the host
                self.adam.state[weight][kind] = value.clone() if kind == "step" else value.to(weight)


def fitted(work: Work, store: Kept, device: torch.device | str, progress: Progress) -> Fitted:
    """What was kept of the same fit, or a new one."""
    key = hashlib.sha256(work.name.encode()).hexdigest()[:32]
    with alone(store.path(key), progress, WHAT):
        known, about = store.load(key), store.facts(key)
        if known is not None and {"seconds", "error"} <= set(about):  # another process may make room just now
            weights = {name: each.to(device) for name, each in known.items()}
            numbers = float(about["seconds"]), float(about["error"])
            return Fitted(weights, *numbers, kept=True, device=about.get("device"))
        learner = Learner(work, {name: each.to(device) for name, each in work.begin().items()})
        seconds, where = _learn(learner, store, f"{key}-half", progress)
        last = learner.errors[-max(1, len(learner.errors) // 20) :]
        weights = {name: each.detach() for name, each in learner.weights.items()}
        made = Fitted(weights, seconds, float(f"{sum(last) / max(1, len(last)):.4g}"), False, where)
        about = {"seconds": f"{seconds:.1f}", "error": repr(made.error), "work": work.name, "device": where}
        if store.save(key, weights, about):
            store.drop(f"{key}-half")
        return made


def _learn(learner: Learner, store: Kept, half: str, progress: Progress) -> tuple[float, str]:
    """All steps, from where an earlier try ended; the seconds and the devices of all tries."""
    before, begun, total = 0.0, store.load(half), learner.work.steps
    where = device_of(learner.weights)
    if begun is not None:
        learner.go_on(begun)
        about = store.facts(half)
        where = together(about.get("device"), where)
        with suppress(ValueError):
            before = float(about.get("seconds", "0"))
    started = saved = time.perf_counter()

    def spent() -> float:
        return before + time.perf_counter() - started

    def save() -> None:
        store.save(half, learner.tensors(), {"seconds": f"{spent():.1f}", "device": where})

    progress(WHAT, len(learner.errors), total)
    try:
        while len(learner.errors) < total:
            learner.step()
            progress(WHAT, len(learner.errors), total)
            if time.perf_counter() - saved > SAVE_EVERY and len(learner.errors) < total:
                save()
                saved = time.perf_counter()
    except BaseException as ended:  # Ctrl-C, or the page's Stop, wherever in a step it came
        if not isinstance(ended, Exception) and learner.whole:
            save()
        raise
    return spent(), where


def device_of(weights: Weights) -> str:
    """As people call it."""
    device = next(iter(weights.values())).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def together(*devices: str | None) -> str:
    """Each once, in the order in which they were at work."""
    every = [name for each in devices if each for name in each.split(", ")]
    return ", ".join(dict.fromkeys(every))


def name_of(kind: str, clip: str, settings: Mapping[str, Any]) -> str:
    """Of a fit, by what it is fitted to and how."""
    return f"{kind} {VERSION} {clip} {json.dumps(dict(settings), sort_keys=True)}"
