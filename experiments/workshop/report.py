"""`freemask train what=report`: the embedded models measured on held-out seeds, as JSON and as a page."""

import json
from collections import defaultdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.tables import render
from evaluation.tables.grid import DASH, Grid, Shown, lines_of
from experiments.runs.environment import commit
from experiments.runs.progress import tracked
from experiments.workshop import measures as measure
from experiments.workshop.page import write_page
from freemask.data.world.spec import SPLITS, Scene

WORDS = ("class", "color", "background")
DRAWN = {"class": 0.9, "color": 0.95, "background": 0.97}  # of clips and of pictures
BARS = {
    "vae_psnr": 30.0,
    **{f"{word}_acc": bar for word, bar in DRAWN.items()},
    **{f"picture_{word}_acc": bar for word, bar in DRAWN.items()},
    **{f"real_{word}_acc": 0.97 for word in WORDS},
    "inversion_psnr": 34.0,
    "mask_iou": 0.6,
}
MEASURED = ("generated", "real", "inverted", "pictures")  # kinds of scenes; their seeds lie 1000 apart


def accuracy(rows: list[dict], what: str) -> float:
    return float(np.mean([answer for row in rows for answer in row["verdicts"][what]]))


def by_value(rows: list[dict]) -> dict[str, dict[str, dict[str, float]]]:
    """Scores for every value of every property; a thing's own class and colour are the first thing's."""
    groups: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, value in row["labels"].items():
            groups[name][value].append(row)
    return {
        name: {
            value: {"n": len(some), **{word: accuracy(some, word) for word in WORDS}}
            for value, some in sorted(values.items())
        }
        for name, values in groups.items()
    }


def _all(pool, work, scenes: list[Scene], title: str) -> list[dict]:
    return list(tracked(pool.imap(work, scenes), len(scenes), title))


def report(run: dict[str, Any], **settings: Any) -> None:
    """Bars come from the project's own aims; a bar that is missed is written down as missed."""
    folder = Path(settings["to"])
    folder.mkdir(parents=True, exist_ok=True)
    rows = _measured(run["processes"], settings)
    document = _document(rows, settings)
    (folder / "embedded.json").write_text(json.dumps(document, indent=1) + "\n")
    write_page(folder, document, rows)
    print(render.text(_beside(document)), f"page to look at: {folder / 'embedded.html'}", sep="\n\n")


def _beside(document: dict[str, Any]) -> Grid:
    """What the networks draw and find, side by side."""
    kinds = {"picture_": "pictures, t2i", "": "clips, t2v", "dit_": "clips, dit", "real_": "real clips"}
    shown = {prefix: words for prefix, words in kinds.items() if f"{prefix}class_acc" in document}
    lines = {
        name: [
            Shown(f"{document[key]:.4g}" if (key := f"{prefix}{name}") in document else DASH)
            for prefix in shown
        ]
        for name in (*(f"{word}_acc" for word in WORDS), "inversion_psnr", "mask_iou")
    }
    return Grid("The embedded models", list(shown.values()), lines_of(lines), corner="")


def _measured(processes: int, settings: dict[str, Any]) -> dict[str, list[dict]]:
    weights, first = str(settings["models"]), settings["first"]
    made, judged, turned, drawn = (
        measure.even_scenes(settings[what], first + 1000 * place) for place, what in enumerate(MEASURED)
    )
    draw = partial(measure.generated, steps=settings["sampling_steps"], guidance=settings["guidance"])
    turn = partial(measure.inverted, steps=settings["steps"], threshold=settings["threshold"])
    work: dict[str, tuple[Any, list[Scene], str]] = {
        "real": (partial(measure.real, weights), judged, "judging real clips"),
        "pictures": (partial(draw, weights, "t2i"), drawn, "drawing pictures and judging"),
        "generated": (partial(draw, weights, "t2v"), made, "generating clips and judging"),
        "inverted": (partial(turn, weights, "t2v"), turned, "inverting"),
        "untrained": (partial(turn, weights, "untrained"), turned[:4], "inverting, untrained"),
    }
    if (Path(weights) / "dit").is_dir():  # the same scenes, so that it stands beside the others
        work["dit_generated"] = (partial(draw, weights, "dit"), made, "generating clips, transformer")
        work["dit_inverted"] = (partial(turn, weights, "dit"), turned, "inverting, transformer")
    with get_context("spawn").Pool(processes) as pool:
        return {kind: _all(pool, *each) for kind, each in work.items()}


def _numbers(rows: dict[str, list[dict]]) -> dict[str, float]:
    """Each kind's numbers under the words before its name."""
    found = {"vae_psnr": float(np.mean([row["vae_psnr"] for row in rows["real"]]))}
    judged = {"": "generated", "picture_": "pictures", "real_": "real", "dit_": "dit_generated"}
    for prefix, kind in judged.items():
        if kind in rows:
            found |= {f"{prefix}{word}_acc": accuracy(rows[kind], word) for word in WORDS}
    for prefix in ("", "dit_"):
        if turned := rows.get(f"{prefix}inverted"):
            found[f"{prefix}inversion_psnr"] = float(np.mean([row["psnr"] for row in turned]))
            found[f"{prefix}mask_iou"] = float(overlaps(turned).max())
    return {**found, "mask_iou_untrained": float(overlaps(rows["untrained"]).max())}


def overlaps(turned: list[dict]) -> np.ndarray:
    """Of words' maps with their things, layers x times, the mean over clips."""
    return np.stack([row["ious"] for row in turned]).mean(0)


def _where(turned: list[dict]) -> dict[str, Any]:
    """Which layers and times find things."""
    mean, sites, times = overlaps(turned), turned[0]["sites"], turned[0]["times"]
    layer, time = np.unravel_index(mean.argmax(), mean.shape)
    return {
        "mask_best": {"site": sites[layer], "t": times[time]},
        "mask_iou_by_layer": dict(zip(sites, mean.mean(1).round(4).tolist(), strict=True)),
        "mask_iou_by_time": dict(zip([f"{t:g}" for t in times], mean.mean(0).round(4).tolist(), strict=True)),
        "inversion_by_clip": {row["caption"]: round(row["psnr"], 2) for row in turned},
    }


def _document(rows: dict[str, list[dict]], settings: dict[str, Any]) -> dict[str, Any]:
    numbers, (stand, dirty) = _numbers(rows), commit()
    start = SPLITS["heldout"].start + settings["first"]
    document = {
        **{name: round(value, 4) for name, value in numbers.items()},
        "bars": {name: {"bar": bar, "met": bool(numbers[name] >= bar)} for name, bar in BARS.items()},
        "n": {what: settings[what] for what in MEASURED},
        "seeds": {
            what: [start + 1000 * place, start + 1000 * place + settings[what]]
            for place, what in enumerate(MEASURED)
        },
        "commit": stand,
        "dirty": dirty,
        "settings": {key: settings[key] for key in ("steps", "sampling_steps", "guidance", "threshold")},
        **_where(rows["inverted"]),
        "generated_by": by_value(rows["generated"]),
        "pictures_by": by_value(rows["pictures"]),
        "real_by": by_value(rows["real"]),
    }
    if "dit_generated" in rows:
        document["dit"] = {**_where(rows["dit_inverted"]), "generated_by": by_value(rows["dit_generated"])}
    return document
