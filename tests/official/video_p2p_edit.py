"""The edit of a Video-P2P case by our method: every step from the stored latents, texts and masks before it, and all
steps on their own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from experiments.config.build import build
from experiments.config.compose import config_of, plain
from freemask.attention.record import Recording, recorder
from freemask.diffusion.inversions import walk
from freemask.diffusion.null_text import Nulls
from freemask.diffusion.reconstruction import Reconstruction
from freemask.masks.plan import Keeps, Subject
from freemask.methods.common import Stopwatch
from freemask.methods.editing import Editing
from freemask.methods.null_text_p2p import NullTextP2P
from freemask.types import Clip, EditTask, Progress, Taps
from tests.official import null_text, video_p2p_slices
from tests.official.case import Edit, stored_map
from tests.official.editing import step
from tests.official.ledger import FORCED, FREE, furthest, relative
from tests.official.overrides import mask_overrides, pairs
from tests.official.tuned import Scene
from tests.official.video_p2p_masks import StoredMasks
from tests.official.workshop import Watched

DOWN = 4  # frames are stored as every fourth pixel


@dataclass(frozen=True)
class Job:
    """A case's edit as a user would configure it."""

    scene: Scene
    backbone: Watched
    source: Recording = field(default_factory=Recording)  # of the reconstruction's attention

    @cached_property
    def edit(self) -> Edit:
        about = self.scene.case.about
        said = {
            "blend_words": about.get("blend_word"),
            "blend_th": about["blend_threshold"],
            "eq_params": about.get("eq_params"),
            "cross_replace_steps": about["cross_replace_steps"],
        }
        return Edit("edit", about["source_prompt"], about["target_prompt"], said, controlled=True)

    @cached_property
    def method(self) -> NullTextP2P:
        lines = edit_lines(self.scene, self.edit)
        return build(plain(config_of("edit", lines))["method"], "method")

    @cached_property
    def subject(self) -> Subject:
        edit, latents = self.edit, self.scene.case.latents("inv/latents")[0]
        frames = torch.zeros(len(latents), 3, 8 * latents.shape[-2], 8 * latents.shape[-1])
        task = EditTask("edit", "case", edit.source, edit.target, edit.words, edit.kind)
        return Subject.of(self.backbone, Clip("case", frames), task, self.scene.times)

    @property
    def keeps(self) -> Keeps:
        used = self.method.fusion.uses_masks(self.edit.kind) and self.edit.blend_words is not None
        return self.method.mask.keeps(self.subject) if used else Keeps()

    def editing(self, path: Reconstruction, progress: Progress) -> Editing:
        nulls = Nulls({t: self.scene.null(i) for i, t in enumerate(path.times[::-1])}, path)
        return self.method.editing(
            self.backbone, self.subject, nulls, Stopwatch(self.backbone.device), progress
        )


def edit_lines(scene: Scene, edit: Edit) -> list[str]:
    """What a user types beside the model."""
    about, windows = scene.case.about, f"fusion.windows.{edit.kind}"
    share, words = edit.windows()
    return [
        "method=video_p2p",
        f"method.steps={scene.steps}",
        f"method.guidance={scene.guidance}",
        *(["method.source_guidance=1"] if about["fast"] else []),
        f"task={edit.kind}",
        f"fusion.control={about['control']}",
        f"{windows}.cross={share}",
        f"{windows}.temporal={about['self_replace_steps']}",
        *pairs("fusion.reweight", edit.weights),
        *pairs("fusion.word_windows", words),
        *mask_overrides(edit, "p2p"),
        *(["mask.strides=[4]"] if edit.blend_words else []),
    ]


# --- step by step ----------------------------------------------------------------------------------------------


def forced(scene: Scene, count: int, progress: Progress) -> None:
    job, case = Job(scene, Watched(scene.backbone)), scene.case
    print("  with " + " ".join(edit_lines(scene, job.edit)))
    latents, begun = case.latents("edit/latents"), case.latents("edit/init_latents")
    path = Reconstruction([*latents[:, 0].flip(0), begun], scene.times)
    editing = job.editing(path, progress)
    stored = StoredMasks(scene, job.edit, editing.masks)
    if editing.masks is not None:
        editing.masks = stored.plan()
    controls(job, editing)
    own, slices = list(editing.keeps), video_p2p_slices.stored(scene, job.subject)
    taps = Taps(
        attention=recorder([*job.keeps.source, *(each.plain("source") for each in slices)], job.source)
    )
    walk(job.backbone, path, job.subject.given["source"], taps, progress=progress)
    for i in range(count):
        progress("the edit, step by step", i, count)
        x, here = latents[i - 1, 1] if i else begun, [each for each in slices if each.i == i]
        editing.keeps = [*own, *(each.keep(editing) for each in here)]
        raw, made = step(editing, x, i)
        outputs(job, i)
        if f"edit/latents_before_blend/{i:02d}" in case:
            theirs = case.latents(f"edit/latents_before_blend/{i:02d}")
            scene.judge("edit: latents before blending", f"step {i} source", source_step(scene, i), theirs[0])
            scene.judge("edit: latents before blending", f"step {i}", raw, theirs[1])
        scene.judge("edit: the source's latents", f"step {i}", source_step(scene, i), latents[i, 0])
        scene.judge("edit: the target's latents", f"step {i}", made, latents[i, 1])
        for each in here:
            each.judge(scene, job.source, editing.target)
        stored.judge(i)
    if count == scene.steps:
        stored.judge_word_maps(job.keeps, job.source, editing.target)
        frames(scene, latents[-1])


