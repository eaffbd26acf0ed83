"""One stored edit against ours: every step from the stored latent and masks before it, and all steps on their own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from freemask.attention.record import Keep, Recording
from freemask.diffusion.noise_paths import CLEAN
from freemask.methods.editing import Editing
from freemask.types import Progress
from tests.official.case import as_map
from tests.official.ledger import FORCED, FREE, Ledger, furthest, relative
from tests.official.masks import compare_masks, stored_plan
from tests.official.slices import fused_keep, keep, layers, stored
from tests.official.workshop import Job, masked_by


def forced(job: Job, source: Recording, ledger: Ledger, steps: int, progress: Progress) -> None:
    case, name = job.case, job.edit.name
    trajectory = list(case.latents("inv/latents"))
    editing = job.begin(trajectory, source)
    own, plan = editing.keeps, editing.masks
    if plan is not None:
        editing = masked_by(editing, stored_plan(job, plan, ledger))
    controls(job, editing, ledger)
    latents, limit = case.latents(f"{name}/latents"), case.number("teacher_forced", 1e-4)
    for i in range(steps):
        progress(f"{name}, step by step", i, steps)
        x = latents[i - 1] if i else case.latents(f"{name}/init_latents")
        editing.keeps = [*own, *slice_keeps(job, editing, i)]
        raw, made = step(editing, x, i)
        outputs(job, i, ledger)
        if f"{name}/latents_before_blend/{i:02d}" in case:
            before = case.latents(f"{name}/latents_before_blend/{i:02d}")
            ledger.note(f"{name}: latents before blending", FORCED, f"step {i}", relative(raw, before), limit)
        ledger.note(f"{name}: latents", FORCED, f"step {i}", relative(made, latents[i]), limit)
        compare_masks(job, plan, i, ledger, FORCED)
        compare_slices(job, editing, i, ledger)
    if steps == case.steps:
        compare_frames(job, latents[-1], ledger, FORCED, limit)


def free(job: Job, ledger: Ledger, progress: Progress) -> Sequence[Tensor]:
    """The edit as a user gets it, from the stored clean latents; answers its inversion's latents."""
    case, name = job.case, job.edit.name
    editing = job.begin([case.latents("inv/latents")[0]], progress=progress)
    latents = case.latents(f"{name}/latents")
    limit = case.number("final_free_running", 2e-2)
    x = editing.inversion.latents[-1]
    for i in range(case.steps):
        progress(f"{name}, on its own", i, case.steps)
        _, x = step(editing, x, i)
        last = i == case.steps - 1
        group = f"{name}: {'final latents' if last else 'latents on the way'}"
        ledger.note(group, FREE, f"step {i}", relative(x, latents[i]), limit if last else None)
        compare_masks(job, editing.masks, i, ledger, FREE)
    compare_frames(job, x, ledger, FREE, limit)
    return editing.inversion.latents


def step(editing: Editing, x: Tensor, i: int) -> tuple[Tensor, Tensor]:
    """Before and after latent blending."""
    times = list(editing.subject.times)
    place = len(times) - 1 - i
    t, below = times[place], times[place - 1] if place else CLEAN
    raw = editing.backbone.noise_path.step(x, editing.predict(x, t), now=t, call=t, to=below)
    blended = editing.after(raw, i, t)
    return raw, raw if blended is None else blended


# --- controls, slices, outputs, frames ------------------------------------------------------------------------


def controls(job: Job, editing: Editing, ledger: Ledger) -> None:
    """The word map, word windows, weights and columns that our edit uses, exactly."""
    case, name = job.case, job.edit.name
    policies: Mapping[str, Any] = editing.policies.attention
    cross, group = policies.get("cross"), f"{name}: control tensors"
    stored_map = as_map(case, job.edit)
    if stored_map is not None and cross is not None:
        ledger.note(group, FORCED, "mapper", furthest(cross.words.matrix, stored_map[0]), 0.0)
        ledger.note(group, FORCED, "own columns", furthest(cross.words.own, stored_map[1]), 0.0)
        gates = case[f"{name}/ctrl/cross_replace_alpha"].flatten(1)[: case.steps]
        ledger.note(group, FORCED, "cross_replace_alpha", furthest(cross.gates.float(), gates), 0.0)
        weights = torch.ones(gates.shape[-1])
        if f"{name}/ctrl/equalizer" in case:
            weights = case[f"{name}/ctrl/equalizer"][0]
        ledger.note(group, FORCED, "equalizer", furthest(cross.factors, weights), 0.0)
    elif stored_map is not None:
        ledger.note(group, FORCED, "our edit fuses no text attention", 1.0, 0.0)
    said = (case.about.get("controllers") or {}).get(name, {})
    for kind, key in (("self", "num_self_replace"), ("temporal", "num_temp_replace")):
        if key in said and kind in policies:
            begin, end = said[key]
            begin += kind == "temporal" and not said.get("key_value_replace", False)
            theirs = [begin <= i < end for i in range(case.steps)]
            ours = [policies[kind].awake(i) for i in range(case.steps)]
            ledger.note(group, FORCED, f"steps of {kind} attention", float(ours != theirs), 0.0)
    columns(job, editing, ledger)


