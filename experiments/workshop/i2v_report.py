"""`freemask train what=i2v_report`: does the image-to-video network follow its picture? Numbers, and sheets to see."""

import json
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from evaluation.ops import psnr
from evaluation.tables import render
from evaluation.tables.grid import Grid, Shown, lines_of
from experiments.runs.environment import commit
from experiments.runs.progress import tracked
from experiments.workshop.measures import as_bytes, even_scenes, judge, network, verdicts
from experiments.workshop.page import sheet
from experiments.workshop.report import WORDS, accuracy
from freemask.data.world.source import WorldTask, clip_of, make_task, truth
from freemask.data.world.spec import SPLITS, Scene
from freemask.diffusion.guidance import given_to, guided
from freemask.diffusion.loops import invert, sample

EDITS = ("shape", "attribute")  # changes that the first frame shows and the motion outlives
APART = 1000  # seeds between what is animated, what is inverted and what is edited


def animated(weights: str, scene: Scene, *, steps: int, guidance: float) -> dict:
    """A clip from a caption and its first frame."""
    backbone, clip = network(weights, "i2v"), clip_of(scene, "")
    shape = backbone.encode(clip.frames).shape
    noise = torch.randn(shape, generator=Generator().manual_seed(scene.seed))
    given = given_to(backbone, clip, backbone.embed(scene.caption))
    made = backbone.decode(sample(backbone, noise, guided(backbone, given, guidance), steps))
    return _seen(weights, scene, made)


def inverted(weights: str, scene: Scene, *, steps: int) -> dict:
    """There and back with the clip's own caption and first frame: how near it comes to what the autoencoder keeps."""
    backbone, clip = network(weights, "i2v"), clip_of(scene, "")
    given, latents = given_to(backbone, clip, backbone.embed(scene.caption)), backbone.encode(clip.frames)
    noise = invert(backbone, latents, given, steps)[-1]
    back = backbone.decode(sample(backbone, noise, given, steps))
    return {"psnr": float(psnr(backbone.decode(latents), back).mean())}


def edited(weights: str, task: WorldTask, *, steps: int, guidance: float) -> dict:
    """A clip inverted, and sampled back with the caption and the first frame of the true answer; nothing else is kept
    of the source."""
    backbone, clip = network(weights, "i2v"), clip_of(task.scene, "")
    given = given_to(backbone, clip, backbone.embed(task.scene.caption))
    noise = invert(backbone, backbone.encode(clip.frames), given, steps)[-1]
    wanted = given_to(backbone, clip_of(task.answer, ""), backbone.embed(task.answer.caption))
    made = backbone.decode(sample(backbone, noise, guided(backbone, wanted, guidance), steps))
    source = float(psnr(truth(task.answer).frames, clip.frames).mean())
    return {**_seen(weights, task.answer, made), "source_psnr": source, "source": as_bytes(clip.frames)}


def _seen(weights: str, scene: Scene, made: Tensor) -> dict:
    """What the judge says of the whole clip and of its last frame alone, and how near it comes to the true one."""
    near = psnr(truth(scene).frames, made)
    return {
        "caption": scene.caption,
        "verdicts": verdicts(judge(weights), made, scene),
        "last": {"verdicts": verdicts(judge(weights), made[-1:], scene)},
        "psnr": [round(each, 2) for each in near.tolist()],
        "frames": as_bytes(made),
        "truth": as_bytes(truth(scene).frames),
    }


def report(run: dict[str, Any], **settings: Any) -> None:
    rows = _measured(run["processes"], settings)
    document = _document(rows, settings)
    folder = Path(settings["to"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "i2v.json").write_text(json.dumps(document, indent=1) + "\n")
    for kind in ("animated", "edited"):
        sheet(folder / f"i2v-{kind}.png", dict(map(_shown, rows[kind])), columns=2)
    numbers = {name: value for name, value in document.items() if isinstance(value, float)}
    lines = lines_of({name: [Shown(f"{value:.4g}")] for name, value in numbers.items()})
    print(render.text(Grid("The embedded image-to-video model", ["measured"], lines, corner="")))


def _measured(processes: int, settings: dict[str, Any]) -> dict[str, list[dict]]:
    weights, first, split = str(settings["models"]), settings["first"], settings["split"]
    scenes = [
        even_scenes(settings[kind], first + APART * place, split)
        for place, kind in enumerate(("animated", "inverted"))
    ]
    room, size = SPLITS[split].start + first + 2 * APART, {"frames": 8, "height": 64, "width": 64}
    tasks = [
        make_task(room + number, EDITS[number % len(EDITS)], number=number, **size)
        for number in range(settings["edited"])
    ]
    drawing = {"steps": settings["sampling_steps"], "guidance": settings["guidance"]}
    ways = {"steps": settings["steps"]}
    work = {
        "animated": (partial(animated, weights, **drawing), scenes[0]),
        "inverted": (partial(inverted, weights, **ways), scenes[1]),
        "edited": (partial(edited, weights, **ways, guidance=settings["guidance"]), tasks),
    }
    with get_context("spawn").Pool(processes) as pool:
        return {
            kind: list(tracked(pool.imap(do, each), len(each), kind)) for kind, (do, each) in work.items()
        }


def _document(rows: dict[str, list[dict]], settings: dict[str, Any]) -> dict[str, Any]:
    """PSNR is against the true clip; `source_psnr` is what leaving the clip as it is would have."""
    numbers: dict[str, float] = {}
    for kind in ("animated", "edited"):
        some = rows[kind]
        numbers |= {f"{kind}_{word}_acc": accuracy(some, word) for word in WORDS}
        numbers |= {
            f"{kind}_last_{word}_acc": accuracy([row["last"] for row in some], word) for word in WORDS
        }
        near = np.array([row["psnr"] for row in some])
        frames = {"first": near[:, 0], "last": near[:, -1], "clip": near}
        numbers |= {f"{kind}_{name}_psnr": float(each.mean()) for name, each in frames.items()}
    numbers["edited_source_psnr"] = float(np.mean([row["source_psnr"] for row in rows["edited"]]))
    numbers["inversion_psnr"] = float(np.mean([row["psnr"] for row in rows["inverted"]]))
    stand, dirty = commit()
    told = ("animated", "inverted", "edited", "steps", "sampling_steps", "guidance", "split", "first")
    return {
        **{name: round(value, 4) for name, value in numbers.items()},
        "settings": {key: settings[key] for key in told},
        "commit": stand,
        "dirty": dirty,
    }


def _shown(row: dict) -> tuple[str, list[np.ndarray]]:
    """First, middle and last frame, of the source where there is one, of what was made, and of the truth."""
    clips = [row[name] for name in ("source", "frames", "truth") if name in row]
    marks = "".join(f"{what[0].upper()}{'+' if all(v) else '-'} " for what, v in row["verdicts"].items())
    places = (0, len(row["frames"]) // 2, len(row["frames"]) - 1)
    return marks + row["caption"], [clip[place] for clip in clips for place in places]
