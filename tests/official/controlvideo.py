"""ControlVideo: what its ControlNet adds and what its network answers, in one call or by key frames."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor

from freemask.diffusion.guidance import cfg
from freemask.diffusion.loops import sample
from freemask.diffusion.noise_paths import CLEAN
from freemask.types import NO_TAPS, Taps, Time
from tests.official.control_run import Run
from tests.official.ledger import FORCED, FREE, relative

SMOOTHED = "not yet run: the smoother (smooth, and edit/latents of the steps that it changes)"


class ControlVideo(Run):
    """Each step from the latents before it: all frames in one call, or first the key frames and then those between
    each two, which look at the first and the last frame of their call."""

    look = ("model.attention=all", "model.least_channels=0", "model.control_middle=true")

    def run(self) -> None:
        case, about = self.case, self.case.about
        times = self.path.times(case.steps)[::-1]
        same = times == about["timesteps_fed_to_networks"]
        self.ledger.note("times of the network", FORCED, "edit", 0.0 if same else 1.0, 0.0)
        prompts = (about["negative_prompt"], about["prompt"] + about["positive_suffix"])
        self.texts = [self.backbone.embed(prompt).given for prompt in prompts]
        for given, theirs in zip(self.texts, case["text/uncond_cond"], strict=True):
            self.note("text: embeddings", "text/uncond_cond", given.parts["text"], theirs)
        frames, smoothed = len(self.images), set(about["smooth_steps_index"])
        self.before = [case["edit/init_noise"].expand(-1, -1, frames, -1, -1)[0], *case["edit/latents"]]
        self.before = [rearrange(each, "c f h w -> f c h w") for each in self.before]
        for i in self.steps(case.steps):
            self.wanted.progress("edit, step by step", i, case.steps)
            self.step(i, times, smoothed=i in smoothed)
        if smoothed:
            self.ledger.remark(SMOOTHED)
        elif self.wanted.free and self.wanted.steps is None:
            self.alone(times)

    def step(self, i: int, times: Sequence[Time], *, smoothed: bool) -> None:
        case, x, t = self.case, self.before[i], times[i]
        eps = self.predicted(x, t, i)
        self.note("edit: prediction", f"step {i}", eps, rearrange(case["edit/eps"][i], "c f h w -> f c h w"))
        clean = self.path.clean(x, eps, now=t, call=t)
        self.note(
            "edit: clean latents", f"step {i}", clean, rearrange(case["edit/x0"][i], "c f h w -> f c h w")
        )
        if not smoothed:
            after = self.path.step(x, eps, now=t, call=t, to=[*times, CLEAN][i + 1])
            self.note("edit: latents", f"step {i}", after, self.before[i + 1])

    def predicted(self, x: Tensor, t: Time, i: int | None = None) -> Tensor:
        """Guided, frames in the clip's order. `i`: the step of which single calls are stored."""
        out = torch.empty_like(x)
        for place, (order, kept) in enumerate(self.calls(len(x))):
            key = None if i is None else f"step{i:02d}/call{place}"
            taps = Taps(look=lambda where: ("first", "last")) if place else NO_TAPS
            out[order[kept]] = self.call(x[order], t, self.images[order], key, taps)[kept]
        return out

    def calls(self, frames: int) -> Iterator[tuple[Tensor, slice]]:
        """The frames of each call, and which of its answers count."""
        keys = self.case.about.get("key_frames")
        yield torch.arange(frames) if keys is None else torch.tensor(keys), slice(None)
        for left, right in pairwise(keys or ()):
            if right - left > 1:
                yield torch.tensor([left, right, *range(left + 1, right)]), slice(2, None)

    def call(self, x: Tensor, t: Time, images: Tensor, key: str | None, taps: Taps) -> Tensor:
        more = {"control": images, "control_strength": self.strength}
        given = {name: each.plus(**more) for name, each in zip(("uncond", "cond"), self.texts, strict=True)}
        with self.residuals() as found:
            both = self.backbone.predict(torch.stack([x, x]), t, given, taps=taps)
        if key is not None:
            self.added(f"cnet/{key}", found, streams=2)
            if f"unet/{key}/out" in self.case:
                theirs = rearrange(self.case[f"unet/{key}/out"], "s c f h w -> s f c h w")
                self.note("edit: network output", f"unet/{key}/out", both, theirs)
        return cfg(*both, self.case.about["guidance_scale"])

    def alone(self, times: Sequence[Time]) -> None:
        last = sample(self.backbone, self.before[0], self.predicted, times[::-1])
        error = relative(last, self.before[-1])
        limit = self.case.number("final_free_running", 5e-3)
        self.ledger.note("edit: latents", FREE, "last", error, limit)