def columns(job: Job, editing: Editing, ledger: Ledger) -> None:
    keeps = job.keeps(editing.subject)
    for blend, side, row in (
        ("attention_blend", keeps.source, 0),
        ("latent_blend", keeps.source, 0),
        ("latent_blend", keeps.target, 1),
    ):
        key = f"{job.edit.name}/ctrl/{blend}/alpha_layers"
        if key in job.case:
            theirs = set(job.case[key][row].flatten().nonzero().flatten().tolist())
            ours = {column for each in side for column in (each.heat.columns if each.heat else ())}
            where = f"{blend}/alpha_layers {row}"
            ledger.note(f"{job.edit.name}: control tensors", FORCED, where, float(ours != theirs), 0.0)


def slice_keeps(job: Job, editing: Editing, i: int) -> list[Keep]:
    """The layers' own maps before fusion, and the fused ones. Where queries and keys are mixed, the authors' hook
    sees temporal maps only after that."""
    found: list[Keep] = []
    for each in stored_at(job, i):
        mixed = job.edit.by_keys and "temp_self" in each.name
        if "/attn_after/" in each.name or mixed:
            found.append(fused_keep(each, editing.fusing(i)))
        else:
            found.append(keep(each, "cond"))
    return found


def stored_at(job: Job, i: int) -> list:
    case, name = job.case, job.edit.name
    known = layers(job.backbone.sites, *case.tensors["inv/latents"]["shape"][-2:])
    names = [n for part in ("attn_before", "attn_after", "kv_before") for n in case.names(f"{name}/{part}/")]
    return stored(names, known, {i: job.time_of(i)})


def compare_slices(job: Job, editing: Editing, i: int, ledger: Ledger) -> None:
    """Judged as one tensor per step and kind: behind forty layers, rounding alone makes 1e-4 of a single thin slice
    (the stored ones lie 8e-5 off what double precision gives). A wrong layer would stand out a hundredfold."""
    name, limit = job.edit.name, job.case.number("teacher_forced", 1e-4)
    kinds: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for each in stored_at(job, i):
        found = editing.target.all(each.name) or editing.target.all(f"{each.name} fused")
        ours, theirs, kind = found[each.site, each.t], job.case[each.name], each.name.split("/")[1]
        where = each.name.removeprefix(f"{name}/{kind}/")
        ledger.note(f"{name}: {kind}, single slices", FORCED, where, relative(ours, theirs), None)
        kinds.setdefault(kind, []).append((ours.flatten(), theirs.flatten()))
    for kind, pairs in kinds.items():
        ours, theirs = (torch.cat(list(side)) for side in zip(*pairs, strict=True))
        ledger.note(f"{name}: {kind} slices", FORCED, f"step {i}", relative(ours, theirs), limit)
    if next(job.case.names(f"{name}/kv_after/"), None):
        ledger.remark(
            "kv_after: mixed queries and keys are judged by the maps they make (temporal attn_after)"
        )


def outputs(job: Job, i: int, ledger: Ledger) -> None:
    key = f"{job.edit.name}/unet_out/{i:02d}"
    if key not in job.case:
        return
    for row, stream in enumerate(("uncond", "cond")):
        error = relative(job.backbone.last[stream], job.case.latents(key)[row])
        limit = job.case.number("teacher_forced", 1e-4)
        ledger.note(f"{job.edit.name}: network output", FORCED, f"step {i} {stream}", error, limit)


def compare_frames(job: Job, latents: Tensor, ledger: Ledger, mode: str, limit: float) -> None:
    """Stored as bytes of every eighth pixel: what is left beyond the rounding to bytes counts."""
    key = f"{job.edit.name}/frames_u8_down8"
    if key not in job.case:
        return
    theirs = job.case[key].permute(0, 3, 1, 2).double()
    ours = job.backbone.decode(latents)[..., 4::8, 4::8].double() * 255
    beyond = ((ours - theirs).abs() - 0.5).clamp(min=0)
    error = float(beyond.norm() / theirs.norm())
    ledger.note(f"{job.edit.name}: frames, beyond rounding", mode, "decoded", error, limit)
