"""Cases of flow matching on a video transformer: FlowEdit, and Wan-Edit of FiVE-Bench."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from experiments.cli.quoting import quoted
from experiments.config.build import build
from experiments.config.compose import config_of, plain
from freemask.data.frames import FrameRange
from freemask.data.images import open_picture
from freemask.data.video import read_video
from freemask.diffusion.flow import SCHEDULERS
from freemask.diffusion.noise_paths import CLEAN
from freemask.errors import UserError
from freemask.methods.flow_edit import Comparing, FlowEdit, WanEdit
from freemask.methods.renoised import Held
from freemask.types import Clip, EditTask, Text, Time
from tests.official.case import Case
from tests.official.families import Wanted
from tests.official.ledger import FORCED, FREE, Ledger, relative

TIMES = 1e-6  # relative: times and levels are numbers in single precision


def compare(case: Case, ledger: Ledger, wanted: Wanted) -> None:
    lines = overrides(case)
    print(" ".join(lines))
    built = plain(config_of("edit", lines))
    method = build(built["method"], "method")
    method = method.settings() if isinstance(method, WanEdit) else method
    edit = Editing.of(case, build(built["model"], "model"), method)
    times(edit, ledger)
    texts(edit, ledger)
    encoded(edit, ledger)
    calls(edit, ledger)
    if "edit/final" in case:
        decoded(edit, case.latents("edit/final"), ledger, FORCED)
    forced(edit, list(edit.method.active)[: wanted.steps], ledger, wanted)
    if wanted.free and wanted.steps is None:
        free(edit, ledger, wanted)


def overrides(case: Case) -> list[str]:
    """The command that a user would give; the noise path is the case's, not that of the model's folder."""
    about, said = case.about, str(case.about["scheduler"])
    name = max((name for name in SCHEDULERS if name in said), key=len, default=None)
    shift = about.get("shift") or next(iter(re.findall(r"shift=([\d.]+)", said)), None)
    if name is None or shift is None:
        raise UserError("the case's noise path is not known", came=said, expected=", ".join(SCHEDULERS))
    return [
        *_method(about),
        "model=wan",
        quoted("model.path", str(case.model)),
        "model.device=cpu",
        f"model.dtype={about.get('dtype', 'float32')}",
        "model.text_dtype=null",
        f"model.grid={SCHEDULERS[name][0]}",
        f"model.shift={shift}",
    ]


def _method(about: Mapping[str, Any]) -> list[str]:
    steps = int(about["steps"])
    words = [f"method.steps={steps}", f"method.source_guidance={about['source_guidance']}"]
    words.append(quoted("method.negative", about.get("negative_prompt", "")))
    if "n_max" not in about:
        skipped, target = about["first_active_step"], about["target_guidance"]
        if (skipped, target) != (9, 12):  # whatever is asked for, the code has these
            raise UserError(
                "no case of Wan-Edit's code", came=f"step {skipped}, guidance {target}", expected="9, 12"
            )
        return ["method=wanedit", "method.variant=official", *words]
    shares = {"reach": int(about["n_max"]) / steps, "ending": int(about.get("n_min", 0)) / steps}
    words += [f"method.{name}={share}" for name, share in shares.items()]
    words.append(f"method.noises={about.get('n_avg', 1)}")
    return ["method=flowedit", *words, f"method.guidance={about['target_guidance']}"]


@dataclass(frozen=True)
class Editing:
    """A case with its network: what both methods share. Steps count from the noisy end."""

    case: Case
    backbone: Any
    method: FlowEdit
    levels: list[Time]
    prompts: dict[str, Text]

    @classmethod
    def of(cls, case: Case, backbone: Any, method: FlowEdit) -> "Editing":
        prompts = {
            name: backbone.embed(str(case.about.get(f"{name}_prompt", "")))
            for name in ("source", "target", "negative")
        }
        levels = [*reversed(backbone.noise_path.times(int(case.about["steps"]))), CLEAN]
        return cls(case, backbone, method, levels, prompts)

    @property
    def steps(self) -> int:
        return len(self.levels) - 1

    @property
    def limit(self) -> float:
        return self.case.number("teacher_forced_per_step", 1e-4)

    @property
    def size(self) -> list[int]:
        sides = self.case.latents("src/latents").shape[-2:]
        return [side * self.backbone.codec.vae.spatial_compression_ratio for side in sides]

    def drawing(self, i: int) -> Callable[[], Tensor]:
        """The stored draws of a step, one after the other."""
        names = sorted(self.case.names(f"edit/noise/{i:02d}/"), key=lambda name: int(name.split("/")[-1]))
        left = [self.case.latents(name) for name in names]

        def draw() -> Tensor:
            if not left:
                raise UserError("the case has too few draws for a step", came=self.case.path, expected=i)
            return left.pop(0)

        return draw


# --- what is common -------------------------------------------------------------------------------------------


def times(edit: Editing, ledger: Ledger) -> None:
    path = edit.backbone.noise_path
    told = torch.tensor([path.told(t) for t in edit.levels[:-1]], dtype=torch.float64)
    sigmas = torch.tensor([path.sigma(level) for level in edit.levels], dtype=torch.float64)
    for name, ours in (("timesteps", told), ("sigmas", sigmas)):
        if name in edit.case:
            ledger.note("times of the network", FORCED, name, relative(ours, edit.case[name]), TIMES)


def texts(edit: Editing, ledger: Ledger) -> None:
    case = edit.case
    for name, text in edit.prompts.items():
        if f"text/{name}/ids" in case:
            same = list(text.ids) == case[f"text/{name}/ids"].tolist()
            ledger.note("text: token ids", FORCED, name, 0.0 if same else 1.0, 0.0)
            error = relative(text.tokens, case[f"text/{name}/embeds"])
            ledger.note("text: embeddings", FORCED, name, error, edit.limit)


def encoded(edit: Editing, ledger: Ledger) -> None:
    """The clip itself, where it is at hand: beside the folder of the case, or below `clips` there."""
    case, latents = edit.case, edit.case.latents("src/latents")
    above = case.folder.parent
    named = [above / case.about["clip"], above / "clips" / case.about["clip"]]
    place = next((path for path in named if path.exists()), None)
    if place is None:
        ledger.remark(f"the clip {case.about['clip']} is not here: encoding is not compared")
        return
    frames = [scaled(picture, edit.size) for picture in pictures(place, case.about["frames"])]
    error = relative(edit.backbone.encode(torch.stack(frames)), latents)
    ledger.note("latents of the clip", FORCED, str(case.about["clip"]), error, edit.limit)


def pictures(place: Path, wanted: list[int]) -> Iterator[Image.Image]:
    if place.is_dir():
        found = sorted(each for each in place.iterdir() if each.suffix in (".jpg", ".png"))
        yield from (open_picture(found[i]).convert("RGB") for i in wanted)
    else:
        frames = read_video(place, frames=FrameRange(count=max(wanted) + 1)).frames
        yield from (
            Image.fromarray((frames[i] * 255).round().byte().permute(1, 2, 0).numpy()) for i in wanted
        )


def scaled(picture: Image.Image, size: list[int]) -> Tensor:
    small = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255


def calls(edit: Editing, ledger: Ledger) -> None:
    """Single calls of the network, under one prompt each."""
    for name in edit.case.names("edit/net_in/"):
        *_, step, _, stream = name.split("/")
        which, kind = stream.split("_")
        text = edit.prompts["negative" if kind == "uncond" else which]
        x, t = edit.case.latents(name), edit.levels[int(step)]
        ours = edit.backbone.predict(x[None], t, {stream: text.given})[0]
        stored = edit.case.latents(name.replace("net_in", "net_out"))
        ledger.note(
            "network calls", FORCED, name.removeprefix("edit/net_in/"), relative(ours, stored), edit.limit
        )


def decoded(edit: Editing, latents: Tensor, ledger: Ledger, mode: str) -> None:
    """Stored as bytes of every second pixel: what is left beyond the rounding to bytes counts."""
    if "edit/frames_u8_half" not in edit.case:
        return
    theirs = edit.case["edit/frames_u8_half"].permute(0, 3, 1, 2).double()
    ours = edit.backbone.decode(latents, len(theirs))[..., ::2, ::2].double() * 255
    beyond = ((ours - theirs).abs() - 0.5).clamp(min=0)
    limit = edit.limit if mode == FORCED else edit.case.number("free_run_final", 1e-3)
    ledger.note("frames, beyond rounding", mode, "decoded", float(beyond.norm() / theirs.norm()), limit)


# --- the methods ----------------------------------------------------------------------------------------------


def comparing(edit: Editing) -> Comparing:
    """An edit that begins at the case's latents, with its draws and its texts."""
    case, backbone = edit.case, edit.backbone
    clip = Clip("case", torch.zeros(int(len(case.about["frames"])), 3, *edit.size))
    task = EditTask("case", "case", case.about["source_prompt"], case.about["target_prompt"], {}, "shape")
    held = Held.of(backbone, clip, task, edit.steps, torch.Generator(), negative=edit.method.negative)
    held.clean = case.latents("src/latents")
    return Comparing.of(edit.method, held)


