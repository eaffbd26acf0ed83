"""The steps of TokenFlow's edits: the call on key frames, the matches of every frame, what is copied along them, and
the latents. Each step starts from the stored latents, with the stored key frames and matches; then all on their own."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor

from freemask.diffusion.inversions import Inversion
from freemask.diffusion.loops import sample
from freemask.diffusion.noise_paths import CLEAN
from freemask.methods.pnp import Beside
from freemask.methods.tokenflow_field import by_chunk, chunks
from freemask.methods.tokenflow_step import Flow, Step
from freemask.types import Time
from tests.official.case import Case
from tests.official.families import Wanted

if TYPE_CHECKING:
    from tests.official.tokenflow import Run

BLOCK = "up_blocks.1.resnets.1"  # the one of which the output is stored
KINDS = {"unet_out": "network", "resnet": "block"}
ATTENTION = "transformer_blocks.0.attn1"


def compare(run: "Run", wanted: Wanted) -> None:
    case = run.case
    times = case["edit/timesteps"].tolist()
    size, frames = run.method.chunk, len(case["edit/init_latents"])
    parts = chunks(frames, size)
    drawn = [[each[at] for each, at in zip(parts, row, strict=True)] for row in case["edit/randint"].tolist()]
    run.exact("edit: key frames", "all steps", drawn == case["edit/key_frames"].tolist())
    for place, each in enumerate(parts[1:], 1):
        ours = torch.tensor([by_chunk(frame, size)[0][1] for frame in each])
        run.note("edit: weights", f"chunk {place}", ours, f"edit/blend_weight/chunk{place}")
    edit = Edit(run, times)
    edit.windows()
    count = len(times) if wanted.steps is None else min(wanted.steps, len(times))
    for i in range(count):
        wanted.progress("edit, step by step", i, count)
        edit.step(i)
    if wanted.free and count == len(times):
        edit.on_its_own(wanted)


@dataclass
class Edit:
    run: "Run"
    times: Sequence[Time]

    @cached_property
    def before(self) -> list[Tensor]:
        return [self.run.case["edit/init_latents"], *self.run.case["edit/latents"]]

    def flow(self, **changed: Any) -> "Fed":
        """As the method makes it, from the stored inversion."""
        run = self.run
        streams = {"source": "inversion", "uncond": "negative", "cond": "target"}
        given = {stream: run.given[name] for stream, name in streams.items()}
        inversion = Inversion(run.inverted(), run.up)
        lent, guidance = run.method.settings().lent(run.backbone), run.case.about["guidance_scale"]
        beside = Beside(run.backbone, given, inversion, list(run.down)[::-1], lent, guidance)
        return Fed(**vars(run.method.flow(beside, torch.Generator())), run=run, **changed)

    def windows(self) -> None:
        """The steps in which the clip lends convolutions, and queries and keys."""
        lent = self.flow().lent
        for key, steps in (("conv", lent.convolution_steps), ("qk", lent.attention_steps)):
            theirs = self.run.case.about.get(f"{key}_injection_timesteps", [])
            self.run.exact("edit: steps that take over", key, list(self.times[:steps]) == theirs)

    def step(self, i: int) -> None:
        run, x, t = self.run, self.before[i], self.times[i]
        with watched(run.backbone) as seen:
            out = self.flow(forced=True).predict(x, t)
        below = [*self.times, CLEAN][i + 1]
        made = run.backbone.noise_path.step(x, out, now=t, call=t, to=below)
        run.note("edit: latents", f"step {i}", made, self.before[i + 1])
        self.inside(i, seen)

    def inside(self, i: int, seen: dict[str, list[Tensor]]) -> None:
        """What is stored of some steps. The first call was on the key frames, the others on the chunks."""
        case, start = self.run.case, f"edit/step{i:02d}/"
        for name in case.names(start):
            place, _, kind = name.removeprefix(start).rpartition("/")
            key = kind.startswith("key_") or kind.endswith("_key")
            source = f"{place}/{kind.removeprefix('key_')}" if place else kind.removesuffix("_key")
            calls = seen[source]
            ours = calls[0] if key else torch.cat(calls[1:], dim=1)
            if place:
                ours = thinned(case, ours)
            group = "edit: " + ("inside blocks" if place else KINDS[source])
            self.run.note(group + (" on key frames" if key else ""), name, ours, name)

    def on_its_own(self, wanted: Wanted) -> None:
        case, backbone = self.run.case, self.run.backbone
        path = list(reversed(self.times))
        end = sample(backbone, self.before[0], self.flow().predict, path, progress=wanted.progress)
        limit = case.number("final_free_running", 2e-2)
        self.run.note("edit: final latents", "last", end, self.before[-1], limit)


@dataclass(frozen=True, kw_only=True)
class Fed(Flow):
    """With the stored key frames; `forced`: each match is compared, and the stored one is used."""

    run: "Run"
    forced: bool = False
    now: list[int] = field(default_factory=list)

    def predict(self, x: Tensor, t: Time) -> Tensor:
        self.now[:] = [self.step_at(t)]
        return super().predict(x, t)

    def step(self, frames: int) -> Step:
        keys = self.run.case["edit/key_frames"][self.now[0]].tolist()
        if not self.forced:
            return Step(keys, self.chunk, self.variant)
        return Matching(keys, self.chunk, self.variant, run=self.run, i=self.now[0])


@dataclass(kw_only=True)
class Matching(Step):
    """Compares each match, and answers the stored one, so that one that flips changes nothing that follows."""

    run: "Run"
    i: int

    def matched(self, site: str, frame: int, place: int, tokens: Tensor) -> Tensor:
        ours, case = super().matched(site, frame, place, tokens), self.run.case
        block = site.removesuffix(f".{ATTENTION}")
        previous = place < frame // self.chunk
        which = "previous" if previous else "own"
        row = frame - self.chunk if previous else frame  # the first chunk has none before it
        stored = case[f"edit/nn/{block}/{which}"][self.i, row].long()
        number = case.about["blocks"].index(block)
        ties = case["edit/nn_near_ties"]
        close = (ties[:, :4] == torch.tensor([self.i, number, int(previous), frame])).all(dim=1)
        wrong = ours != stored
        wrong[ties[close, 4].long()] = False
        self.run.exact(
            "edit: nearest tokens", f"step {self.i} {block} frame {frame} {which}", not bool(wrong.any())
        )
        return stored


@contextmanager
def watched(backbone: Any) -> Iterator[dict[str, list[Tensor]]]:
    """What the network and its blocks put out, call by call, as `s f ...`, by the names of the case."""
    unet, seen = backbone.unet, defaultdict(list)

    def keep(name: str, value: Tensor) -> None:
        seen[name].append(rearrange(value, "(s f) ... -> s f ...", s=3))

    def attention(place: str) -> Any:
        def hook(module: Any, given: tuple[Tensor, ...], out: Tensor) -> None:
            keep(f"{place}/norm1", given[0])
            keep(f"{place}/attn_out", out)

        return hook

    hooks = [
        unet.register_forward_hook(lambda module, given, out: keep("unet_out", out[0])),
        unet.get_submodule(BLOCK).register_forward_hook(lambda module, given, out: keep("resnet", out)),
    ]
    for name in backbone.sites:
        if name.endswith(f".{ATTENTION}"):
            place = name.removesuffix(f".{ATTENTION}")
            hooks.append(unet.get_submodule(name).register_forward_hook(attention(place)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def thinned(case: Case, tokens: Tensor) -> Tensor:
    """Of many tokens, those that are stored."""
    said = re.search(r"tokens \[::(\d+)\] where L > (\d+)", case.about["thinned"])
    assert said is not None
    return tokens[:, :, :: int(said[1])] if tokens.shape[2] > int(said[2]) else tokens
