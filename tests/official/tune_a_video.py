"""Cases of Tune-A-Video: tuning, the tuned network's inversion under the empty prompt, and sampling under other
prompts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from torch import Tensor

from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert, sample
from freemask.diffusion.noise_paths import CLEAN
from freemask.types import Text, Time
from tests.official import tuning
from tests.official.case import Case
from tests.official.families import Wanted
from tests.official.ledger import FORCED, FREE, Ledger, relative
from tests.official.tuned import loaded

LOOK = "-1,first"  # whom frames look at


@dataclass(frozen=True)
class Tuned:
    case: Case
    backbone: Any
    ledger: Ledger
    wanted: Wanted

    def times(self, steps: int) -> list[Time]:
        return list(self.backbone.noise_path.times(steps))

    def count(self, steps: int) -> int:
        return steps if self.wanted.steps is None else max(1, min(self.wanted.steps, steps))

    def judge(
        self, group: str, where: str, ours: Tensor, theirs: Tensor, key: str = "teacher_forced"
    ) -> None:
        mode = FREE if "free" in key else FORCED
        self.ledger.note(group, mode, where, relative(ours, theirs), self.case.number(key, 1e-4))

    def exactly(self, group: str, where: str, same: bool) -> None:
        self.ledger.note(group, FORCED, where, 0.0 if same else 1.0, 0.0)


def compare(case: Case, ledger: Ledger, wanted: Wanted) -> None:
    with loaded(case, LOOK) as backbone:
        tuned = Tuned(case, backbone, ledger, wanted)
        texts(tuned)
        inversion(tuned)
        for place, prompt in enumerate(case.about["prompts"]):
            edit(tuned, f"edit{place}", backbone.embed(prompt))
        tuning.compare(case, ledger, backbone, LOOK, wanted)


def texts(tuned: Tuned) -> None:
    case, embed = tuned.case, tuned.backbone.embed
    prompts = {"source": case.about["source_prompt"], "empty": ""}
    prompts |= {f"edit{i}": prompt for i, prompt in enumerate(case.about["prompts"])}
    for name, prompt in prompts.items():
        if f"text/{name}/ids" in case:
            made, ids = embed(prompt), case[f"text/{name}/ids"].flatten().tolist()
            same = list(made.ids) == ids[: made.length] and len({*ids[made.length :]}) <= 1
            tuned.exactly("text: token ids", name, same)
            tuned.judge(
                "text: embeddings", name, made.tokens, case[f"text/{name}/emb"].reshape(made.tokens.shape)
            )


def inversion(tuned: Tuned) -> None:
    case, backbone, steps = tuned.case, tuned.backbone, int(tuned.case.about["num_inv_steps"])
    times, path, latents = tuned.times(steps), backbone.noise_path, case.latents("inv/latents")
    tuned.exactly("times of the network", "inversion", case.about["timesteps_fed_to_unet"]["inv"] == times)
    pixels = rearrange(case["pixels_u8"].float() / 255, "f h w c -> f c h w")
    tuned.judge(
        "encoded frames", "mean of the posterior", backbone.encode(pixels), case["vae/mean"] * 0.18215
    )
    prompt = backbone.embed(case.about["inversion_prompt"])
    predict = guided(backbone, prompt, stream="source")
    for j, t in enumerate(times[: tuned.count(steps)]):
        tuned.wanted.progress("inversion, step by step", j, tuned.count(steps))
        with outputs(tuned, j):
            out = predict(latents[j], t)
        if f"inv/unet_out/{j:02d}" in case:
            theirs = case.latents(f"inv/unet_out/{j:02d}")
            tuned.judge(
                "inversion: network output",
                f"step {j}",
                out,
                theirs.reshape(out.shape),
                "layers_and_unet_out",
            )
        made = path.step(latents[j], out, now=times[j - 1] if j else CLEAN, call=t, to=t)
        tuned.judge("inversion: latents", f"step {j}", made, latents[j + 1])
    if tuned.wanted.free and tuned.count(steps) == steps:
        free = invert(backbone, latents[0], prompt, steps, progress=tuned.wanted.progress)
        for j, (ours, theirs) in enumerate(zip(free[1:], latents[1:], strict=True)):
            tuned.judge("inversion: latents", f"step {j}", ours, theirs, "inversion_free_running")


@contextmanager
def outputs(tuned: Tuned, j: int) -> Iterator[None]:
    """Compares what modules put out in the first call with what is stored of them."""
    start, hooks = "inv/layers/", []
    for name in tuned.case.names(start) if j == 0 else ():
        inner = name.removeprefix(start).replace("attn_temp", "attn_temporal")

        def hook(module: Any, args: Any, output: Any, name: str = name) -> None:
            theirs = tuned.case[name]
            ours = output[0] if isinstance(output, tuple) else output
            if ours.ndim == 4:
                ours = rearrange(ours, "f c h w -> 1 c f h w")
            tuned.judge(
                "inversion: outputs of modules", name.removeprefix(start), ours, theirs, "layers_and_unet_out"
            )

        hooks.append(tuned.backbone.unet.get_submodule(inner).register_forward_hook(hook))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def edit(tuned: Tuned, name: str, prompt: Text) -> None:
    case, backbone, steps = tuned.case, tuned.backbone, int(tuned.case.about["num_inference_steps"])
    times, path, latents = tuned.times(steps), backbone.noise_path, case.latents(f"{name}/latents")
    fed = case.about["timesteps_fed_to_unet"].get(name, times[::-1])
    tuned.exactly("times of the network", name, fed == times[::-1])
    negative = backbone.embed(case.about["negative_prompt"])
    predict = guided(backbone, prompt, case.about["guidance_scale"], uncond=negative)
    begun = case.latents(f"{name}/init_latents").reshape(latents[0].shape)
    for i, t in enumerate(times[::-1][: tuned.count(steps)]):
        tuned.wanted.progress(f"{name}, step by step", i, tuned.count(steps))
        x, below = latents[i - 1] if i else begun, times[-2 - i] if i + 1 < steps else CLEAN
        if f"{name}/unet_out/{i:02d}" in case:
            streams = {"uncond": negative.given, "cond": prompt.given}
            out, theirs = (
                backbone.predict(x.expand(2, *x.shape), t, streams),
                case.latents(f"{name}/unet_out/{i:02d}"),
            )
            tuned.judge(f"{name}: network output", f"step {i}", out, theirs, "layers_and_unet_out")
        made = path.step(x, predict(x, t), now=t, call=t, to=below)
        tuned.judge(f"{name}: latents", f"step {i}", made, latents[i])
    if tuned.wanted.free and tuned.count(steps) == steps:
        end = sample(backbone, begun, predict, steps, progress=tuned.wanted.progress)
        tuned.judge(f"{name}: final latents", "from the stored start", end, latents[-1], "final_free_running")
        frames(tuned, name, latents)


def frames(tuned: Tuned, name: str, latents: Sequence[Tensor]) -> None:
    key = f"{name}/frames_down4"
    if key in tuned.case:
        theirs = tuned.case[key]
        ours = tuned.backbone.decode(latents[-1])[..., 2::4, 2::4]
        theirs = rearrange(theirs, "f h w c -> f c h w") if theirs.shape[-1] == ours.shape[1] else theirs
        tuned.judge(f"{name}: decoded frames", "every 4th pixel", ours, theirs)
