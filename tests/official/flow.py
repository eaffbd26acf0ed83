"""Cases of flow matching on a video transformer: FlowEdit, and Wan-Edit of FiVE-Bench."""

import re
from collections.abc import Iterator
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
from freemask.diffusion.guidance import guided
from freemask.diffusion.noise_paths import CLEAN
from freemask.errors import UserError
from freemask.types import Text, Time
from tests.official.case import Case
from tests.official.families import Wanted
from tests.official.ledger import FORCED, FREE, Ledger, relative

TIMES = 1e-6  # relative: times and levels are numbers in single precision


def compare(case: Case, ledger: Ledger, wanted: Wanted) -> None:
    lines = overrides(case)
    print(" ".join(lines))
    edit = Editing.of(case, build(plain(config_of("edit", lines))["model"], "model"))
    times(edit, ledger)
    texts(edit, ledger)
    encoded(edit, ledger)
    calls(edit, ledger)
    if "edit/final" in case:
        decoded(edit, case.latents("edit/final"), ledger, FORCED)
    steps = list(edit.active)[: wanted.steps]
    if "n_max" in case.about:
        flow_edit(edit, steps, ledger, wanted)
        if wanted.free and wanted.steps is None:
            flow_edit_free(edit, ledger, wanted)
    else:
        velocities(edit, steps, ledger, wanted)
        ledger.remark(
            f"the {case.about.get('solver')} step cannot be run yet: each step starts where it is stored"
        )


def overrides(case: Case) -> list[str]:
    """The model that a user would name; the noise path is the case's, not that of the model's folder."""
    said = str(case.about["scheduler"])
    name = max((name for name in SCHEDULERS if name in said), key=len, default=None)
    shift = case.about.get("shift") or next(iter(re.findall(r"shift=([\d.]+)", said)), None)
    if name is None or shift is None:
        raise UserError("the case's noise path is not known", came=said, expected=", ".join(SCHEDULERS))
    return [
        "model=wan",
        quoted("model.path", str(case.model)),
        "model.device=cpu",
        f"model.dtype={case.about.get('dtype', 'float32')}",
        "model.text_dtype=null",
        f"model.grid={SCHEDULERS[name][0]}",
        f"model.shift={shift}",
    ]


@dataclass(frozen=True)
class Editing:
    """A case with its network: what both methods share. Steps count from the noisy end."""

    case: Case
    backbone: Any
    levels: list[Time]
    prompts: dict[str, Text]

    @classmethod
    def of(cls, case: Case, backbone: Any) -> "Editing":
        prompts = {
            name: backbone.embed(str(case.about.get(f"{name}_prompt", "")))
            for name in ("source", "target", "negative")
        }
        levels = [*reversed(backbone.noise_path.times(int(case.about["steps"]))), CLEAN]
        return cls(case, backbone, levels, prompts)

    @property
    def steps(self) -> int:
        return len(self.levels) - 1

    @property
    def active(self) -> range:
        """The steps in which source and target are compared."""
        about = self.case.about
        if "n_max" in about:
            return range(max(0, self.steps - int(about["n_max"])), self.steps - int(about.get("n_min", 0)))
        return range(int(about["first_active_step"]), self.steps)

    @property
    def limit(self) -> float:
        return self.case.number("teacher_forced_per_step", 1e-4)

    def velocity(self, which: str, x: Tensor, i: int) -> Tensor:
        guidance = float(self.case.about[f"{which}_guidance"])
        predict = guided(self.backbone, self.prompts[which], guidance, uncond=self.prompts["negative"])
        return predict(x, self.levels[i])

    def difference(self, z: Tensor, source: Tensor, i: int) -> Tensor:
        """Target velocity less source velocity: the target's latent is as far from the noisy source as z from the
        clean one."""
        zt = z + source - self.case.latents("src/latents")
        return self.velocity("target", zt, i) - self.velocity("source", source, i)

    def draws(self, i: int) -> list[Tensor]:
        names = sorted(self.case.names(f"edit/noise/{i:02d}/"), key=lambda name: int(name.split("/")[-1]))
        if not names:
            raise UserError("the case has no noise for a step that needs it", came=self.case.path, expected=i)
        return [self.case.latents(name) for name in names]

    def moved(self, x: Tensor, velocity: Tensor, i: int) -> Tensor:
        now, to = self.levels[i], self.levels[i + 1]
        return self.backbone.noise_path.step(x, velocity, now=now, call=now, to=to)


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
    size = [side * edit.backbone.codec.vae.spatial_compression_ratio for side in latents.shape[-2:]]
    frames = [scaled(picture, size) for picture in pictures(place, case.about["frames"])]
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


# --- the two methods ------------------------------------------------------------------------------------------


def flow_edit_step(edit: Editing, z: Tensor, i: int) -> Tensor:
    """One step with the stored draws. After `active` the target alone is sampled, from a noisy source shifted once."""
    path, clean, last = edit.backbone.noise_path, edit.case.latents("src/latents"), edit.active.stop
    noisy = [path.noised(clean, draw, edit.levels[i]) for draw in (edit.draws(i) if i <= last else ())]
    if i in edit.active:
        return edit.moved(z, torch.stack([edit.difference(z, each, i) for each in noisy]).mean(0), i)
    x = z + noisy[0] - clean if noisy else z
    return edit.moved(x, edit.velocity("target", x, i), i)


def flow_edit(edit: Editing, steps: list[int], ledger: Ledger, wanted: Wanted) -> None:
    """Each step from the stored latent."""
    latents = edit.case.latents("edit/latents")
    if wanted.steps is None:
        steps = [*steps, *range(edit.active.stop, edit.steps)]
    for done, i in enumerate(steps):
        wanted.progress("editing, step by step", done, len(steps))
        made = flow_edit_step(edit, latents[i], i)
        ledger.note("edit: latents", FORCED, f"step {i}", relative(made, latents[i + 1]), edit.limit)


def flow_edit_free(edit: Editing, ledger: Ledger, wanted: Wanted) -> None:
    stored, limit = edit.case.latents("edit/latents"), edit.case.number("free_run_final", 1e-3)
    x = edit.case.latents("src/latents")
    for i in range(edit.active.start, edit.steps):
        wanted.progress("editing", i, edit.steps)
        x = flow_edit_step(edit, x, i)
        ledger.note("edit: latents", FREE, f"step {i}", relative(x, stored[i + 1]), limit)
    decoded(edit, x, ledger, FREE)


def velocities(edit: Editing, steps: list[int], ledger: Ledger, wanted: Wanted) -> None:
    """Wan-Edit: the source is brought to the level of the step before, as the whole time that the network was told."""
    case, path = edit.case, edit.backbone.noise_path
    latents, clean = case.latents("edit/latents"), case.latents("src/latents")
    for done, i in enumerate(steps):
        wanted.progress("editing, step by step", done, len(steps))
        source = path.noised(clean, edit.draws(i)[0], path.told(edit.levels[i - 1]))
        ours, name = edit.difference(latents[i], source, i), f"edit/delta/{i:02d}"
        ledger.note("edit: velocities", FORCED, name, relative(ours, case.latents(name)), edit.limit)
