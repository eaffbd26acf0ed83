"""Motion as differences between frames (Yatim et al., 2024): a latent is moved until features, averaged over space,
change from frame to frame as those of a clip do."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from freemask.diffusion.inversions import Inversion
from freemask.types import Backbone, Given, Stream, Taps, Time, Where

SINGLE = 32  # bits
# Of gradients in half precision, at first; halved where that is too much. Powers of two change no number.
LOUD = 2.0**16


@dataclass
class Motion:
    """How features, averaged over space, change from frame to frame in the clip, and latents that follow it. `names`
    are the modules, `given` has the streams source and cond, `losses` are those before each update."""

    backbone: Backbone
    inversion: Inversion
    given: Mapping[Stream, Given]
    names: Sequence[str]
    own_pairs: bool = False
    losses: list[float] = field(default_factory=list)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if torch.finfo(self.backbone.dtype).bits < SINGLE:
            self.scale = LOUD

    def followed(self, x: Float[Tensor, "f c h w"], t: Time, rate: float, updates: int) -> Tensor:
        """The latent after so many updates, at time t. One graph at a time is kept."""
        with torch.no_grad():
            aim = self.means(self.inversion.at(t).to(x), t, "source")
        moved = x.detach().clone().requires_grad_(True)
        adam = torch.optim.Adam([moved], lr=rate)  # its moments are new at every time
        for _ in range(updates):
            moved.grad = self._slope(moved, t, aim)
            adam.step()
        return moved.detach()

    def means(self, x: Float[Tensor, "f c h w"], t: Time, stream: Stream) -> list[Float[Tensor, "f d"]]:
        """Of each module. The call ends with the last of them: what comes after it is neither run nor kept."""
        seen: dict[str, Tensor] = {}

        def note(where: Where, maps: Tensor) -> Tensor:
            mean = maps[0].to(torch.promote_types(maps.dtype, torch.float32)).mean(dim=(-2, -1))
            if (
                where.site.name not in seen
            ):  # otherwise its block is run again for the way back (checkpointing)
                seen[where.site.name] = mean
                if len(seen) == len(self.names):
                    raise _Enough
            return maps

        with suppress(_Enough):
            taps = Taps(features=dict.fromkeys(self.names, note))
            self.backbone.predict(x[None], t, {stream: self.given[stream]}, taps=taps)
        return [seen[name] for name in self.names]

    def facts(self) -> dict[str, int | float]:
        if not self.losses:
            return {"features": len(self.names)}
        first, last = (round(max(0.0, self.losses[place]), 4) for place in (0, -1))  # not -0
        return {"features": len(self.names), "motion_loss_first": first, "motion_loss_last": last}

    def _slope(self, x: Tensor, t: Time, aim: Sequence[Tensor]) -> Tensor:
        """Of the loss. What half precision cannot hold is asked for again at a smaller scale."""
        while True:
            with torch.enable_grad():
                losses = [
                    otherwise(*each, self.own_pairs)
                    for each in zip(self.means(x, t, "cond"), aim, strict=True)
                ]
                loss = torch.stack(losses).sum()
                (gradient,) = torch.autograd.grad(loss * self.scale, x)
            held = bool(torch.isfinite(gradient).all()) or not bool(torch.isfinite(loss))
            if held or self.scale == 1:
                self.losses.append(loss.item())
                return gradient / self.scale
            self.scale /= 2


class _Enough(Exception):
    """All features are known."""


def otherwise(means: Float[Tensor, "f d"], aim: Float[Tensor, "f d"], own_pairs: bool = False) -> Tensor:
    """How differently two clips change between frames: 1 - the cosine of their differences, the mean over pairs.

    `own_pairs`: each frame beside itself, too, whose difference is nothing, and counts as 1."""
    changes = (each[None] - each[:, None] for each in (means, aim))
    alike = cosine_similarity(*changes, dim=-1)
    counted = alike if own_pairs else alike[~torch.eye(len(alike), dtype=torch.bool, device=alike.device)]
    return 1 - counted.mean()
