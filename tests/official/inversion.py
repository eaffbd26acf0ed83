"""The stored inversion against ours: from the stored latents, one step each, and from the clean ones all the way."""

from collections.abc import Collection, Sequence

from torch import Tensor

from freemask.attention.record import Keep, Recording, recorder
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert
from freemask.diffusion.noise_paths import CLEAN
from freemask.types import Progress, Taps, Text
from tests.official.case import Case
from tests.official.ledger import FORCED, FREE, Ledger, relative
from tests.official.slices import keep, layers, stored
from tests.official.workshop import Watched

Wishes = Sequence[tuple[Sequence[Keep], Recording]]


def texts(case: Case, backbone: Watched, ledger: Ledger) -> None:
    """Token ids exactly, embeddings within the limit; behind the end mark stands padding."""
    prompts = {"source": case.about["source_prompt"]}
    prompts |= {f"edit{i}": prompt for i, prompt in enumerate(case.about.get("editing_prompts") or ())}
    for name, prompt in prompts.items():
        if f"text/{name}/ids" not in case:
            continue
        made, ids = backbone.embed(prompt), case[f"text/{name}/ids"].tolist()
        same = list(made.ids) == ids[: made.length] and len({*ids[made.length :]}) <= 1
        ledger.note("text: token ids", FORCED, name, 0.0 if same else 1.0, 0.0)
        both = {"uncond": backbone.embed(""), "cond": made}
        for row, (which, text) in enumerate(both.items()):
            error = relative(text.tokens, case[f"text/{name}/uncond_cond"][row])
            limit = case.number("teacher_forced", 1e-4)
            ledger.note("text: embeddings", FORCED, f"{name} {which}", error, limit)


def times_of(case: Case, backbone: Watched, ledger: Ledger) -> list[int]:
    times = backbone.noise_path.times(case.steps)
    same = times == sorted(case["inv/timesteps"].tolist())
    ledger.note("times of the network", FORCED, "inversion", 0.0 if same else 1.0, 0.0)
    return times


def forced(
    case: Case, backbone: Watched, ledger: Ledger, wishes: Wishes, only: Collection[int], progress: Progress
) -> None:
    """One step from each stored latent; records the wishes, and compares the slices that are stored."""
    latents, times = case.latents("inv/latents"), times_of(case, backbone, ledger)
    limit, slices = case.number("teacher_forced", 1e-4), Recording()
    known = layers(backbone.sites, *latents.shape[-2:])
    moments = {j: t for j, t in enumerate(times) if j in only}
    part = stored([*case.names("inv/attn/"), *case.names("inv/kv/")], known, moments)
    full = stored(case.names("inv/attn_full/"), known, moments)
    keeps = [keep(each, "source") for each in part]
    keeps += [keep(each, "source", full=case[each.name].shape[-1]) for each in full]
    tap = recorder(keeps, slices)
    for wish, into in wishes:
        tap = recorder(wish, into, then=tap)
    text = backbone.embed(case.about["source_prompt"])
    predict = guided(backbone, text, taps=Taps(attention=tap), stream="source")
    for done, (j, t) in enumerate(moments.items()):
        progress("inversion, step by step", done, len(moments))
        out = predict(latents[j], t)
        if f"inv/unet_out/{j:02d}" in case:
            error = relative(out, case.latents(f"inv/unet_out/{j:02d}")[0])
            ledger.note("inversion: network output", FORCED, f"step {j}", error, limit)
        made = backbone.noise_path.step(latents[j], out, now=times[j - 1] if j else CLEAN, call=t, to=t)
        ledger.note("inversion: latents", FORCED, f"step {j}", relative(made, latents[j + 1]), limit)
    for each in [*part, *full]:
        group = (
            "word maps" if each in full else "query and key slices" if "/kv/" in each.name else "map slices"
        )
        ours = slices.all(each.name)[each.site, each.t]
        error = relative(ours, case[each.name])
        ledger.note(f"inversion: {group}", FORCED, each.name.removeprefix("inv/"), error, limit)


def compare_free(case: Case, latents: Sequence[Tensor], ledger: Ledger) -> None:
    limit = case.number("inversion_free_running", 1e-3)
    for j, own in enumerate(case.latents("inv/latents")):
        if j:
            ledger.note("inversion: latents", FREE, f"step {j - 1}", relative(latents[j], own), limit)


def free(case: Case, backbone: Watched, text: Text, taps: Taps, progress: Progress) -> list[Tensor]:
    call = guided(backbone, text, taps=taps, stream="source")
    return invert(backbone, case.latents("inv/latents")[0], call, case.steps, progress=progress)
