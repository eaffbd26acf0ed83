"""`freemask train what=report`: the embedded models measured on held-out seeds, as JSON and as a page."""

import json
from collections import defaultdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

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
    mean = np.stack([row["ious"] for row in rows["inverted"]]).mean(0)
    document = _document(rows, mean, settings)
    (folder / "embedded.json").write_text(json.dumps(document, indent=1) + "\n")
    write_page(folder, document, rows, mean)


def _measured(processes: int, settings: dict[str, Any]) -> dict[str, list[dict]]:
    weights, first = str(settings["models"]), settings["first"]
    made, judged, turned, drawn = (
        measure.even_scenes(settings[what], first + 1000 * place) for place, what in enumerate(MEASURED)
    )
    draw = partial(measure.generated, steps=settings["sampling_steps"], guidance=settings["guidance"])
    turn = partial(measure.inverted, weights, steps=settings["steps"], threshold=settings["threshold"])
    with get_context("spawn").Pool(processes) as pool:
        return {
            "real": _all(pool, partial(measure.real, weights), judged, "judging real clips"),
            "pictures": _all(pool, partial(draw, weights, "t2i"), drawn, "drawing pictures and judging"),
            "generated": _all(pool, partial(draw, weights, "t2v"), made, "generating clips and judging"),
            "inverted": _all(pool, turn, turned, "inverting"),
            "untrained": _all(pool, partial(turn, untrained=True), turned[:4], "inverting, untrained"),
        }


def _numbers(rows: dict[str, list[dict]], mean: np.ndarray) -> dict[str, float]:
    return {
        "vae_psnr": float(np.mean([row["vae_psnr"] for row in rows["real"]])),
        **{f"{word}_acc": accuracy(rows["generated"], word) for word in WORDS},
        **{f"picture_{word}_acc": accuracy(rows["pictures"], word) for word in WORDS},
        **{f"real_{word}_acc": accuracy(rows["real"], word) for word in WORDS},
        "inversion_psnr": float(np.mean([row["psnr"] for row in rows["inverted"]])),
        "mask_iou": float(mean.max()),
        "mask_iou_untrained": float(np.stack([row["ious"] for row in rows["untrained"]]).mean(0).max()),
    }


def _document(rows: dict[str, list[dict]], mean: np.ndarray, settings: dict[str, Any]) -> dict[str, Any]:
    numbers, inverted, (stand, dirty) = _numbers(rows, mean), rows["inverted"], commit()
    sites, times = inverted[0]["sites"], inverted[0]["times"]
    layer, time = np.unravel_index(mean.argmax(), mean.shape)
    start = SPLITS["heldout"].start + settings["first"]
    return {
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
        "mask_best": {"site": sites[layer], "t": times[time]},
        "mask_iou_by_layer": dict(zip(sites, mean.mean(1).round(4).tolist(), strict=True)),
        "mask_iou_by_time": dict(zip(map(str, times), mean.mean(0).round(4).tolist(), strict=True)),
        "inversion_by_clip": {row["caption"]: round(row["psnr"], 2) for row in inverted},
        "generated_by": by_value(rows["generated"]),
        "pictures_by": by_value(rows["pictures"]),
        "real_by": by_value(rows["real"]),
    }