def source_step(scene: Scene, i: int) -> Tensor:
    """Of the reconstruction, under the stored text."""
    case = scene.case
    x = case.latents("edit/latents")[i - 1, 0] if i else case.latents("edit/init_latents")
    return null_text.descent(scene, inner=0).step(scene.place(i), x, x, scene.null(i))[1]


def outputs(job: Job, i: int) -> None:
    """Stored in the order: uncond source, uncond target, source, target."""
    scene, name = job.scene, f"edit/unet_out/{i:02d}"
    if name not in scene.case:
        return
    theirs, seen = scene.case.latents(name), dict(job.backbone.last)
    x = scene.case.latents("edit/latents")[i - 1, 0] if i else scene.case.latents("edit/init_latents")
    streams = {"null": scene.null(i), "source": scene.source.given}
    alone = scene.backbone.predict(x.expand(2, *x.shape), scene.place(i).t, streams)
    ours = {"null": alone[0], "uncond": seen["uncond"], "source": alone[1], "cond": seen["cond"]}
    for row, (stream, out) in enumerate(ours.items()):
        scene.judge("edit: network output", f"step {i} {stream}", out, theirs[row], "unet_out")


def controls(job: Job, editing: Editing) -> None:
    """Word map, words' weights and windows, and the words of the masks, as our edit uses them."""
    scene, case, policies = job.scene, job.scene.case, editing.policies.attention
    cross: Any = policies["cross"]
    matrix, own = stored_map(case, "ctrl/")
    gates = case["ctrl/cross_replace_alpha"].flatten(1)[: scene.steps]
    begin, end = case["ctrl/num_self_replace"].tolist()
    awake = [policies["temporal"].awake(i) == (begin <= i < end) for i in range(scene.steps)]
    for where, error in {
        "mapper": furthest(cross.words.matrix, matrix),
        "own columns": furthest(cross.words.own, own),
        "equalizer": furthest(cross.factors, case["ctrl/equalizer"][0]),
        "cross_replace_alpha": furthest(cross.gates.float(), gates),
        "num_self_replace": float(not all(awake)),
    }.items():
        scene.exactly("control tensors", where, error)
    if "ctrl/blend_alpha_layers" in case:
        rows = case["ctrl/blend_alpha_layers"].flatten(1)
        for row, side in enumerate((job.keeps.source, job.keeps.target)):
            theirs = set(rows[row].nonzero().flatten().tolist())
            ours = {column for each in side for column in (each.heat.columns if each.heat else ())}
            scene.exactly("control tensors", f"blend_alpha_layers {row}", float(ours != theirs))


def frames(scene: Scene, latents: Tensor) -> None:
    """Stored as bytes: what is left beyond the rounding counts."""
    if "edit/frames_u8_down4" not in scene.case:
        return
    theirs = scene.case["edit/frames_u8_down4"].movedim(-1, -3).double()
    for row, name in enumerate(("source", "target")):
        ours = scene.backbone.decode(latents[row])[..., DOWN // 2 :: DOWN, DOWN // 2 :: DOWN].double() * 255
        beyond = ((ours - theirs[row]).abs() - 0.5).clamp(min=0)
        error, limit = float(beyond.norm() / theirs[row].norm()), scene.case.number("teacher_forced", 1e-4)
        scene.ledger.note("edit: frames, beyond rounding", FORCED, name, error, limit)


# --- on its own ------------------------------------------------------------------------------------------------


def free(scene: Scene, progress: Progress) -> None:
    """From the stored inverted latent under the stored texts; judged as long as no pixel of a mask differs."""
    case, job = scene.case, Job(scene, Watched(scene.backbone))
    x = case.latents("edit/init_latents")
    down = [x]
    for i in range(scene.steps):
        place = scene.place(i)
        down.append(null_text.descent(scene, inner=0).step(place, down[-1], down[-1], scene.null(i))[1])
    editing = job.editing(Reconstruction(down[::-1], scene.times), progress)
    stored, limit = StoredMasks(scene, job.edit, editing.masks), leading(case.about, "edit_free_running")
    for i in range(scene.steps):
        progress("the edit, on its own", i, scene.steps)
        _, x = step(editing, x, i)
        if limit is not None and stored.flipped(i):
            scene.ledger.remark(f"on its own, a pixel of the mask differs at step {i}: not judged from there")
            limit = None
        for row, ours in enumerate((down[i + 1], x)):
            error = relative(ours, case.latents("edit/latents")[i, row])
            scene.ledger.note(
                f"edit: latents of {('source', 'target')[row]}", FREE, f"step {i}", error, limit
            )


def leading(about: Mapping[str, Any], key: str, default: float = 1e-3) -> float | None:
    """The number that a tolerance in words begins with."""
    said = str(about.get("tolerance", {}).get(key, default)).split()
    return float(said[0])
