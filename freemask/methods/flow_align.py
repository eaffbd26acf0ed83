"""FlowAlign (Kim et al., 2025): FlowEdit without empty texts. Guidance starts from the clip's own prompt, and a term
pulls the edit's clean latent towards the clip's."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from freemask.diffusion.guidance import cfg, strength
from freemask.methods.common import at_least, share, whole
from freemask.methods.renoised import Held, Masked, follows_velocities
from freemask.types import Backbone, Clip, Edit, EditTask, Progress, silent


@dataclass(frozen=True)
class FlowAlign(Masked):
    """`reach` is the share of the steps that act, from the clean end. `pull` draws to the clip at each step, in the
    mask and outside it alike (zeta). Without a number, `guidance` is the model's own times `emphasis`."""

    steps: int = 50
    guidance: float | int | None = None
    emphasis: float | int = 3.9
    reach: float | int = 0.7
    pull: float | int = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("steps", self.steps, 1)
        for name in ("guidance", "emphasis", "pull"):
            at_least(name, getattr(self, name), 0)
        share("reach", self.reach, "the steps", above=True)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, clip: Clip, task: EditTask, rng: Generator, progress: Progress = silent
    ) -> Edit:
        follows_velocities(backbone)
        held = Held.of(backbone, clip, task, self.steps, rng)
        self.masks_for(held, progress)
        acting = range(min(self.steps - 1, int(self.steps * (1 - self.reach) + 1e-6)), self.steps)
        with held.watch.stage("sampling"):
            z = held.clean
            progress("sampling", 0, len(acting))
            for done, i in enumerate(acting):
                z = self.step(held, z, i)
                progress("sampling", done + 1, len(acting))
        return self.finished(held, z, {"network_calls": len(acting)})

    def step(self, held: Held, z: Float[Tensor, "f c h w"], i: int) -> Float[Tensor, "f c h w"]:
        now, to, path = held.levels[i], held.levels[i + 1], held.path
        source = path.noised(held.clean, held.draw(), now)
        target = z + source - held.clean
        texts = held.subject.given
        given = {"source": texts["source"], "own": texts["source"], "cond": texts["cond"]}
        stack = torch.stack([source, target, target])
        of_source, own, new = held.backbone.predict(stack, now, given, taps=held.taps())
        of_target = cfg(own, new, strength(self.guidance, held.backbone, self.emphasis))
        moved = path.step(z, of_target - of_source, now=now, call=now, to=to)
        clean = path.clean(source, of_source, now=now, call=now)
        back = self.pull * (clean - path.clean(target, of_target, now=now, call=now))
        inside = held.inside(z, i)
        return moved + back if inside is None else z + inside * (moved - z) + back
