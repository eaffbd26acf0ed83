"""Cases of Video-P2P: inversion on the tuned network, null-text inversion, tables of words, and the source's own stream
of the edit."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from einops import rearrange
from torch import Tensor

from freemask.alignment import factors, gates, official_columns, word_map
from freemask.attention.record import Recording, heat_of_words, recorder
from freemask.diffusion.guidance import cfg, guided
from freemask.diffusion.loops import invert
from freemask.diffusion.noise_paths import CLEAN
from freemask.masks.heat import running, text_layers
from freemask.masks.ops import Binarise
from freemask.types import Given, Taps
from tests.official import null_text
from tests.official.case import Case, stored_map
from tests.official.families import Wanted
from tests.official.ledger import FORCED, FREE, Ledger, furthest, relative
from tests.official.tuned import Scene, loaded

NOT_YET = "does not run yet: tuning, and the target's stream (the method's own controls)"
STRIDE = 4  # of the layers whose maps make masks
THINNED = 256  # stored outputs with so many rows hold every fourth of them


def compare(case: Case, ledger: Ledger, wanted: Wanted) -> None:
    with loaded(case) as backbone:
        scene = Scene(case, backbone, ledger)
        count = scene.steps if wanted.steps is None else max(1, min(wanted.steps, scene.steps))
        texts(scene)
        controls(scene)
        inversion(scene, count, wanted)
        if not case.about["fast"]:
            null_text.forced(scene, count, wanted.progress)
        source_stream(scene, count, wanted)
        if wanted.free and count == scene.steps:
            free(scene, wanted)
    ledger.remark(NOT_YET)


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


def controls(scene: Scene) -> None:
    """Word map, words' weights and windows, and the words of the masks."""
    case, about, source, target = scene.case, scene.case.about, scene.source, scene.target
    ours = word_map(source, target, control=about["control"], official=True)
    matrix, own = stored_map(case, "ctrl/")
    said = about.get("eq_params") or {"words": [], "values": []}
    weights = dict(zip(said["words"], said["values"], strict=True))
    alpha = gates(target, scene.steps, about["cross_replace_steps"], official=True).float()
    begun = {
        "mapper": furthest(ours.matrix, matrix),
        "own columns": furthest(ours.own, own),
        "equalizer": furthest(factors(target, weights, official=True), case["ctrl/equalizer"][0]),
        "cross_replace_alpha": furthest(alpha, case["ctrl/cross_replace_alpha"].flatten(1)[: scene.steps]),
    }
    for where, error in begun.items():
        scene.exactly("control tensors", where, error)
    window = case["ctrl/num_self_replace"].tolist()
    ours = [0, int(scene.steps * about["self_replace_steps"])]
    scene.exactly("control tensors", "num_self_replace", float(window != ours))
    for row, (text, word) in enumerate(zip((source, target), about["blend_word"] or (), strict=False)):
        theirs = case["ctrl/blend_alpha_layers"][row].flatten().nonzero().flatten().tolist()
        wrong = list(official_columns(text, word)) != theirs
        scene.exactly("control tensors", f"blend_alpha_layers {row}", float(wrong))


# --- inversion -------------------------------------------------------------------------------------------------


def inversion(scene: Scene, count: int, wanted: Wanted) -> None:
    case, times, path = scene.case, scene.times, scene.backbone.noise_path
    fed = case.about.get("timesteps_fed_to_unet", {}).get("inv", times)
    scene.exactly("times of the network", "inversion", float(fed != times))
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


# --- the source's stream of the edit ---------------------------------------------------------------------------


def source_stream(scene: Scene, count: int, wanted: Wanted) -> None:
    """Nothing controls it: its latents, and the part of the masks that its own words make."""
    case, kept = scene.case, Recording()
    latents, word = case.latents("edit/latents"), (case.about["blend_word"] or [""])[0]
    columns, layers = official_columns(scene.source, word), text_layers(scene.backbone.sites, (STRIDE,))
    keeps = [heat_of_words("word", columns, sites=layers, stream="source")] if columns else []
    taps = Taps(attention=recorder(keeps, kept))
    empty = scene.backbone.embed("").given
    for i in range(count):
        wanted.progress("the source's stream, step by step", i, count)
        place = scene.place(i)
        x = latents[i - 1, 0] if i else case.latents("edit/init_latents")
        streams: Mapping[str, Given] = {"null": scene.null(i), "uncond": empty, "source": scene.source.given}
        out = scene.backbone.predict(x.expand(3, *x.shape), place.t, streams, taps=taps)
        for row, stream in enumerate(streams if f"edit/unet_out/{i:02d}" in case else ()):
            theirs = case.latents(f"edit/unet_out/{i:02d}")[row]
            scene.judge("edit: network output", f"step {i} {stream}", out[row], theirs, "unet_out")
        guided = out[2] if case.about["fast"] else cfg(out[0], out[2], scene.guidance)
        made = scene.backbone.noise_path.step(x, guided, now=place.t, call=place.t, to=place.below)
        scene.judge("edit: the source's latents", f"step {i}", made, latents[i, 0])
        if keeps:
            masks(scene, i, running(kept, layers, place.t, "word"))


def masks(scene: Scene, i: int, heat: Tensor) -> None:
    case, name = scene.case, f"edit/blend_soft/step{i:02d}"
    if name not in case:
        return
    if i == scene.steps - 1:  # the stored map is called the first, and is the last: the sum over all steps
        scene.judge("edit: the source's word map", f"step {i}", heat, case["edit/blend_word_map_first"][0])
    soft, threshold = case[name][0], float(case.about["blend_threshold"][0])
    ours = Binarise("official", threshold=threshold)
    error = furthest(ours.soft(heat, *soft.shape[-2:]), soft)
    scene.ledger.note("edit: the source's soft masks", FORCED, f"step {i}", error, 1e-4)
    theirs = case[f"edit/blend_mask/step{i:02d}"][0].float()
    wrong = (ours.mask(heat, *soft.shape[-2:]) != theirs) & ((soft - threshold).abs() >= 1e-4)
    scene.exactly("edit: the source's masks, share wrong", f"step {i}", float(wrong.float().mean()))


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
