"""`freemask tune`: tune a model on one clip and leave the weights, for edits with `tuning.path=FOLDER`."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig
from safetensors.torch import save_file

from experiments.cli.verb import EDIT, PATHS, Verb
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.config.options import Keys
from experiments.figures.errors import curve
from experiments.jobs.attempt import Attempt, measured
from experiments.jobs.edit import fit, made_on, model_of
from experiments.jobs.one_clip import Wish, read
from experiments.runs.progress import reporting
from experiments.runs.rows import Row, file_name
from freemask.data.frames import FrameRange
from freemask.data.geometry import Geometry
from freemask.data.one import OneClip
from freemask.data.task_fill import slug
from freemask.errors import UserError
from freemask.tuning.recipe import Learnt, NoTuning, Recipe
from freemask.types import EditTask, Progress

VERB = Verb(
    "tune a model on one clip and keep the weights, for any number of edits",
    prompts=("source", *EDIT),
    paths=("clip", "out", *PATHS),
    positional="clip",
    works_on_files=True,
    examples=(
        "freemask tune",
        'freemask tune my.mp4 --source "a man is skiing" out=skiing',
        "freemask tune my.mp4 --source 'a cat' model=sd15 tuning.checkpointing=true tuning.steps=300",
        "freemask tune method=video_p2p",
        "freemask tune method=freemask tuning=lora",
    ),
    notes=(
        "freemask edit ... tuning.path=FOLDER edits with what is left there, by the method for which it was tuned",
        "(method=...: whom frames look at). Methods tune by themselves too, and keep it: this is for weights to keep.",
    ),
)
WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")  # where checkpoints of diffusers have them


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/tune.yaml."""

    clip: str | None
    source: str | None
    out: str | None
    frames: int | None
    start: int
    stride: int
    size: int | Sequence[int] | None
    crop: str

    def wish(self) -> Wish:
        short, sides = (self.size, (None, None)) if isinstance(self.size, int | None) else (None, self.size)
        geometry = Geometry(short_side=short, height=sides[0], width=sides[1], crop=self.crop)
        frames = FrameRange(start=self.start, stride=self.stride, count=self.frames)
        # One prompt is all that tuning needs.
        return Wish(self.clip, self.source, self.source, None, "style", geometry, frames)


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options, recipe = Options.of(config), build(config["tuning"], "tuning")
    if isinstance(recipe, NoTuning) or recipe.path is not None:
        came = "tuning=none" if isinstance(recipe, NoTuning) else f"tuning.path={recipe.path}"
        raise UserError("there is nothing to tune", came=came, expected="such as tuning=tune_a_video")
    task, data = options.wish().task(lambda: build(config["data"], "data"))
    folder = _folder(config, options, task)
    attempt = Attempt(cast(Row, {"task": task.id}))
    with reporting(1) as reporter:
        reporter.busy("loading the model")
        backbone = model_of(config)
        if isinstance(data, OneClip):
            data = read(data, options.frames, backbone)
        fit(data, backbone)
        clip = data.clip(task)
        recipe.check(task, lambda: clip)
        attempt.tell(**made_on(backbone), frames=list(clip.frames.shape), source=task.source)
        with measured(attempt, backbone.device), attempt.timed("tuning"):
            learnt = _learnt(recipe, backbone, clip, task, reporter.stage)
    leave(folder, learnt, attempt.row)
    print("\n".join(_said(folder, learnt, attempt.row, config, flags["choices"], options)))
    return 0


def _learnt(recipe: Recipe, backbone: Any, clip: Any, task: EditTask, progress: Progress) -> Learnt:
    with recipe.on(backbone, clip, task, progress) as learnt:
        return learnt


def leave(folder: Path, learnt: Learnt, row: Mapping[str, Any]) -> None:
    """Weights as the released codes lay them, what is known of them, and the curve of the error."""
    (folder / WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
    whole = {name: value.detach().contiguous().cpu() for name, value in learnt.weights.items()}
    save_file(whole, folder / WEIGHTS, dict(learnt.about))
    about = {name: value for name, value in learnt.about.items() if name not in ("errors", "recipe")}
    about |= {"recipe": json.loads(learnt.about["recipe"]), **row}
    (folder / "tuning.json").write_text(json.dumps(about, indent=1, default=str) + "\n", encoding="utf-8")
    curve(json.loads(learnt.about["errors"]), folder / "errors.png")


def _folder(config: Mapping[str, Any], options: Options, task: EditTask) -> Path:
    if options.out is None:
        name = file_name(slug(Path(task.clip).name))
        return Path(config["paths"]["tuned"]).expanduser() / name
    place = Path(options.out).expanduser()
    if place.is_file():
        raise UserError("out names a folder, not a file", came=f"out={place}", expected="a folder")
    return place


def _said(
    folder: Path,
    learnt: Learnt,
    row: Mapping[str, Any],
    config: Mapping[str, Any],
    choices: Mapping[str, Any],
    options: Options,
) -> list[str]:
    facts = learnt.facts
    each = facts["tuning_seconds"] / facts["tuning_steps"]
    peaks = {name: row.get(name) for name in ("peak_rss_gb", "peak_gpu_gb") if row.get(name)}
    chosen = [f"{group}={choices[group]}" for group in ("method", "model", "tuning")]
    words = [*([f"clip={options.clip}"] if options.clip else []), *chosen, f"tuning.path={folder}"]
    prompts = [f"source={options.source}", "target=..."] if options.source else []
    command = shlex.join([*words, *prompts])  # prompts and paths travel as plain text
    return [
        f"tuned on {row['frames'][0]} frames: {facts['tuning_steps']} steps, {facts['tuning_seconds']:.0f} s "
        f"({each:.2g} s a step{', kept from before' if facts['tuning_kept'] else ''})",
        f"  error      {facts['tuning_error_first']:.3g} -> {facts['tuning_error_last']:.3g}",
        *(f"  {name:<10} {value:.2f} GB" for name, value in peaks.items()),
        f"  weights    {folder / WEIGHTS}",
        f"  curve      {folder / 'errors.png'}",
        "",
        f"edit with it:  freemask edit {command}",
    ]
