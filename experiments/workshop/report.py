"""`freemask train what=report`: the embedded models measured on held-out seeds, as JSON and as a page."""

import json
from collections import defaultdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.runs.environment import commit
from experiments.workshop import measures as measure
from experiments.workshop.page import write_page
from freemask.data.world.spec import SPLITS, Scene

BARS = {
    "vae_psnr": 30.0,
    "class_acc": 0.85,
    "color_acc": 0.85,
    "background_acc": 0.85,
    "real_class_acc": 0.97,
    "real_color_acc": 0.97,
    "real_background_acc": 0.97,
    "inversion_psnr": 30.0,
    "mask_iou": 0.5,
}


def accuracy(rows: list[dict], what: str) -> float:
    answers = [answer for row in rows for answer in row["verdicts"][what]]
    return float(np.mean(answers))


def by_value(rows: list[dict]) -> dict[str, dict[str, dict[str, float]]]:
    """Scores for every value of every property; a thing's own class and colour are the first thing's."""
    groups: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name in ("class", "color", "background", "motion", "style", "things"):
            groups[name][row[name]].append(row)
    return {
        name: {
            value: {"n": len(some), **{w: accuracy(some, w) for w in ("class", "color", "background")}}
            for value, some in sorted(values.items())
        }
        for name, values in groups.items()
    }


def _all(pool, work, scenes: list[Scene], title: str) -> list[dict]:
    return list(tqdm(pool.imap(work, scenes), total=len(scenes), desc=title, unit="clip", disable=None))


def report(run: dict[str, Any], **settings: Any) -> None:
    """Bars come from the project's own aims; a bar that is missed is written down as missed."""
    folder, first = Path(settings["to"]), settings["first"]
    folder.mkdir(parents=True, exist_ok=True)
    weights = str(settings["models"])
    made = measure.even_scenes(settings["generated"], first)
    judged = measure.even_scenes(settings["real"], first + 1000)
    turned = measure.even_scenes(settings["inverted"], first + 2000)
    turn = partial(measure.inverted, weights, steps=settings["steps"], threshold=settings["threshold"])
    with get_context("spawn").Pool(run["processes"]) as pool:
        real = _all(pool, partial(measure.real, weights), judged, "judging real clips")
        work = partial(
            measure.generated, weights, steps=settings["sampling_steps"], guidance=settings["guidance"]
        )
        generated = _all(pool, work, made, "generating and judging")
        inverted = _all(pool, turn, turned, "inverting")
        untrained = _all(pool, partial(turn, untrained=True), turned[:4], "inverting, untrained")
    ious = np.stack([row["ious"] for row in inverted])
    mean = ious.mean(0)
    layer, time = np.unravel_index(mean.argmax(), mean.shape)
    numbers = {
        "vae_psnr": float(np.mean([row["vae_psnr"] for row in real])),
        **{f"{w}_acc": accuracy(generated, w) for w in ("class", "color", "background")},
        **{f"real_{w}_acc": accuracy(real, w) for w in ("class", "color", "background")},
        "inversion_psnr": float(np.mean([row["psnr"] for row in inverted])),
        "mask_iou": float(mean[layer, time]),
        "mask_iou_untrained": float(np.stack([row["ious"] for row in untrained]).mean(0).max()),
    }
    start = SPLITS["heldout"].start + first
    document = {
        **{name: round(value, 4) for name, value in numbers.items()},
        "bars": {name: {"bar": bar, "met": bool(numbers[name] >= bar)} for name, bar in BARS.items()},
        "n": {key: settings[key] for key in ("generated", "real", "inverted")},
        "seeds": {
            "generated": [start, start + settings["generated"]],
            "real": [start + 1000, start + 1000 + settings["real"]],
            "inverted": [start + 2000, start + 2000 + settings["inverted"]],
        },
        "commit": commit()[0],
        "dirty": commit()[1],
        "settings": {k: settings[k] for k in ("steps", "sampling_steps", "guidance", "threshold")},
        "mask_best": {"site": inverted[0]["sites"][layer], "t": inverted[0]["times"][time]},
        "mask_iou_by_layer": dict(zip(inverted[0]["sites"], mean.mean(1).round(4).tolist(), strict=True)),
        "mask_iou_by_time": dict(
            zip(map(str, inverted[0]["times"]), mean.mean(0).round(4).tolist(), strict=True)
        ),
        "inversion_by_clip": {row["caption"]: round(row["psnr"], 2) for row in inverted},
        "generated_by": by_value(generated),
        "real_by": by_value(real),
    }
    (folder / "embedded.json").write_text(json.dumps(document, indent=1) + "\n")
    write_page(folder, document, generated, inverted, mean)
