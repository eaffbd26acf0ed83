"""UniEdit's step: the clip, the edit and, where motion is edited, a motion reference run side by side, and attention of
the edit is borrowed from the others.

Rows of guidance are treated alike: the unconditional row of the edit borrows from the unconditional one of its lender,
where that has one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.layout import in_rows
from freemask.attention.math import attend
from freemask.attention.rewire import by_themselves
from freemask.diffusion.guidance import Conditions, at, cfg
from freemask.diffusion.inversions import Inversion
from freemask.diffusion.noise_paths import CLEAN
from freemask.fusion import ops
from freemask.masks.plan import MaskPlan, Wanted
from freemask.types import QKV, Backbone, Progress, Stream, Taps, Time, Where, silent

SOURCE, MOTION = "source", "motion"
AWAY = {"cond": "uncond", SOURCE: "source_uncond", MOTION: "motion_uncond"}


class Rules(NamedTuple):
    """In which steps what is borrowed. `structure`: queries and keys of self-attention are the clip's (of the motion
    reference, too, where that is `bound`). `background`: outside the mask its values are. `content`: in these `layers`
    its values are, and its keys where `whole`. `temporal`: queries and keys along frames are the motion reference's."""

    structure: range
    background: range
    content: range
    layers: Sequence[str]
    temporal: range
    whole: bool = False
    bound: bool = False

    def borrows_clip(self, i: int) -> bool:
        return any(i in steps for steps in (self.structure, self.background, self.content))


@dataclass(frozen=True)
class Branches:
    """An edit in progress; `times` ascend. `given` has what the streams source and cond are given, motion where there
    is such a branch, and what guidance leads each away from by its name in AWAY. `lender` has the clip's latents.
    `masks` are of the clip's object, `targets` of the one that the target shows."""

    backbone: Backbone
    given: Mapping[Stream, Conditions]
    lender: Inversion
    times: Sequence[Time]
    guidance: float | int
    rules: Rules
    masks: MaskPlan | None = None
    targets: MaskPlan | None = None

    @torch.no_grad()
    def all(self, x: Float[Tensor, "f c h w"], progress: Progress = silent) -> Float[Tensor, "f c h w"]:
        """All steps, of the edit and of the motion reference beside it, from the same noise."""
        path, steps = self.backbone.noise_path, len(self.times)
        moving = {branch: x for branch in ("cond", MOTION) if branch in self.given}
        progress("sampling", 0, steps)
        for i, t in enumerate(reversed(self.times)):
            below = self.times[-2 - i] if i + 1 < steps else CLEAN
            made = self.predict(moving, i, t)
            moving = {
                branch: path.step(moving[branch], made[branch], now=t, call=t, to=below) for branch in moving
            }
            progress("sampling", i + 1, steps)
        return moving["cond"]

    def predict(self, moving: Mapping[Stream, Tensor], i: int, t: Time) -> dict[Stream, Tensor]:
        """Guided predictions of the branches that move. The clip's runs only while it lends something."""
        branches = [SOURCE] * self.rules.borrows_clip(i) + [
            name for name in (MOTION, "cond") if name in moving
        ]
        streams = [
            stream
            for branch in branches
            for stream in (AWAY[branch], branch)
            if stream in self.given and (self.guidance != 1 or stream == branch)
        ]
        owners = {stream: branch for branch in branches for stream in (AWAY[branch], branch)}
        latents = {SOURCE: self.lender.at(t), **moving}
        seen = torch.stack([latents[owners[stream]] for stream in streams])
        given = {stream: at(self.given[stream], t) for stream in streams}
        out = dict(zip(streams, self.backbone.predict(seen, t, given, taps=self.taps(i)), strict=True))
        made = {}
        for branch in moving:
            away = out.get(AWAY[branch])
            made[branch] = out[branch] if away is None else cfg(away, out[branch], self.guidance)
        return made

    def taps(self, i: int) -> Taps:
        def attention(where: Where, qkv: QKV) -> Tensor:
            if where.site.role == "temporal":
                return attend(self.along_frames(where, qkv, i))
            return attend(self.within(where, qkv, i) if where.site.role == "self" else qkv)

        return Taps(attention=attention, look=by_themselves)

    def along_frames(self, where: Where, qkv: QKV, i: int) -> QKV:
        if i not in self.rules.temporal or MOTION not in where.streams:
            return qkv
        lent = qkv
        for row, lender in lenders(where.streams, "cond", MOTION).items():
            lent = put(lent, row, q=qkv.q[lender], k=qkv.k[lender])
        return lent

    def within(self, where: Where, qkv: QKV, i: int) -> QKV:
        """Self-attention of a frame: the rules one after the other, each on what the one before has left."""
        rules, streams = self.rules, where.streams
        edits = lenders(streams, "cond", SOURCE)
        if i in rules.structure:
            bound = lenders(streams, MOTION, SOURCE) if rules.bound else {}
            for row, lender in {**edits, **bound}.items():
                qkv = put(qkv, row, q=qkv.q[lender], k=qkv.k[lender])
        keeps_background = i in rules.background and self.masks is not None
        keeps_content = i in rules.content and where.site.name in rules.layers
        if not (keeps_background or keeps_content):
            return qkv
        inside = qkv.v.new_zeros(()) if self.masks is None else self.mask(self.masks, where, qkv)
        for row, lender in edits.items():
            qkv = put(qkv, row, v=ops.blend(inside, qkv.v[row], qkv.v[lender]))
            if keeps_content and rules.whole:
                qkv = put(qkv, row, k=ops.blend(inside, qkv.k[row], qkv.k[lender]))
        if keeps_content and self.targets is not None:
            there = self.mask(self.targets, where, qkv)
            for row, lender in lenders(streams, "cond", MOTION).items():
                qkv = put(qkv, row, q=ops.blend(there, qkv.q[lender], qkv.q[row]))
        return qkv

    def mask(self, masks: MaskPlan, where: Where, qkv: QKV) -> Float[Tensor, "b 1 n 1"]:
        """On the layer's own grid, one value for each query or key of a frame."""
        return in_rows(masks(Wanted("self", where.t, where.grid)).to(qkv.v), where)[0]


def lenders(streams: Sequence[Stream], branch: Stream, lender: Stream) -> dict[int, int]:
    """Rows of a branch, and those from which they borrow; none while either does not run."""
    if branch not in streams or lender not in streams:
        return {}
    away = AWAY[lender] if AWAY[lender] in streams else lender
    pairs = {branch: lender, AWAY[branch]: away}
    return {streams.index(row): streams.index(of) for row, of in pairs.items() if row in streams}


def put(qkv: QKV, row: int, **parts: Tensor) -> QKV:
    """With other queries, keys or values in one row of the stack."""
    changed = {}
    for name, value in parts.items():
        changed[name] = getattr(qkv, name).clone()
        changed[name][row] = value
    return replace(qkv, **changed)
