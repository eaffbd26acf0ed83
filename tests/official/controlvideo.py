"""ControlVideo, through the product's own method: its prompts, its calls of the network, its smoother, its steps. Each
step starts from the stored latents and draws what was drawn; then all on its own, from the seed alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from experiments.cli.quoting import quoted
from experiments.config.build import build
from freemask.methods.controlvideo_step import Steps
from freemask.types import NO_TAPS, Clip, EditTask, Given, Stream, Taps, Time
from tests.official.case import Case
from tests.official.control_run import Run
from tests.official.ledger import FORCED, FREE, relative

DOWN = (..., slice(2, None, 4), slice(2, None, 4))  # the pixels that are stored of pictures
# What is stored of the first call, and the modules that put it out.
FIRST = {
    "first/conv_norm_out": "conv_norm_out",
    "first/mid_out": "mid_block",
    "first/down1_res0_norm1_out": "down_blocks.1.resnets.0.norm1",
    "first/down1_attn0_self_out": "down_blocks.1.attentions.0.transformer_blocks.0.attn1",
}


def lines(case: Case) -> list[str]:
    """What a user types to get this edit, beside the model."""
    about = case.about
    window = about.get("window_size")
    return [
        "method=controlvideo",
        quoted("target", about["prompt"]),
        quoted("method.suffix", about["positive_suffix"]),
        quoted("method.negative", about["negative_prompt"]),
        f"method.steps={case.steps}",
        f"method.guidance={about['guidance_scale']}",
        f"method.smooth={about['smooth_steps_remaining']}".replace(" ", ""),
        f"method.long={str(about['sampler'] == 'generate_long_video').lower()}",
        f"method.window={'null' if window is None else window}",
        "interpolation=average",
        f"interpolation.left={about['interpolator'].partition(' * left')[0].rpartition(' ')[2]}",
    ]


class ControlVideo(Run):
    @cached_property
    def look(self) -> Sequence[str]:
        """The method sets up whom frames look at."""
        return lines(self.case)

    def run(self) -> None:
        case, about = self.case, self.case.about
        self.method: Any = build(self.config["method"], "method")
        # A clip is seen by its size and what its ControlNet is shown.
        shown = {"control": self.images, "control_strength": self.strength}
        self.clip = Clip("clip", self.images, conditions=shown)
        self.task = EditTask("t", "clip", "", about["prompt"], {}, "style")
        steps = self.begun(torch.Generator())
        self.exact("times of the network", "edit", steps.levels[:-1], about["timesteps_fed_to_networks"])
        self.texts(steps)
        self.order(steps)
        stored = [case["edit/init_noise"].expand(-1, -1, len(self.images), -1, -1)[0], *case["edit/latents"]]
        self.before = [forward(each) for each in stored]
        for i in self.steps(case.steps):
            self.wanted.progress("edit, step by step", i, case.steps)
            self.step(steps, i)
        self.pictures()
        if self.wanted.free and self.wanted.steps is None:
            self.alone()

    def begun(self, rng: torch.Generator) -> "Noted":
        """As the method makes it."""
        _, self.noise, begun = self.method.begin(self.backbone, self.clip, self.task, rng)
        return Noted(**{each.name: getattr(begun, each.name) for each in fields(begun)})

    def exact(self, group: str, where: str, ours: Any, theirs: Any) -> None:
        self.ledger.note(group, FORCED, where, 0.0 if ours == theirs else 1.0, 0.0)

    def texts(self, steps: "Noted") -> None:
        case, method = self.case, self.method
        prompts = {"uncond": method.negative, "cond": self.task.target + method.suffix}
        for row, (stream, prompt) in enumerate(prompts.items()):
            text, ids = self.backbone.embed(prompt), case["text/ids"][row].tolist()
            self.exact("text: token ids", stream, list(text.ids), ids[: len(text.ids)])
            found = steps.given[stream].parts["text"]
            self.note("text: embeddings", stream, found, case["text/uncond_cond"][row])

    def order(self, steps: "Noted") -> None:
        """Key frames, who is between them, and who is made of whom in smoothed steps."""
        about, calls = self.case.about, steps.calls
        if "key_frames" in about:
            groups = [list(call.frames)[call.counts] for call in calls[1:]]
            self.exact("edit: key frames", "keys", calls[0].frames, about["key_frames"])
            self.exact("edit: key frames", "between", groups, about["interior_groups"])
        smoother = steps.smoother
        ours = set() if smoother is None else smoother.steps
        self.exact("smoother: steps", "all", ours, set(about["smooth_steps_index"]))
        for step, stored in about["smooth_map_target_left_right"].items():
            assert smoother is not None
            found = smoother.made_of(len(self.images), int(step))
            found = [[frame, *pair] for frame, pair in found.items()]
            self.exact("smoother: who is made of whom", step, found, stored)

    def step(self, steps: "Noted", i: int) -> None:
        key, smoother, seen = f"smooth/step{i:02d}", steps.smoother, Watched(self.backbone, self, i)
        smoothed = smoother is not None and i in smoother.steps
        if smoothed:
            draw = self.case[f"{key}/posterior_draw"]
            smoother = replace(smoother, backbone=seen, draw=lambda like: draw)
        made = replace(steps, backbone=seen, smoother=smoother).step(self.before[i], i)
        eps, x, t = steps.predicted.pop(), self.before[i], steps.levels[i]
        self.note("edit: prediction", f"step {i}", eps, forward(self.case["edit/eps"][i]))
        clean = self.path.clean(x, eps, now=t, call=t)
        self.note("edit: clean latents", f"step {i}", clean, forward(self.case["edit/x0"][i]))
        self.note("edit: latents" + " (smoothed)" * smoothed, f"step {i}", made, self.before[i + 1])
        if seen.codec:
            self.smoothing(key, seen.codec)

    def smoothing(self, key: str, seen: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """What the autoencoder was given and gave back."""
        (x0, frames), (after, mean), (_, std) = (seen[name] for name in ("decode", "encode", "spread"))
        case, scale = self.case, self.backbone.codec.scale
        again = mean + case[f"{key}/posterior_draw"] * std
        found = {"x0": x0, "frames_before_down4": frames[DOWN], "frames_after_down4": after[DOWN]}
        found |= {"posterior_mean": mean / scale, "posterior_std": std / scale, "x0_smoothed": again}
        for name, ours in found.items():
            stored = case[f"{key}/{name}"]
            self.note(f"smoother: {name}", key, ours, forward(stored[0]) if stored.ndim == 5 else stored)

    def pictures(self) -> None:
        """Of the stored last latents; bytes are rounded."""
        case, frames = self.case, self.backbone.decode(self.before[-1])[DOWN]
        self.note("decoded frames", "last", frames[-1:], case["edit/frames_last_f32_down4"])
        theirs = rearrange(case["edit/frames_u8_down4"], "f h w c -> f c h w").double()
        beyond = ((frames.double() * 255 - theirs).abs() - 0.5).clamp(min=0)
        self.note("decoded frames", "all, beyond rounding", theirs + beyond, theirs)

    def alone(self) -> None:
        """As a user gets it: from the seed, one noise for all frames, then what is drawn in smoothed steps."""
        steps = self.begun(torch.Generator().manual_seed(self.case.about["seed"]))
        self.note("edit: noise of the seed", "all", self.noise, self.before[0])
        last = steps.all(self.noise, self.wanted.progress)
        limit = self.case.number("final_free_running", 5e-3)
        self.ledger.note("edit: latents", FREE, "last", relative(last, self.before[-1]), limit)

    @contextmanager
    def modules(self) -> Iterator[None]:
        """Compares what single modules put out in the call meanwhile."""

        def compared(name: str) -> Callable[..., None]:
            def hook(module: Any, given: Any, out: Tensor) -> None:
                theirs = self.case[name]
                ours = rearrange(out, "(s f) c h w -> s c f h w", s=2) if theirs.ndim == 5 else out
                self.note("edit: inside the network", name, ours, theirs)

            return hook

        names = {name: place for name, place in FIRST.items() if name in self.case}
        unet = self.backbone.unet
        hooks = [unet.get_submodule(p).register_forward_hook(compared(n)) for n, p in names.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def forward(stored: Tensor) -> Tensor:
    """As our latents lie."""
    return rearrange(stored, "c f h w -> f c h w")


@dataclass(frozen=True)
class Noted(Steps):
    """Keeps its guided predictions."""

    predicted: list[Tensor] = field(default_factory=list)

    def predict(self, x: Tensor, t: Time) -> Tensor:
        self.predicted.append(super().predict(x, t))
        return self.predicted[-1]


class Watched:
    """The backbone in one step: compares what is stored of each call, and notes what its autoencoder does."""

    def __init__(self, backbone: Any, run: ControlVideo, i: int) -> None:
        self.backbone, self.run, self.i, self.call = backbone, run, i, 0
        self.codec: dict[str, tuple[Tensor, Tensor]] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.backbone, name)
        if name not in ("encode", "decode", "spread"):
            return found

        def noting(value: Tensor) -> Tensor:
            made = found(value)
            self.codec[name] = value, made
            return made

        return noting

    def predict(self, x: Tensor, t: Time, given: Mapping[Stream, Given], *, taps: Taps = NO_TAPS) -> Tensor:
        run, key = self.run, f"step{self.i:02d}/call{self.call}"
        with run.residuals() as found:
            if key == "step00/call0":
                with run.modules():
                    out = self.backbone.predict(x, t, given, taps=taps)
            else:
                out = self.backbone.predict(x, t, given, taps=taps)
        run.added(f"cnet/{key}", found, streams=2)
        for name, ours in {"in": x, "out": out}.items():
            if f"unet/{key}/{name}" in run.case:
                theirs = rearrange(run.case[f"unet/{key}/{name}"], "s c f h w -> s f c h w")
                run.note(f"edit: network {name}put", f"unet/{key}", ours, theirs)
        self.call += 1
        return out
