"""`freemask tune`: tune a model on one clip and leave the weights, for edits with `tuning.path=FOLDER`."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig
from safetensors import SafetensorError
from safetensors.torch import save_file

from experiments.cli.verb import EDIT, PATHS, Verb
from experiments.config.build import build
from experiments.config.compose import plain, typed
from experiments.config.fingerprint import digest
from experiments.figures.errors import curve
from experiments.jobs.attempt import Attempt, measured
from experiments.jobs.beforehand import glimpse
from experiments.jobs.edit import fit, made_on, model_of
from experiments.jobs.one_clip import Cut, Wish, read
from experiments.runs.progress import reporting
from experiments.runs.rows import Row, cannot_write, file_name
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
CHOSEN = ("method", "model", "tuning")
OWN = ("out", "tuning", "paths.tuned")  # what was said to tune by, and not to edit by


@dataclass(frozen=True)
class Options(Cut):
    """The plain keys of conf/tune.yaml."""

    clip: str | None
    source: str | None
    out: str | None

    def wish(self) -> Wish:
        """One prompt is all that tuning needs; a clip of the data has its own."""
        kind = None if self.source is None else "style"
        return Wish(self.clip, self.source, self.source, None, kind, *self.taken())


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options, recipe = Options.of(config), build(config["tuning"], "tuning")
    if isinstance(recipe, NoTuning) or recipe.path is not None:
        came = "tuning=none" if isinstance(recipe, NoTuning) else f"tuning.path={recipe.path}"
        raise UserError("there is nothing to tune", came=came, expected="such as tuning=tune_a_video")
    task, data = options.wish().task(lambda: build(config["data"], "data"))
    seen = glimpse(data, task, options.frames)
    recipe.check(task, lambda: seen)
    folder = _folder(config, options, [task.source, recipe.counted(), config["model"]], task)
    attempt = Attempt(cast(Row, {"task": task.id}))
    with reporting(1) as reporter:
        reporter.busy("loading the model")
        backbone = model_of(config)
        if isinstance(data, OneClip):
            data = read(data, options.frames, backbone)
        fit(data, backbone)
        clip = data.clip(task)
        attempt.tell(**made_on(backbone), frames=list(clip.frames.shape), source=task.source)
        with measured(attempt, backbone.device), attempt.timed("tuning"):
            learnt = _learnt(recipe, backbone, clip, task, reporter.stage)
        for warning in attempt.row.get("warnings", ()):
            reporter.say(f"note: {warning}")
    try:
        leave(folder, learnt, attempt.row)
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, OSError(str(error))) from error
    print("\n".join(_said(folder, learnt, attempt.row)))
    print(f"\nedit with it:  freemask edit {_again(folder, flags, options)}")
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


def _folder(config: Mapping[str, Any], options: Options, counts: object, task: EditTask) -> Path:
    """Named after the clip and what counts, so that no weights are written over those of another tuning."""
    if options.out is None:
        name = file_name(f"{slug(Path(task.clip).name)}-{digest(counts)[:8]}")
        return Path(config["paths"]["tuned"]).expanduser() / name
    place = Path(options.out).expanduser()
    if place.is_file():
        raise UserError("out names a folder, not a file", came=f"out={place}", expected="a folder")
    return place


def _said(folder: Path, learnt: Learnt, row: Mapping[str, Any]) -> list[str]:
    facts = learnt.facts
    each = facts["tuning_seconds"] / facts["tuning_steps"]
    kept = ", kept from before" if facts["tuning_kept"] else ""
    peaks = {"memory": row.get("peak_rss_gb"), "on the GPU": row.get("peak_gpu_gb")}
    return [
        f"tuned on {row['frames'][0]} frames: {facts['tuning_steps']} steps, {facts['tuning_seconds']:.0f} s "
        f"({each:.2g} s a step{kept})",
        f"  error       {facts['tuning_error_first']:.3g} -> {facts['tuning_error_last']:.3g}",
        *(f"  {name:<10}  {value:.2f} GB" for name, value in peaks.items() if value),
        f"  weights     {folder / WEIGHTS}",
        f"  curve       {folder / 'errors.png'}",
    ]


def _again(folder: Path, flags: Mapping[str, Any], options: Options) -> str:
    """What was typed of the clip and the model, by the method for which it was tuned."""
    typed_here = [each for each in flags.get("overrides", ()) if not _is_own(each)]
    chosen = [f"{group}={flags['choices'][group]}" for group in CHOSEN]
    plain_text = [f"tuning.path={folder}", *(["target=..."] if options.source else [])]
    return f"{typed([*typed_here, *chosen], (*VERB.prompts, *VERB.paths))} {shlex.join(plain_text)}"


def _is_own(override: str) -> bool:
    key = override.lstrip("+~").partition("=")[0]
    return key in CHOSEN or any(f"{key}.".startswith(f"{each}.") for each in OWN)
