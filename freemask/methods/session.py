"""One edit in progress: its inversion, its masks, and the prediction of a step with the source fused in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.features import Features
from freemask.attention.record import Keep, Recording, recorder
from freemask.diffusion.guidance import cfg
from freemask.diffusion.inversions import Inversion, Spy
from freemask.fusion import ops
from freemask.fusion.fuser import Fuser
from freemask.fusion.settings import Policies
from freemask.masks.plan import MaskPlan, Subject, Use, Wanted
from freemask.methods.common import Stopwatch
from freemask.types import NO_TAPS, QKV, Backbone, Grid, Stream, Taps, Text, Where

GB = 10**9
SHOWN = 12  # times of which the pictured mask is the mean


@dataclass
class Session:
    """Made by InvertFuse.begin. Steps go from the noisy end; `predict` and `after` are what `sample` calls.

    `lender` is the pass whose attention is fused in: the inversion itself, or a reconstruction of the clip.
    `plan` is what the strategy answered; the fuser's remembers the masks that it gave.
    """

    backbone: Backbone
    subject: Subject
    texts: Mapping[Stream, Text]
    guidance: float | int
    inversion: Inversion
    lender: Inversion
    fuser: Fuser | None
    watch: Stopwatch
    keeps: Sequence[Keep] = ()
    target: Recording = field(default_factory=Recording)
    plan: MaskPlan | None = None
    cache: Features | None = None

    def __post_init__(self) -> None:
        if self.fuser is not None and self.cache is not None:
            self.fuser.kept = self._kept

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        if self.cache is not None:
            self.cache.close()

    def predict(self, x: Float[Tensor, "f c h w"], t: int) -> Float[Tensor, "f c h w"]:
        """Guided prediction; the source branch runs beside it where a policy of this step needs it."""
        i, streams = self._step_at(t), self._streams(t)
        below = self.lender.input_at(t).to(x) if "source" in streams else x
        stack = torch.stack([below if stream == "source" else x for stream in streams])
        text = torch.stack([self.texts[stream].tokens for stream in streams])
        tap = None if self.fuser is None else self.fuser.tap(i)
        if self.keeps:
            tap = recorder(self.keeps, self.target, then=tap)
        taps = NO_TAPS if tap is None else Taps(attention=tap)
        out = self.backbone.predict(stack, t, text, streams=streams, taps=taps)
        if "uncond" not in streams:
            return out[-1]
        return cfg(out[streams.index("uncond")], out[-1], self.guidance)

    def after(self, x: Float[Tensor, "f c h w"], i: int, t: int) -> Float[Tensor, "f c h w"] | None:
        """Latent blending: outside the mask, the clip's own latent."""
        blending = None if self.fuser is None else self.fuser.policies.latent
        if self.fuser is None or blending is None or i not in blending.window:
            return None
        own = self.inversion.latents[blending.place(i, len(self.subject.times))].to(x)
        if not blending.masked:
            return own
        if self.fuser.plan is None:
            return None
        mask = self.fuser.plan(Wanted("latent", t, Grid(x.shape[0], *x.shape[-2:]))).to(x)
        return ops.blend(mask[:, None], x, own)

    def pictures(self) -> dict[str, Tensor]:
        """The mask at the frames' size, as the mean over the edit's times: how often a pixel may change."""
        if self.plan is None:
            return {}
        frames = self.subject.clip.frames
        grid = Grid(frames.shape[0], *frames.shape[-2:])
        places = torch.linspace(0, len(self.subject.times) - 1, min(SHOWN, len(self.subject.times)))
        times = sorted({self.subject.times[round(float(place))] for place in places})
        masks = [self.plan.mask(Wanted(self._shown(), t, grid)).float().cpu() for t in times]
        return {"mask": torch.stack(masks).mean(0)}

    def facts(self, pictures: Mapping[str, Tensor]) -> dict[str, str | float | int | bool | None]:
        found = {} if self.plan is None else dict(self.plan.facts)
        if "mask" in pictures:
            found["mask_share"] = round(float(pictures["mask"].mean()), 4)
            found["mask_empty_frames"] = int((pictures["mask"].flatten(1).amax(1) == 0).sum())
        if self.fuser is not None:
            found["keeps_object"] = self.fuser.policies.keeps_object
        found["inversion_passes"] = self.inversion.passes
        if self.lender is not self.inversion:
            found["attention"] = "reconstruction"
        if self.cache is not None:
            found["features_gb"] = round(self.cache.bytes / GB, 4)
        return found

    def warnings(self, pictures: Mapping[str, Tensor]) -> list[str]:
        if "mask" not in pictures:
            return []
        per_frame = pictures["mask"].flatten(1)
        empty, full = int((per_frame.amax(1) == 0).sum()), bool((pictures["mask"] == 1).all())
        said = []
        if empty:
            of = f"{empty} of {len(per_frame)} frames"
            said.append(f"the mask is empty in {of}: masked fusion lets nothing change there")
        if full:
            said.append("the mask covers every pixel: masked fusion keeps nothing of the clip")
        return said

    def _shown(self) -> Use:
        assert self.fuser is not None
        blending = self.fuser.policies.latent
        return "latent" if blending is not None and blending.masked else "self"

    def _step_at(self, t: int) -> int:
        return len(self.subject.times) - 1 - list(self.subject.times).index(t)

    def _streams(self, t: int) -> tuple[Stream, ...]:
        guided: tuple[Stream, ...] = ("cond",) if self.guidance == 1 else ("uncond", "cond")
        return ("source", *guided) if self.fuser and self.cache is None and self._awake(t) else guided

    def _awake(self, t: int) -> bool:
        assert self.fuser is not None
        return any(policy.awake(self._step_at(t)) for policy in self.fuser.policies.attention.values())

    def _kept(self, where: Where) -> QKV:
        assert self.cache is not None
        times = list(self.subject.times)
        place = times.index(where.t)
        return self.cache.get(where, times[place - 1] if place and self._awake(times[place - 1]) else None)


def feature_spy(cache: Features, policies: Policies, times: Sequence[int]) -> Spy:
    """Keeps, of an inversion, what the policies will want at the mirror step of the edit."""
    steps = {t: len(times) - 1 - place for place, t in enumerate(times)}

    def spy(where: Where, qkv: QKV) -> None:
        policy = policies.attention.get(where.site.kind)
        if policy is not None and policy.active(where, steps[where.t]):
            cache.put(where, qkv, values=policies.values == "source")

    return spy
