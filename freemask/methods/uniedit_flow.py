"""UniEdit-Flow (Jiao et al., 2025): an inversion that loses little (Uni-Inv), then steps that lead both prompts from
the same latent and follow the target where their velocities differ."""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.diffusion.inversions import Inversions
from freemask.errors import UserError
from freemask.methods.common import at_least, whole
from freemask.methods.renoised import Held, Masked, follows_velocities
from freemask.settings import Effect
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, silent


@dataclass(frozen=True)
class UniEditFlow(Masked):
    """`reach` is the share of the steps that are inverted and sampled, from the clean end (alpha); `omega` how strongly
    the difference of the two velocities leads. No guidance by an empty text.

    The paper's own soft mask comes from that difference. `mask`: outside it, the source's velocity alone.
    """

    steps: int = 15
    reach: float | int = 0.6
    omega: float | int = 5.0
    inversions: Annotated[str | None, Effect.NONE] = None
    inversions_gb: Annotated[float | int, Effect.NONE] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("steps", self.steps, 1)
        at_least("omega", self.omega, 0)
        if not 0 < self.reach <= 1 or not self.acting:
            raise UserError(
                "'reach' is a share of the steps, of which one at least must act.",
                came=f"reach={self.reach}, steps={self.steps}",
                expected="above 0, at most 1",
            )

    @property
    def acting(self) -> range:
        return range(self.steps - int(self.reach * self.steps + 1e-6), self.steps)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        follows_velocities(backbone)
        held = Held.of(backbone, clip, task, self.steps, rng)
        self.masks_for(held, progress)
        times, acting = held.subject.times[: len(self.acting)], self.acting
        with held.watch.stage("inversion"):
            store, empty = Inversions(self.inversions, self.inversions_gb), held.subject.given["uncond"]
            inversion = store.invert(backbone, held.clean, empty, times, solver="uni", progress=progress)
        x = inversion.latents[-1]
        with held.watch.stage("sampling"):
            progress("sampling", 0, len(acting))
            for done, i in enumerate(acting):
                x = self.step(held, x, i)
                progress("sampling", done + 1, len(acting))
        return self.finished(held, x, {"inversion_passes": inversion.passes, "network_calls": len(acting)})

    def step(self, held: Held, x: Float[Tensor, "f c h w"], i: int) -> Float[Tensor, "f c h w"]:
        now, to, path = held.levels[i], held.levels[i + 1], held.path
        given = {name: held.subject.given[name] for name in ("source", "cond")}
        own, new = held.backbone.predict(torch.stack([x, x]), now, given, taps=held.taps())
        lead, soft = new - own, differing(new - own)
        velocity, inside = (self.omega * (1 + soft) + soft) * lead, held.inside(x, i)
        velocity = own + (velocity if inside is None else inside * velocity)
        return path.step(x, velocity, now=now, call=now, to=to)


def differing(lead: Float[Tensor, "f c h w"]) -> Float[Tensor, "f 1 h w"]:
    """Where two velocities differ, by the mean over channels: 0 at the clip's least and 1 at its most."""
    mean = lead.mean(dim=1, keepdim=True)
    return (mean - mean.min()) / (mean.max() - mean.min() + 1e-7)
