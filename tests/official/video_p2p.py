"""Cases of Video-P2P: tuning, inversion on the tuned network, null-text inversion, and the edit by our method."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from einops import rearrange

from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert
from freemask.diffusion.noise_paths import CLEAN
from tests.official import null_text, tuning, video_p2p_edit
from tests.official.case import Case
from tests.official.families import Wanted
from tests.official.ledger import FREE, Ledger, relative
from tests.official.tuned import Scene, loaded

THINNED = 256  # stored outputs with so many rows hold every fourth of them


def compare(case: Case, ledger: Ledger, wanted: Wanted) -> None:
    with loaded(case) as backbone:
        scene = Scene(case, backbone, ledger)
        count = scene.steps if wanted.steps is None else max(1, min(wanted.steps, scene.steps))
        texts(scene)
        inversion(scene, count, wanted)
        if not case.about["fast"]:
            null_text.forced(scene, count, wanted.progress)
        video_p2p_edit.forced(scene, count, wanted.progress)
        if wanted.free and count == scene.steps:
            free(scene, wanted)
        tuning.compare(case, ledger, backbone, "first", wanted)


# --- what stands beside the network ----------------------------------------------------------------------------


def texts(scene: Scene) -> None:
    for name, text in {
        "source": scene.source,
        "target": scene.target,
        "empty": scene.backbone.embed(""),
    }.items():
        ids = scene.case[f"text/{name}/ids"].tolist()
        same = list(text.ids) == ids[: text.length] and len({*ids[text.length :]}) <= 1
        scene.exactly("text: token ids", name, 0.0 if same else 1.0)
        scene.judge("text: embeddings", name, text.tokens, scene.case[f"text/{name}/emb"])


# --- inversion -------------------------------------------------------------------------------------------------


def inversion(scene: Scene, count: int, wanted: Wanted) -> None:
    case, times, path = scene.case, scene.times, scene.backbone.noise_path
    fed = case.about.get("timesteps_fed_to_unet", {})
    for stage, ours in (("inv", times), ("edit", times[::-1])):
        scene.exactly("times of the network", stage, float(fed.get(stage, ours) != ours))
    latents = case.latents("inv/latents")
    clean = scene.backbone.encode(rearrange(case["pixels_u8"].float() / 255, "f h w c -> f c h w"))
    scene.judge("encoded frames", "mean of the posterior", clean, latents[0])
    predict = guided(scene.backbone, scene.source, stream="source")
    for j, t in enumerate(times[:count]):
        wanted.progress("inversion, step by step", j, count)
        with watched(scene, "inv/layers/" if j == 0 else "none"):
            out = predict(latents[j], t)
        if f"inv/unet_out/{j:02d}" in case:
            theirs = case.latents(f"inv/unet_out/{j:02d}")[0]
            scene.judge("inversion: network output", f"step {j}", out, theirs, "unet_out")
        made = path.step(latents[j], out, now=times[j - 1] if j else CLEAN, call=t, to=t)
        scene.judge("inversion: latents", f"step {j}", made, latents[j + 1])


@contextmanager
def watched(scene: Scene, start: str) -> Iterator[None]:
    """Compares what modules put out with what is stored of them."""

    def watcher(name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            theirs, ours = scene.case[name], output
            if ours.ndim == 4:
                ours = rearrange(ours, "(s f) c h w -> s c f h w", f=theirs.shape[2])
            elif ours.shape[1] >= THINNED:
                ours = ours[:, ::4]
            scene.judge("inversion: outputs of modules", name.removeprefix(start), ours, theirs)

        return hook

    hooks = []
    for name in scene.case.names(start):
        module = name.removeprefix(start).replace("attn_temp", "attn_temporal")
        hooks.append(scene.backbone.network.get_submodule(module).register_forward_hook(watcher(name)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# --- on its own ------------------------------------------------------------------------------------------------


def free(scene: Scene, wanted: Wanted) -> None:
    """From the clean latents."""
    case, stored = scene.case, scene.case.latents("inv/latents")
    path = invert(scene.backbone, stored[0], scene.source, scene.steps, progress=wanted.progress)
    limit = case.number("inversion_free_running", 1e-3)
    for j in range(1, len(stored)):
        scene.ledger.note("inversion: latents", FREE, f"step {j - 1}", relative(path[j], stored[j]), limit)
    if not case.about["fast"]:
        null_text.free(scene, path, wanted.progress)
    video_p2p_edit.free(scene, wanted.progress)
