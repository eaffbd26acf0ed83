"""A recipe of tuning: what learns, how long, and where what it learnt is kept. `on` is the way in."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from freemask.backbones.fresh import KINDS
from freemask.diffusion.guidance import given_to
from freemask.diffusion.inversions import key_of
from freemask.diffusion.noise_paths import one_of
from freemask.errors import UserError
from freemask.kept import Kept
from freemask.settings import Effect, declared
from freemask.tuning import made
from freemask.tuning.lock import alone
from freemask.tuning.steps import Draws, Learner, ends
from freemask.types import Backbone, Clip, EditTask, Progress, Tuning, silent

VARIANTS = ("paper", "official")
BEHIND = ("mid_block", "up_blocks")  # what learns under the released checkpointing
SAVE_EVERY = 60  # seconds


@dataclass(frozen=True)
class Learnt:
    """What a tuning came to: `facts` are for a row, `about` stands in the file beside the `weights`."""

    facts: Mapping[str, float | int | bool] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NoTuning:
    """The weights stay as they were loaded."""

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None: ...

    @contextmanager
    def on(
        self, backbone: Backbone, clip: Clip, task: EditTask, progress: Progress = silent
    ) -> Iterator[Learnt]:
        yield Learnt()


@dataclass(frozen=True)
class Recipe:
    """`weights` are patterns of the names of what learns; `rank` > 0: by low-rank additions. `temporal`: layers along
    frames that an image network is given first. `variant` official: as Tune-A-Video's released code under its own
    gradient checkpointing, where the blocks on the way down never learn, and the layers' last bias is random at first.

    `path` names weights that were tuned elsewhere ({clip} in it stands for the name of the clip); nothing is tuned
    then. `kept` is a folder in which tuned weights are kept for every method, prompt and run; None keeps none.
    """

    steps: int = 500
    rate: float | int = 3e-5
    weights: Sequence[str] = ("*.attn1.to_q.weight", "*.attn2.to_q.weight")
    rank: int = 0
    temporal: str = "none"
    convolution_rank: int = 160
    variant: str = "paper"
    decay: float | int = 1e-2
    most: float | int = 1.0
    seed: int = 33
    path: Annotated[str | None, Effect.FILES] = None
    allow_pickle: Annotated[bool, Effect.NONE] = False
    checkpointing: Annotated[bool, Effect.NONE] = False
    kept: Annotated[str | None, Effect.NONE] = None
    kept_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        one_of("variant of tuning", self.variant, VARIANTS)
        one_of("temporal layers", self.temporal, KINDS)
        if self.variant == "official" and self.temporal != "attention":
            raise UserError(
                "No released code tunes like this.",
                came=f"tuning.variant=official with temporal={self.temporal}",
                expected="tuning=tune_a_video, or variant=paper",
            )
        for name, least in (("steps", 1), ("rank", 0), ("convolution_rank", 1), ("decay", 0)):
            if not getattr(self, name) >= least:
                raise UserError(
                    f"tuning.{name} is too small.", came=getattr(self, name), expected=f"at least {least}"
                )
        for name in ("rate", "most"):
            if not getattr(self, name) > 0:
                raise UserError(f"tuning.{name} is too small.", came=getattr(self, name), expected="above 0")
        Kept(self.kept, self.kept_gb, "tuning")

    def check(self, task: EditTask, clip: Callable[[], Clip]) -> None:
        """Before any model is there; the clip is read only where it is needed."""
        if self.temporal != "none" and (frames := len(clip().frames)) < 2:
            raise UserError(
                "A clip of one frame has nothing that layers along frames could learn.",
                came=f"{task.clip}: {frames} frame",
                expected="2 frames or more",
                todo="tuning=queries tunes what an image model has, or tuning=none",
            )

    @contextmanager
    def on(
        self, backbone: Backbone, clip: Clip, task: EditTask, progress: Progress = silent
    ) -> Iterator[Learnt]:
        """The backbone is tuned on the clip and its own prompt while this is entered."""
        self.check(task, lambda: clip)
        if self.path is not None:
            place = self.path.replace("{clip}", task.clip)
            with elsewhere(place, backbone, self.weights, self.allow_pickle) as learnt:
                yield learnt
            return
        more = backbone.fresh(
            self.temporal, seed=self.seed, bias=self.variant == "official", rank=self.convolution_rank
        )
        options = {"rank": self.rank, "more": more, "checkpointing": self.checkpointing}
        with backbone.tuned(self.learning, **options) as tuning:
            learnt = self._tuned(backbone, tuning, more, clip, task, progress)
            tuning.settle()
            yield learnt

    @property
    def learning(self) -> Sequence[str]:
        """Patterns of the names of what learns."""
        if self.variant == "paper":
            return list(self.weights)
        return [f"{block}.{pattern}" for block in BEHIND for pattern in self.weights]

    def _tuned(
        self,
        backbone: Backbone,
        tuning: Tuning,
        more: Mapping[str, Tensor],
        clip: Clip,
        task: EditTask,
        progress: Progress,
    ) -> Learnt:
        """What was kept of the same tuning, or a new one."""
        given = given_to(backbone, clip, backbone.embed(task.source))
        store = Kept(self.kept, self.kept_gb, "tuning")
        # The frames, not their latents: those move in the last digits where memory is saved.
        key = key_of(backbone, clip.frames, given, [], ["tuning", backbone.origin, self.counted()])
        with alone(store.path(key), progress):
            known = store.load(key)
            if known is not None:
                tuning.load({name: known[name] for name in tuning.weights})
                about = store.facts(key)
                return Learnt(_facts(about, kept=True), known, about)
            draws = Draws(backbone, backbone.encode(clip.frames), backbone.spread(clip.frames), self.seed)
            learner = Learner(backbone, tuning.weights, given, self.rate, self.decay, self.most)
            about = made.facts_for(backbone, task.source, self.counted())
            about |= self._learn(learner, draws, store, f"{key}-half", progress)
            weights = {**more, **tuning.state()}
            if store.save(key, weights, about):
                store.drop(f"{key}-half")
            return Learnt(_facts(about, kept=False), weights, about)

    def _learn(
        self, learner: Learner, draws: Draws, store: Kept, half: str, progress: Progress
    ) -> dict[str, str]:
        """All steps, from where an earlier try ended; what is learnt is saved on the way."""
        seconds, begun = 0.0, store.load(half)
        if begun is not None:
            learner.go_on(begun)
            with suppress(ValueError):
                seconds = float(store.facts(half).get("seconds", "0"))
        started = saved = time.perf_counter()
        progress("tuning", len(learner.errors), self.steps)

        def save() -> None:
            spent = seconds + time.perf_counter() - started
            store.save(half, learner.tensors(), {"seconds": f"{spent:.1f}"})

        try:
            while len(learner.errors) < self.steps:
                learner.step(draws.at(len(learner.errors)))
                progress("tuning", len(learner.errors), self.steps)
                if time.perf_counter() - saved > SAVE_EVERY and len(learner.errors) < self.steps:
                    save()
                    saved = time.perf_counter()
        except KeyboardInterrupt:
            save()
            raise
        first, last = ends(learner.errors)
        seconds += time.perf_counter() - started
        said = {"steps": self.steps, "error_first": f"{first:.6g}", "error_last": f"{last:.6g}"}
        said |= {"seconds": f"{seconds:.1f}", "errors": [float(f"{each:.4g}") for each in learner.errors]}
        return {name: str(value) for name, value in said.items()}

    def counted(self) -> dict[str, Any]:
        """The settings that change what is learnt."""
        return {name: value for name, value in asdict(self).items() if name not in declared(type(self))}


@contextmanager
def elsewhere(
    place: str | Path, backbone: Any, learning: Sequence[str], allow_pickle: bool = False
) -> Iterator[Learnt]:
    """The backbone with weights that were tuned before, by us or by another code. `learning` are patterns of the names
    that such a tuning may change."""
    found = made.open_made(place, backbone, learning, allow_pickle=allow_pickle)
    low = sorted(name.removesuffix(".down") for name in found.own if name.endswith(".down"))
    rank = len(found.own[f"{low[0]}.down"]) if low else 0
    with backbone.tuned(low or [*found.own, *found.more], rank=rank, more=found.more) as tuning:
        tuning.load(found.own if low else {**found.own, **found.more})
        tuning.settle()
        yield Learnt(_facts(found.facts, kept=True), {**found.own, **found.more}, found.facts)


def _facts(about: Mapping[str, str], kept: bool) -> dict[str, float | int | bool]:
    """For a row: `tuning_seconds` are those of the tuning itself, whichever row paid for it."""
    found: dict[str, float | int | bool] = {"tuning_kept": kept}
    numbers = {"steps": int, "error_first": float, "error_last": float, "seconds": float}
    return found | {f"tuning_{name}": kind(about[name]) for name, kind in numbers.items() if name in about}