def forced(edit: Editing, steps: list[int], ledger: Ledger, wanted: Wanted) -> None:
    """Each step from the stored latent; what a solver remembers is its own."""
    latents, made = edit.case.latents("edit/latents"), comparing(edit)
    if wanted.steps is None:
        steps = [*steps, *range(edit.method.active.stop, edit.steps)]
    for done, i in enumerate(steps):
        wanted.progress("editing, step by step", done, len(steps))
        made.held.draw = edit.drawing(i)
        if f"edit/delta/{i:02d}" in edit.case:
            ours, name = made.difference(latents[i], edit.drawing(i)(), i), f"edit/delta/{i:02d}"
            ledger.note("edit: velocities", FORCED, name, relative(ours, edit.case.latents(name)), edit.limit)
        error = relative(made.step(latents[i], i), latents[i + 1])
        ledger.note("edit: latents", FORCED, f"step {i}", error, edit.limit)


def free(edit: Editing, ledger: Ledger, wanted: Wanted) -> None:
    stored, limit = edit.case.latents("edit/latents"), edit.case.number("free_run_final", 1e-3)
    made, x = comparing(edit), edit.case.latents("src/latents")
    for i in range(edit.method.active.start, edit.steps):
        wanted.progress("editing", i, edit.steps)
        made.held.draw = edit.drawing(i)
        x = made.step(x, i)
        ledger.note("edit: latents", FREE, f"step {i}", relative(x, stored[i + 1]), limit)
    decoded(edit, x, ledger, FREE)
