"""A tiny run of three methods with videos, studies of it, and raters who answer as a test tells them."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from synthetic_rows import row, write

from experiments.cli.app import main
from experiments.runs.record import Record
from experiments.study.answers import WHAT
from experiments.study.drawn import Turn, turns
from experiments.study.folder import SOURCE, Study
from freemask.data.write import write_video

METHODS = ("fatezero", "freemask", "tokenflow")
CLIPS = {"first-task": "bear", "second-task": "bear", "third-task": "swan", "fourth-task": "jeep"}
DESIGNS = {"freemask": [], "fatezero": ["design.sets=3"], "paired": []}
GOOD = {"fatezero": 4, "freemask": 9, "tokenflow": 6, SOURCE: 0}  # what a steady rater gives
Choose = Callable[[Study, Turn, str], Any]


def run_of(folder: Path, frames: int = 4) -> Path:
    """Rows and files as `freemask run` leaves them, on clips that are not the embedded world's."""
    folder.mkdir(parents=True)
    Record(variants=dict.fromkeys(METHODS, ()), reference="fatezero").write(folder)
    for shade, name in enumerate(METHODS):
        write(folder / name, [_row(folder / name, name, task, frames, 0.2 + 0.3 * shade) for task in CLIPS])
    return folder


def _row(folder: Path, name: str, task: str, count: int, shade: float) -> dict:
    frames = torch.full((count, 3, 32, 48), shade) + torch.linspace(0, 0.1, count)[:, None, None, None]
    files = {"frames": f"frames/{task}.npz", "source": f"sources/{task}.npz", "edited": f"videos/{task}.mp4"}
    for kind, values in (("frames", frames), ("source", torch.ones_like(frames))):
        path = folder / files[kind]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, frames=(255 * values).byte().permute(0, 2, 3, 1).numpy())
    write_video(folder / files["edited"], frames, 4)
    texts = {"source": f"a red car, {CLIPS[task]}", "target": f"a blue car, {CLIPS[task]}"}
    # The rows' own ids must be numbered, as those of other tests are.
    made = row(name, "task-0", {"masked_psnr": 25.0}, clip=CLIPS[task], files=files, **texts)
    return made | {"task": task}


def study_of(run: Path, design: str, *words: str) -> Study:
    assert main(["study", str(run), f"design={design}", *DESIGNS[design], *words]) == 0
    named = [each.partition("=")[2] for each in words if each.startswith("name=")]
    return Study.read(run / "studies" / (named or [design])[0])


def steady(study: Study, turn: Turn, key: str, good: dict[str, int] = GOOD) -> Any:
    """Scores, order and choice by one opinion; reads what an item says."""
    meant = study.meant[turn.item]
    if meant["check"] == "told":
        told = {"rating": meant["wanted"], "ranking": list(turn.order), "paired": turn.order[0]}
        return told[study.design.kind]
    methods = meant["entries"]
    best = sorted(turn.order, key=lambda each: -good[methods[each]])
    return {"rating": good[methods[turn.order[0]]], "ranking": best, "paired": best[0]}[study.design.kind]


def opinion(**good: int) -> Choose:
    return partial(steady, good=GOOD | good)


def answers(
    study: Study, rater: str, choose: Choose = steady, finished: str = "2026-01-01"
) -> dict[str, Any]:
    """As the page hands them in."""
    given = [
        {
            **{"item": turn.item, "again": turn.again, "order": list(turn.order), "seconds": 2.0},
            "values": {key: choose(study, turn, key) for key in study.design.keys},
        }
        for turn in turns(study.public, rater)
    ]
    said = {"what": WHAT, "study": study.id, "rater": rater, "finished": finished}
    return said | {"consent": True, "started": "2026-01-01", "comment": "", "answers": given}


def hand_in(study: Study, found: Any, name: str = "") -> Path:
    path = study.answers / (name or f"{found['rater']}.json")
    path.write_text(found if isinstance(found, str) else json.dumps(found), encoding="utf-8")
    return path
