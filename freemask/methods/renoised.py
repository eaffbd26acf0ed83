"""What methods without an inversion share: noise, masks from heat of the noisy clip, and what they say of an edit.

Most such methods follow the difference of two velocities, and a mask holds the clip by letting the difference act
inside alone. The heat that masks are made of comes from one call for each time that a strategy asks for, on the clip
with noise of that level.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.attention.record import GIB, Keep, Recording, recorder
from freemask.diffusion.flow import Flow
from freemask.diffusion.guidance import given_to
from freemask.diffusion.noise_paths import CLEAN
from freemask.errors import UserError
from freemask.fusion import ops
from freemask.masks.heat import Facts
from freemask.masks.plan import Keeps, MaskPlan, MaskStrategy, Subject, Wanted, remembered
from freemask.masks.several import keeps_of, plan_of
from freemask.masks.strategies.none import NoMask
from freemask.methods import shown
from freemask.methods.common import Noise, Stopwatch, drawing, path_warnings
from freemask.methods.composite import Free, composited
from freemask.methods.masked import MaskSettings
from freemask.types import NO_TAPS, Backbone, Clip, Edit, EditTask, Grid, Progress, Taps, Time, Where


@dataclass(frozen=True, kw_only=True)
class Masked(MaskSettings):
    """What such methods do with the settings of a mask."""

    def masks_for(self, held: "Held", progress: Progress) -> None:
        held.mask_by(self.acting_mask(held.subject.task), int(self.heat_gb * GIB), progress)

    def finished(self, held: "Held", latents: Tensor, facts: Facts) -> Edit:
        return composited(held.edit(latents, facts), held.subject.clip, self.composite, held.free)


def follows_velocities(backbone: Backbone) -> None:
    if not isinstance(backbone.noise_path, Flow):
        raise UserError(
            "This method follows velocities, which this model does not predict.",
            came=f"a model of the path {type(backbone.noise_path).__name__}",
            expected="a model of flow matching, such as model=embedded_dit or model=wan",
        )


@dataclass
class Held:
    """An edit in progress: its clip, its path from the noisy end down to CLEAN, and its masks (None: none). The noise
    of the heat is drawn `apart`, so that an edit with a mask has the noise of the one without."""

    backbone: Backbone
    subject: Subject
    clean: Float[Tensor, "f c h w"]
    draw: Noise
    apart: Noise
    watch: Stopwatch
    masks: MaskPlan | None = None
    keeps: Sequence[Keep] = ()
    target: Recording = field(default_factory=Recording)
    acted: set[int] = field(default_factory=set)
    heat_calls: int = 0  # of the network, beside those of the edit

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        clip: Clip,
        task: EditTask,
        steps: int,
        rng: Generator,
        *,
        negative: str = "",
    ) -> "Held":
        """The clip's latents and prompts. `negative` stands in for the empty text."""
        watch = Stopwatch(backbone.device)
        with watch.stage("encode"):
            clean = backbone.encode(clip.frames)
            subject = Subject.of(backbone, clip, task, backbone.noise_path.times(steps))
            if negative:
                away = given_to(backbone, clip, backbone.embed(negative), away=True)
                subject = replace(subject, given={**subject.given, "uncond": away})
        apart = torch.Generator().manual_seed(rng.initial_seed())
        return cls(backbone, subject, clean, drawing(rng, clean), drawing(apart, clean), watch)

    def mask_by(self, strategy: MaskStrategy, budget: int, progress: Progress) -> None:
        """Choose the masks; afterwards the edit records what they want of it."""
        if isinstance(strategy, NoMask):
            return
        keeps = keeps_of(strategy, self.subject)
        with self.watch.stage("heat"):
            source = self._heat(keeps, Recording(budget), progress)
        with self.watch.stage("masks"):
            self.target, self.keeps = Recording(budget), keeps.target
            self.masks = remembered(plan_of(strategy, self.subject, source, self.target))

    def _heat(self, keeps: Keeps, into: Recording, progress: Progress) -> Recording:
        backbone, subject = self.backbone, self.subject
        places = [(site, subject.grids[name]) for name, site in subject.sites.items()]

        def wanted(t: Time) -> bool:
            calls = [Where(site, t, grid, ("source",)) for site, grid in places]
            return any(keep.wants(where) for keep in keeps.source for where in calls)

        times, noise = [t for t in subject.times if wanted(t)], self.apart()
        taps = Taps(attention=recorder(keeps.source, into))
        for done, t in enumerate(times):
            progress("heat", done, len(times))
            noisy = backbone.noise_path.noised(self.clean, noise, t)
            backbone.predict(noisy[None], t, {"source": subject.given["source"]}, taps=taps)
        self.heat_calls = len(times)
        progress("heat", len(times), len(times))
        return into

    @property
    def path(self) -> Flow:
        path = self.backbone.noise_path
        assert isinstance(path, Flow)
        return path

    @property
    def levels(self) -> list[Time]:
        """From the noisy end; step i goes from the level at i to the next one."""
        return [*reversed(self.subject.times), CLEAN]

    def taps(self, first: bool = True) -> Taps:
        """What the masks want recorded of the edit, once for each step."""
        return Taps(attention=recorder(self.keeps, self.target)) if self.keeps and first else NO_TAPS

    def inside(self, x: Float[Tensor, "f c h w"], i: int) -> Float[Tensor, "f 1 h w"] | None:
        """Where step i may change the clip; None: everywhere. To be asked after the step's call."""
        if self.masks is None:
            return None
        self.acted.add(i)
        wanted = Wanted("latent", self.levels[i], Grid(x.shape[0], *x.shape[-2:]))
        return self.masks(wanted).to(x)[:, None]

    def put_back(self, noise: Float[Tensor, "f c h w"]) -> Callable[[Tensor, int], Tensor]:
        """Puts the clip back into what a step has made, outside the mask, with this noise."""

        def held(x: Tensor, i: int) -> Tensor:
            inside, level = self.inside(x, i), self.levels[i + 1]
            if inside is None:
                return x
            own = self.clean if level == CLEAN else self.backbone.noise_path.noised(self.clean, noise, level)
            return ops.blend(inside, x, own)

        return held

    def free(self) -> Free | None:
        """Which pixels may change in some step; None: all."""
        if self.masks is None:
            return None
        times = [self.levels[i] for i in sorted(self.acted)]
        return shown.ever(self.masks, "latent", times, self.subject.clip.frames)

    def edit(self, latents: Float[Tensor, "f c h w"], facts: Facts) -> Edit:
        with self.watch.stage("decoding"):
            made = self.backbone.decode(latents, len(self.subject.clip.frames))
        return self.told(made, facts)

    def told(self, made: Float[Tensor, "f 3 h w"], facts: Facts) -> Edit:
        """The edit of these frames, and what its mask was."""
        frames = self.subject.clip.frames
        if self.masks is None:
            told: Facts = {"mask_used": False, **facts}
            return Edit(made, {}, self.watch.seconds, path_warnings(self.backbone), told)
        steps = sorted(self.acted)
        acts = f"latents in steps {steps[0] + 1}-{steps[-1] + 1} of {len(self.subject.times)}"
        with self.watch.stage("masks"):
            times = [self.levels[i] for i in reversed(steps)]
            pictures = shown.of_masks(self.masks, "latent", times, frames)
        told = {**self.masks.facts, **shown.of_picture(pictures["mask"], acts), **facts}
        told["heat_calls"] = self.heat_calls
        warnings = (*path_warnings(self.backbone), *shown.warnings(pictures, acts))
        return Edit(made, pictures, self.watch.seconds, warnings, told)
