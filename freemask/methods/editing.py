"""An edit in progress, as FreeMask's paper tells it; equation numbers are the paper's.

Before: the clip was inverted under its own prompt, and the heat of the edited words was kept at every text layer and
time. Eqs. 2 to 6 compare such heat with annotated objects, once for each model (`freemask calibrate`,
`freemask.masks.mmc`): the codebook of the best layer and time. Eq. 7 asks whether the object stays (`Subject.of`),
eq. 8 takes the mask of the best layer, at the best time or at each (`freemask.masks.strategies.mmc`).

Here: every sampling step runs the source beside the edit, and in every attention call the two are fused.
FateZero and prompt-to-prompt differ in their masks, windows and word maps, not in what happens here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.features import Features
from freemask.attention.layout import in_rows
from freemask.attention.math import attend
from freemask.attention.record import Keep, Recording, recorder
from freemask.diffusion.guidance import Conditions, at, cfg
from freemask.diffusion.inversions import Inversion
from freemask.diffusion.noise_paths import CLEAN
from freemask.fusion import joint, ops
from freemask.fusion.policies import RowMask
from freemask.fusion.settings import Part, Policies
from freemask.masks.plan import MaskPlan, Subject, Wanted
from freemask.methods.common import Stopwatch
from freemask.types import QKV, AttentionTap, Backbone, Given, Grid, Stream, Taps, Time, Where


@dataclass
class Editing:
    """Steps go from the noisy end; `predict` and `after` are what `sample` calls.

    `lender` is the pass whose attention is fused in: the inversion itself, or a reconstruction of the clip; blended
    latents are the inversion's. `masks` None: the source everywhere. `uncond` is what guidance starts from.
    """

    backbone: Backbone
    subject: Subject
    guidance: float | int
    uncond: Conditions
    inversion: Inversion
    lender: Inversion
    policies: Policies
    masks: MaskPlan | None
    watch: Stopwatch
    keeps: Sequence[Keep] = ()
    target: Recording = field(default_factory=Recording)
    cache: Features | None = None

    def __enter__(self) -> "Editing":
        return self

    def __exit__(self, *_: object) -> None:
        if self.cache is not None and not self.cache.stays:
            self.cache.close()

    def predict(self, x: Float[Tensor, "f c h w"], t: Time) -> Float[Tensor, "f c h w"]:
        """Guided prediction; the source runs beside it in steps in which its attention is wanted."""
        i = self.step_at(t)
        given: dict[Stream, Given] = {}
        if self.cache is None and self.policies.awake(i):
            given["source"] = self.subject.given["source"]
        if self.guidance != 1:
            given["uncond"] = at(self.uncond, t)
        given["cond"] = self.subject.given["cond"]
        seen = [self.lender.input_at(t).to(x) if stream == "source" else x for stream in given]
        tap = self.fusing(i) if self.policies.awake(i) else None
        if self.keeps:
            tap = recorder(self.keeps, self.target, then=tap)
        out = self.backbone.predict(torch.stack(seen), t, given, taps=Taps(attention=tap))
        by_stream = dict(zip(given, out, strict=True))
        if "uncond" not in by_stream:
            return by_stream["cond"]
        return cfg(by_stream["uncond"], by_stream["cond"], self.guidance)

    def fusing(self, i: int) -> AttentionTap:
        """Attention of sampling step i: fused for the conditional stream, as it is for the others."""

        def tap(where: Where, qkv: QKV) -> Tensor:
            parts = self.parts_of(where, i)
            if not parts:
                return attend(qkv)
            place = where.streams.index("cond")
            own, source = qkv.stream(place), self._source(where, qkv)
            if not self.policies.lends_values:
                source = replace(source, v=own.v)  # maps are fused, the values are the edit's
            # eq. 10 for temporal attention (ops.mixed), eq. 11 for text attention (ops.mapped_words, mixed by
            # the mask with the edit's own), and self-attention row by row (ops.borrowed)
            acting = {part: (self.policies.attention[part], self._mask(part, where, own.q)) for part in parts}
            if where.site.role == "joint":
                fused = joint.fused(own, source, where, acting, i)
            else:
                ((policy, mask),) = acting.values()
                fused = policy(own, source, mask, i)
            before, after = qkv.streams(slice(0, place)), qkv.streams(slice(place + 1, None))
            others = [attend(each) if len(each.q) else fused[:0] for each in (before, after)]
            return torch.cat([others[0], fused, others[1]])

        return tap

    def parts_of(self, where: Where, i: int) -> list[Part]:
        """Which parts of the fusion act in this layer at step i. Layers of all video tokens are both self and temporal
        attention: they serve the former while it acts, then the latter. Joint ones are text attention as well."""
        acting: list[Part] = [
            part
            for part, policy in self.policies.attention.items()
            if policy.awake(i) and policy.serves(where.site, where.grid)
        ]
        return [part for part in acting if part != "temporal" or "self" not in acting]

    def _source(self, where: Where, qkv: QKV) -> QKV:
        """The source's queries and keys: of its stream, or kept from the inversion."""
        if self.cache is None:
            return qkv.stream(where.streams.index("source"))
        times = list(self.subject.times)
        below = times[: times.index(where.t)]
        following = below[-1] if below and self.policies.awake(self.step_at(below[-1])) else None
        return self.cache.get(where, following)

    def _mask(self, part: Part, where: Where, like: Tensor) -> RowMask:
        """Eq. 9: the mask on the layer's own grid, or 0 everywhere in parts where it vanishes with delta."""
        if self.masks is None or not self.policies.attention[part].masked or part in self.policies.vanish:
            return None  # without a mask, as with one that is 0: the source everywhere
        mask = self.masks(Wanted(part, where.t, where.grid))
        return in_rows(mask.to(like.device, like.dtype), where)

    def after(self, x: Float[Tensor, "f c h w"], i: int, t: Time) -> Float[Tensor, "f c h w"] | None:
        """Latent blending: outside the mask, the clip's own latent."""
        blend = self.policies.latent
        if blend is None or i not in blend.window:
            return None
        levels = [CLEAN, *self.subject.times]
        level = t if blend.late else levels[levels.index(t) - 1]
        own = self.inversion.at(level).to(x)
        if not blend.masked:
            return own
        if self.masks is None:
            return None
        mask = self.masks(Wanted("latent", t, Grid(x.shape[0], *x.shape[-2:]))).to(x)
        return ops.blend(mask[:, None], x, own)

    def step_at(self, t: Time) -> int:
        return len(self.subject.times) - 1 - list(self.subject.times).index(t)
