"""The steps of AnyV2V's edit and of the authors' reconstruction, from their latents, by the method's own step."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from einops import rearrange
from torch import Tensor

from freemask.attention.math import attend
from freemask.diffusion.loops import sample
from freemask.diffusion.noise_paths import CLEAN
from freemask.methods.pnp import Beside
from freemask.methods.pnp_layers import Lent, authors
from freemask.types import QKV, Taps, Where
from tests.official.case import Case

if TYPE_CHECKING:
    from tests.official.anyv2v import Run

APART = "the edit's source row has another prompt than the inversion, which the method does not have: theirs is given"
BLOCK = "up_blocks.1.resnets.1"
LAYER = "transformer_blocks.0."
KINDS = {"unet_out": "network output", "conv2": "branch", "q": "queries and keys", "k": "queries and keys"}
DRAWN = {"uncond": 0, "cond": 0, "source": 1}  # the edited picture is drawn first


def compare(run: "Run") -> None:
    case, backbone = run.case, run.backbone
    given = dict(run.given(run.method, run.edited))
    for stream, draw in DRAWN.items():
        frame = run.clip.frames[0] if stream == "source" else run.edited
        given[stream] = run.drawn(given[stream], frame, case["draws/edit_conditions"][draw])
    if case.about["edit_source_prompt"] != case.about["source_prompt"]:
        run.ledger.remark(APART)
        given["source"] = given["source"].plus(text=case["edit/cond/text"][0])
    run.conditions("edit", list(given.values()))
    beside = run.method.beside(backbone, given, run.inverted())
    windows(run, beside)
    times, after = case["edit/timesteps"].tolist(), case.latents("edit/latents")
    before = [case.latents("edit/init_latents"), *after]
    run.note("edit: start", "init_latents", beside.inversion.at(beside.times[-1]), before[0])
    for i in run.steps(len(times)):
        run.wanted.progress("edit, step by step", i, len(times))
        spying = Spying(**vars(beside.lent))
        with watched(backbone, spying.seen):
            out = replace(beside, lent=spying).predict(before[i], times[i])
        below = [*times, CLEAN][i + 1]
        made = run.path.step(before[i], out, now=times[i], call=times[i], to=below)
        run.note("edit: latents", f"step {i}", made, after[i])
        inside(run, i, spying.seen)
    if run.whole:
        end = sample(backbone, before[0], beside.predict, beside.times, progress=run.wanted.progress)
        run.free("edit: latents", end, after[-1], "final_free_running", 2e-2)
        run.decoded("edit", after[-1])


def windows(run: "Run", beside: Beside) -> None:
    """The steps, of those that are taken, in which the clip lends each kind."""
    lent, times = beside.lent, list(beside.times)[::-1]
    ours = {"conv": lent.convolution_steps, "spatial": lent.attention_steps, "temporal": lent.temporal_steps}
    for kind, steps in ours.items():
        theirs = [t for t in run.case.about[f"{kind}_injection_timesteps"] if t in times]
        run.exact("edit: steps that take over", kind, times[:steps] == theirs)


def reconstruction(run: "Run") -> None:
    """The clip under the text of its inversion and its own first frame: an edit into which nothing is lent."""
    case, about = run.case, run.case.about["options"]["recon"]
    shares = dict.fromkeys(("convolution_share", "attention_share", "temporal_share"), 0)
    method = replace(run.method, steps=about["n_steps"], start=about["idx"], guidance=about["cfg"], **shares)
    run_task, run.task = run.task, replace(run.task, target=run.task.source)
    given = dict(run.given(method, run.clip.frames[0]))
    run.task = run_task
    draw = case["draws/recon_condition"][0]
    given = {stream: run.drawn(each, run.clip.frames[0], draw) for stream, each in given.items()}
    run.conditions("recon", [given["uncond"], given["cond"]])
    beside = method.beside(run.backbone, given, run.inverted())
    times, latents = case["recon/timesteps"].tolist(), case.latents("recon/latents")
    run.exact("times of the network", "reconstruction", list(beside.times)[::-1] == times)
    run.note("reconstruction: start", "latents", beside.inversion.at(times[0]), latents[0])
    for i in run.steps(len(times)):
        seen: dict[str, Tensor] = {}
        with watched(run.backbone, seen, streams=2):
            out = beside.predict(latents[i], times[i])
        if i == 0:
            stored = case.latents("recon/unet_out_first")
            run.note("reconstruction: network output", "step 0", seen["unet_out"], stored)
        below = [*times, CLEAN][i + 1]
        made = run.path.step(latents[i], out, now=times[i], call=times[i], to=below)
        run.note("reconstruction: latents", f"step {i}", made, latents[i + 1])
    run.decoded("recon", latents[-1])


@dataclass(frozen=True)
class Spying(Lent):
    """The same, and what there is of queries, keys and branch after the clip has lent its own. The clip is always
    beside, as the authors have it."""

    seen: dict[str, Tensor] = field(default_factory=dict)

    def awake(self, i: int) -> bool:
        return True

    def at(self, i: int, then: Any = None) -> Taps:
        taps, branch = super().at(i, then=self.attention), f"{BLOCK}.conv2"
        lending = taps.features.get(branch)

        def seen(where: Where, maps: Tensor) -> Tensor:
            self.seen[f"{BLOCK}/conv2"] = maps if lending is None else lending(where, maps)
            return self.seen[f"{BLOCK}/conv2"]

        return replace(taps, features={**taps.features, branch: seen})

    def attention(self, where: Where, qkv: QKV) -> Tensor:
        name = where.site.name.replace(LAYER, "")
        for kind, each in (("q", qkv.q), ("k", qkv.k)):
            self.seen[f"{name}/{kind}"] = rearrange(each, "s b heads n d -> s b n (heads d)")
        return attend(qkv)


@contextmanager
def watched(backbone: Any, seen: dict[str, Tensor], streams: int = 3) -> Iterator[None]:
    """What the network, the block and its layers put out, by the names of the case."""

    def keep(name: str, axes: str) -> Any:
        def hook(module: Any, given: Any, out: Any) -> None:
            seen[name] = rearrange(out[0] if isinstance(out, tuple) else out, axes, s=streams)

        return hook

    unet, spatial = backbone.unet, list(authors(backbone.sites))
    layers = [*spatial, *(name.replace(".attentions.", ".temp_attentions.") for name in spatial)]
    hooks = [
        unet.register_forward_hook(keep("unet_out", "s c f h w -> s f c h w")),
        unet.get_submodule(BLOCK).register_forward_hook(keep(f"{BLOCK}/out", "(s f) c h w -> s f c h w")),
    ]
    for name in layers:
        place = keep(f"{name.replace(LAYER, '')}/out", "(s b) n d -> s b n d")
        hooks.append(unet.get_submodule(name).register_forward_hook(place))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def inside(run: "Run", i: int, seen: dict[str, Tensor]) -> None:
    case, start = run.case, f"edit/step{i:02d}/"
    spatial, temporal = thinned(case)
    for name in case.names(start):
        key, kind = name.removeprefix(start), name.rpartition("/")[2]
        ours = seen[key]
        if "temp_attentions" in key:
            ours = ours[:, :: temporal if ours.shape[1] >= 64 else 1]
        elif "attentions" in key:
            ours = ours[:, :, :: spatial if ours.shape[2] >= 64 else 1]
        stored = case.latents(name) if kind == "unet_out" else case[name]
        run.note(f"edit: {KINDS.get(kind, 'what layers put out')}", name, ours, stored)


def thinned(case: Case, default: int = 1) -> tuple[int, int]:
    said = case.about["thinned"]
    spatial, temporal = (re.search(rf"{word}: \w+ \[::(\d+)\]", said) for word in ("spatial", "temporal"))
    return int(spatial[1]) if spatial else default, int(temporal[1]) if temporal else default
