"""FlowEdit (Kulikov et al., 2024), and two methods that are settings of it: Wan-Edit (FiVE) and DFVEdit.

No inversion: from the clip itself, the latent moves along the difference of two velocities, that of the edit's prompt
and that of the clip's own, both at latents with the same noise.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.diffusion.guidance import cfg, strength
from freemask.diffusion.noise_paths import one_of
from freemask.diffusion.solvers import UniPc
from freemask.errors import UserError
from freemask.fusion import ops
from freemask.methods.common import at_least, whole
from freemask.methods.renoised import Held, Masked, follows_velocities
from freemask.types import Backbone, Clip, Edit, EditTask, Given, Progress, Stream, silent

COUPLINGS = ("shifted", "noised")
STEPS = ("euler", "unipc")


@dataclass(frozen=True)
class FlowEdit(Masked):
    """`reach` is the share of the steps that act, from the clean end (n_max); `skip` leaves out so many noisy steps
    instead, whatever their number. `ending` is the share of the last steps that sample under the target alone (n_min).
    `noises`: so many are drawn at each step, over which the difference is a mean (n_avg).

    `coupling`: the edit's noisy latent is as far from the noisy clip as its clean one from the clip (shifted), or has
    the same noise as the clip (noised, DFVEdit). `lag`: the clip is brought to the level of the step before, as the
    whole number that the network was told there (Wan-Edit's code). `solver`: of the steps before the ending, euler or
    unipc.

    Without a number, `guidance` and `source_guidance` are the model's own times `emphasis` and `source_emphasis`:
    the published numbers were for models with guidances of their own. `negative` is what guidance leads away from.
    """

    steps: int = 50
    guidance: float | int | None = None
    source_guidance: float | int | None = None
    emphasis: float | int = 1.0
    source_emphasis: float | int = 1.0
    negative: str = ""
    reach: float | int = 1.0
    skip: int | None = None
    ending: float | int = 0.0
    noises: int = 1
    coupling: str = "shifted"
    lag: bool = False
    solver: str = "euler"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("steps", 1), ("noises", 1), ("skip", 0)):
            if name != "skip" or self.skip is not None:
                whole(name, getattr(self, name), least)
        for name in ("guidance", "source_guidance", "emphasis", "source_emphasis"):
            at_least(name, getattr(self, name), 0)
        one_of("coupling", self.coupling, COUPLINGS)
        one_of("solver", self.solver, STEPS)
        if not (0 < self.reach <= 1 and 0 <= self.ending <= 1):
            raise UserError(
                "'reach' and 'ending' are shares of the steps.",
                came=f"reach={self.reach}, ending={self.ending}",
                expected="reach above 0 and at most 1, ending 0 to 1",
            )
        if self.negative and self.guidance == self.source_guidance == 1:
            raise UserError(
                "Without guidance nothing leads away from the negative text.",
                came=f"negative={self.negative!r}, guidance=1, source_guidance=1",
                expected="a stronger guidance, or no negative text",
            )
        if self.active.start >= self.steps:
            raise UserError(
                "No step would act.",
                came=f"steps={self.steps}, skip={self.skip}",
                expected="more steps than are skipped",
            )

    @property
    def active(self) -> range:
        """The steps in which source and target are compared, counted from the noisy end."""
        first = self.steps - max(1, round(self.reach * self.steps)) if self.skip is None else self.skip
        return range(first, self.steps - round(self.ending * self.steps))

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        follows_velocities(backbone)
        held = Held.of(backbone, clip, task, self.steps, rng, negative=self.negative)
        self.masks_for(held, progress)
        comparing = Comparing.of(self, held)
        with held.watch.stage("sampling"):
            edited = comparing.all(progress)
        facts = {"network_calls": comparing.calls, "source_guidance": comparing.source_guidance}
        return self.finished(held, edited, facts)


@dataclass
class Comparing:
    """One edit; `all` is the whole of it, `step` one of its steps from a given latent."""

    method: FlowEdit
    held: Held
    guidance: float | int
    source_guidance: float | int
    unipc: UniPc | None
    noise: Tensor | None = None  # of the ending, drawn once
    calls: int = 0

    @classmethod
    def of(cls, method: FlowEdit, held: Held) -> "Comparing":
        target = strength(method.guidance, held.backbone, method.emphasis)
        source = strength(method.source_guidance, held.backbone, method.source_emphasis)
        unipc = UniPc(held.path) if method.solver == "unipc" else None
        return cls(method, held, target, source, unipc)

    @torch.no_grad()
    def all(self, progress: Progress) -> Tensor:
        z, active = self.held.clean, self.method.active
        steps = range(active.start, self.method.steps)
        progress("sampling", 0, len(steps))
        if self.method.lag:  # the authors draw in steps that are skipped, too
            for _ in range(active.start):
                self.held.draw()
        for done, i in enumerate(steps):
            z = self.step(z, i)
            progress("sampling", done + 1, len(steps))
        return z

    def step(self, z: Float[Tensor, "f c h w"], i: int) -> Float[Tensor, "f c h w"]:
        """From the latent before step i to the one after; in the ending, latents are noisy."""
        if i not in self.method.active:
            return self._sampled(z, i)
        noises = [self.held.draw() for _ in range(self.method.noises)]
        differences = [self.difference(z, noise, i, first=k == 0) for k, noise in enumerate(noises)]
        difference = torch.stack(differences).mean(0) if len(noises) > 1 else differences[0]
        inside = self.held.inside(z, i)
        if inside is not None:
            difference = inside * difference
        levels, path = self.held.levels, self.held.path
        if self.unipc is not None:
            return self.unipc.step(z, difference, now=levels[i], to=levels[i + 1])
        return path.step(z, difference, now=levels[i], call=levels[i], to=levels[i + 1])

    def difference(self, z: Tensor, noise: Tensor, i: int, first: bool = True) -> Tensor:
        """Velocity under the target prompt less that under the source prompt."""
        held, levels, path = self.held, self.held.levels, self.held.path
        level = path.told(levels[max(0, i - 1)]) if self.method.lag else levels[i]
        source = path.noised(held.clean, noise, level)
        target = z + source - held.clean
        if self.method.coupling == "noised":
            target = path.noised(z, noise, level)
        own, new = self._velocities(source, target, i, first)
        return new - own

    def _velocities(self, source: Tensor, target: Tensor, i: int, first: bool) -> tuple[Tensor, Tensor]:
        """One call for both, each with its empty text where it is guided."""
        given = self.held.subject.given
        streams: dict[Stream, tuple[Tensor, Given]] = {}
        if self.source_guidance != 1:
            streams["source_uncond"] = source, given["uncond"]
        streams["source"] = source, given["source"]
        if self.guidance != 1:
            streams["uncond"] = target, given["uncond"]
        streams["cond"] = target, given["cond"]
        out = self._call(streams, i, first)
        own, new = out["source"], out["cond"]
        return (
            cfg(out["source_uncond"], own, self.source_guidance) if "source_uncond" in out else own,
            cfg(out["uncond"], new, self.guidance) if "uncond" in out else new,
        )

    def _call(self, streams: dict[Stream, tuple[Tensor, Given]], i: int, first: bool) -> dict[Stream, Tensor]:
        x = torch.stack([latent for latent, _ in streams.values()])
        given = {name: each for name, (_, each) in streams.items()}
        self.calls += 1
        out = self.held.backbone.predict(x, self.held.levels[i], given, taps=self.held.taps(first))
        return dict(zip(streams, out, strict=True))

    def _sampled(self, z: Tensor, i: int) -> Tensor:
        """A step of plain sampling. Its first latent is shifted once as in the steps before; outside the mask stays
        the clip with the same noise."""
        held, path, given = self.held, self.held.path, self.held.subject.given
        now, to = held.levels[i], held.levels[i + 1]
        if self.noise is None:
            self.noise = held.draw()
            z = z + path.noised(held.clean, self.noise, now) - held.clean
        streams: dict[Stream, tuple[Tensor, Given]] = (
            {} if self.guidance == 1 else {"uncond": (z, given["uncond"])}
        )
        out = self._call({**streams, "cond": (z, given["cond"])}, i, True)
        velocity = out["cond"] if "uncond" not in out else cfg(out["uncond"], out["cond"], self.guidance)
        z, inside = path.step(z, velocity, now=now, call=now, to=to), held.inside(z, i)
        return z if inside is None else ops.blend(inside, z, path.noised(held.clean, self.noise, to))


@dataclass(frozen=True)
class WanEdit(Masked):
    """FlowEdit on Wan, as FiVE's paper has it; `official`: as its code does. There the clip's noise is that of the step
    before, steps are UniPC's, nine steps are skipped whatever their number, and the target's guidance is 12 whatever
    is asked for."""

    variant: str = "paper"
    steps: int = 50
    guidance: float | int | None = None
    source_guidance: float | int | None = None
    emphasis: float | int = 2.4
    negative: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("variant", self.variant, ("paper", "official"))
        if self.variant == "official" and self.guidance not in (None, 12):
            raise UserError(
                "The released code guides to the target with 12, whatever is asked for.",
                came=f"guidance={self.guidance}",
                expected="null",
                todo="use variant=paper, which takes any",
            )
        if self.variant == "official":
            object.__setattr__(self, "guidance", 12)
        self.settings()

    def settings(self) -> FlowEdit:
        """The FlowEdit that it is."""
        shared = {each.name: getattr(self, each.name) for each in fields(Masked)}
        shared |= {"negative": self.negative, "emphasis": self.emphasis}
        if self.variant == "paper":
            return FlowEdit(self.steps, self.guidance, self.source_guidance, reach=0.82, **shared)
        source = 5.0 if self.source_guidance is None else self.source_guidance
        return FlowEdit(self.steps, self.guidance, source, skip=9, lag=True, solver="unipc", **shared)

    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        return self.settings()(backbone, clip, task, rng, progress)
