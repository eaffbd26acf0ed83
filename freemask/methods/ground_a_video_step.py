"""What Ground-A-Video does in a step: the clip back outside the boxes, then a guided prediction of all frames."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.math import attend
from freemask.attention.rewire import looking
from freemask.diffusion.guidance import Conditions, at, cfg
from freemask.fusion import ops
from freemask.methods.ground_a_video_field import opened
from freemask.types import QKV, Backbone, Given, Taps, Time, Where


@dataclass(frozen=True)
class Grounded:
    """An edit in progress. `cond` and `uncond` (None: no guidance) are what the streams are given, `gates` how far
    gated layers are open (None: there are none). `free` is 1 where the edit may change latents (None: everywhere),
    `outside` what stands elsewhere before the step at each time."""

    backbone: Backbone
    cond: Given
    uncond: Conditions | None
    guidance: float | int
    times: Sequence[Time]
    gates: Sequence[float | int] | None
    free: Float[Tensor, "f 1 h w"] | None
    outside: Callable[[Time], Tensor]

    def before(self, x: Float[Tensor, "f c h w"], i: int, t: Time) -> Float[Tensor, "f c h w"] | None:
        return None if self.free is None else ops.blend(self.free, x, self.outside(t))

    def predict(self, x: Float[Tensor, "f c h w"], t: Time) -> Float[Tensor, "f c h w"]:
        streams = {} if self.uncond is None else {"uncond": at(self.uncond, t)}
        streams = {**streams, "cond": self.cond}
        if self.gates is not None:
            step = len(self.times) - 1 - list(self.times).index(t)
            share = torch.tensor(opened(self.gates, step, len(self.times)))
            streams = {name: each.plus(gates=share) for name, each in streams.items()}
        taps = Taps(attention=self.modulated) if self.of_each_frame(streams) else Taps()
        made = self.backbone.predict(x.expand(len(streams), *x.shape), t, streams, taps=taps)
        return cfg(made[0], made[1], self.guidance) if len(made) > 1 else made[0]

    @staticmethod
    def of_each_frame(streams: Mapping[str, Given]) -> bool:
        """Whether frames have empty texts of their own: otherwise looking at those of all is looking at one."""
        return "uncond" in streams and streams["uncond"].parts["text"].ndim > 2

    def modulated(self, where: Where, qkv: QKV) -> Tensor:
        """Without the prompt, a frame reads the texts of all frames side by side."""
        if where.site.role != "cross":
            return attend(qkv)
        place = where.streams.index("uncond")
        assert place == 0
        return torch.cat([attend(looking(qkv.stream(0), ("all",))), attend(qkv.streams(slice(1, None)))])
