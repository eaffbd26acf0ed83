"""The tap of an edit: the source's attention enters the conditional stream, layer by layer, as policies say."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from freemask.attention.math import attend
from freemask.fusion import ops
from freemask.fusion.policies import Call, Policy
from freemask.fusion.settings import Policies
from freemask.masks.plan import MaskPlan, Wanted
from freemask.types import QKV, AttentionTap, Where

# Where the source's queries and keys come from when its stream does not run beside the edit.
Kept = Callable[[Where], QKV]


@dataclass
class Fuser:
    """`plan` None means that there is no mask: every policy uses the source everywhere."""

    policies: Policies
    plan: MaskPlan | None
    kept: Kept | None = None

    def policy(self, where: Where, i: int) -> Policy | None:
        found = self.policies.attention.get(where.site.kind)
        return found if found is not None and found.active(where, i) else None

    def tap(self, i: int) -> AttentionTap:
        """Attention of sampling step i. The streams beside the conditional one are untouched."""

        def tap(where: Where, qkv: QKV) -> Tensor:
            policy = self.policy(where, i)
            if policy is None:
                return attend(qkv)
            place = where.streams.index("cond")
            own = ops.stream(qkv, place)
            if "source" in where.streams:
                source = ops.stream(qkv, where.streams.index("source"))
            else:
                assert self.kept is not None
                source = self.kept(where)
            mask = self._mask(policy, where, own.q)
            fused = policy(Call(where, i, own, source, mask, lend=self.policies.values == "source"))
            parts = [slice(0, place), slice(place + 1, len(where.streams))]
            before, after = (
                [attend(_streams(qkv, part))] if part.start < part.stop else [] for part in parts
            )
            return torch.cat([*before, fused, *after])

        return tap

    def _mask(self, policy: Policy, where: Where, like: Tensor) -> Tensor | None:
        if self.plan is None or not policy.masked:
            return None
        kind = where.site.kind
        if self.policies.zero_temporal and kind in ("temporal", "cross"):
            return None  # eq. 9 with delta = 1: m = 0, the source everywhere
        wanted = Wanted(
            "temporal" if kind == "temporal" else "cross" if kind == "cross" else "self", where.t, where.grid
        )
        return ops.token_mask(self.plan(wanted).to(like.device, like.dtype), where)


def _streams(qkv: QKV, part: slice) -> QKV:
    """Some streams of a stack, as views: keys that frames share stay shared."""
    return QKV(q=qkv.q[part], k=qkv.k[part], v=qkv.v[part], scale=qkv.scale)
