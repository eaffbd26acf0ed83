"""How good is the choice that needs no ground truth? `python -m experiments.workshop.agreement` measures it on held-out
clips of the embedded world, beside the codebook's choice, averages, chance and the best possible one."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments.runs.environment import commit
from freemask.attention.record import Recording, recorder
from freemask.backbones.unet3d import UNet3D
from freemask.data.world.source import World
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert
from freemask.masks.heat import NAME, text_layers
from freemask.masks.mmc import bootstrap
from freemask.masks.ops import Binarise, iou
from freemask.masks.plan import MaskPlan, MaskStrategy, Subject, Wanted
from freemask.masks.strategies.agreement import Agreement
from freemask.masks.strategies.average import Average
from freemask.masks.strategies.mmc import Mmc
from freemask.masks.strategies.oracle import Oracle
from freemask.masks.words import annotated
from freemask.types import Backbone, Clip, EditTask, Grid, Taps

OBJECTS = ("attribute", "shape", "style")
# What is measured: strategies, and for each what it is.
STRATEGIES: Mapping[str, tuple[MaskStrategy, str]] = {
    "agreement": (Agreement(), "one layer and time, from the maps alone"),
    "codebook": (Mmc(keep_object=True), "one layer and time, l* and t* of the shipped codebook"),
    "codebook, by layer": (
        Mmc(keep_object=True, time_by="layer"),
        "one layer and time: l*, and the time that was best for it",
    ),
    "oracle": (Oracle(), "one layer and time, the best for the clip by its annotation"),
    "agreement, time-aware": (Agreement(time_aware=True), "one layer, the mask of each time"),
    "codebook, time-aware": (Mmc(keep_object=False), "l*, the mask of each time"),
    "oracle, time-aware": (Oracle(time_aware=True), "the best layer, the mask of each time"),
    "average": (Average(), "mean over the layers of 16 x 16, the mask of each time (FateZero's resolution)"),
    "average of stride 4": (Average(strides=[4]), "mean over FateZero's layers, here 4 x 4, of each time"),
    "average of all": (Average(cells=None), "mean over all 16 layers, the mask of each time"),
}
CHANCE = "random"
DEVELOPED = (
    "The rule of `agreement` was found on 40 clips of the train split (their seeds are 0 to 39) with objects; for "
    "backgrounds it was settled on 8 more of that split. The codebook was calibrated on the same 40 clips."
)
AGAINST = ("codebook", "codebook, by layer", "average", "oracle", CHANCE)
PAIRS = tuple(("agreement", other) for other in AGAINST)


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _arguments(arguments)
    torch.set_num_threads(1)
    backbone = UNet3D.load("embedded")
    rows = []
    for kinds, clips in ((OBJECTS, asked.clips), (("background",), asked.clips // 3)):
        world = World(
            split=asked.split,
            clips=clips,
            kinds=kinds,
            seed=asked.seed if kinds == OBJECTS else asked.seed + asked.clips,
        )
        for task in tqdm(world.tasks(), desc=" ".join(kinds), unit="clip", disable=None):
            rows.append(measured(backbone, world.clip(task), task, asked.steps))
    settings = {key: getattr(asked, key) for key in ("split", "clips", "steps", "seed")}
    document = {
        "settings": settings,
        "binarise": Binarise().settings(),
        "model": backbone.identity,
        "commit": commit()[0],
    }
    document |= {
        "what": {name: about for name, (_, about) in STRATEGIES.items()}
        | {CHANCE: "mean over every layer and time"}
    }
    document |= {"objects": summary([row for row in rows if row["kind"] in OBJECTS])}
    document |= {"background": summary([row for row in rows if row["kind"] == "background"]), "rows": rows}
    folder = Path(asked.to)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agreement.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (folder / "agreement.md").write_text(page(document), encoding="utf-8")


def measured(backbone: Backbone, clip: Clip, task: EditTask, steps: int) -> dict[str, Any]:
    """IoU with the annotation at the frames' size: of the one mask, or the mean over the masks of all times."""
    source, target = backbone.embed(task.source), backbone.embed(task.target)
    times = backbone.noise_path.times(steps)
    subject = Subject(task, clip, source, target, times, backbone.sites, backbone.identity)
    heats = Recording()
    taps = Taps(attention=recorder(Oracle().keeps(subject).source, heats))
    upwards = guided(backbone, source, taps=taps, stream="source")
    invert(backbone, backbone.encode(clip.frames), upwards, times)
    truth = annotated(task, clip)
    grid = Grid(*truth.shape)
    row: dict[str, Any] = {"task": task.id, "clip": task.clip, "kind": task.kind, "iou": {}, "chosen": {}}
    for name, (strategy, _) in STRATEGIES.items():
        plan = strategy.plan(subject, heats, Recording())
        assert isinstance(plan, MaskPlan)
        asked = times[:1] if isinstance(plan.facts["mask_time"], int) else times
        overlaps = [iou(plan(Wanted("self", t, grid)), truth) for t in asked]
        row["iou"][name] = round(sum(overlaps) / len(overlaps), 4)
        row["chosen"][name] = f"{plan.facts['mask_layer']} @ {plan.facts['mask_time']}"
    masks = (Binarise().mask(heat, *truth.shape[1:]) for heat in heats.all(NAME).values())
    overlaps = [iou(mask, truth) for mask in masks]
    assert len(overlaps) == len(times) * len(text_layers(subject.sites))
    row["iou"][CHANCE] = round(sum(overlaps) / len(overlaps), 4)
    return row


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means and paired differences with 95 % bootstrap intervals over clips."""
    names, clips = list(rows[0]["iou"]), [row["clip"] for row in rows]
    values = torch.tensor([[row["iou"][name] for name in names] for row in rows], dtype=torch.float64)
    column = {name: values[:, place] for place, name in enumerate(names)}
    apart = torch.stack([column[one] - column[other] for one, other in PAIRS], dim=1)
    means = zip(names, bootstrap(values, clips), strict=True)
    differences = zip(PAIRS, bootstrap(apart, clips), strict=True)
    return {
        "n": len(rows),
        "clips": len(set(clips)),
        "iou": {name: [round(value, 4) for value in estimate] for name, estimate in means},
        "difference": {
            f"{one} - {other}": [round(value, 4) for value in estimate]
            for (one, other), estimate in differences
        },
    }


def page(document: Mapping[str, Any]) -> str:
    settings = document["settings"]
    command = " ".join(f"--{key} {value}" for key, value in settings.items())
    parts = [
        "# Choosing a mask without ground truth",
        f"Made by `python -m experiments.workshop.agreement {command}`; every clip's numbers are in `agreement.json`.",
        "IoU of the mask with the annotation at the frames' size, mean over clips, with 95 % bootstrap intervals over "
        "clips. Where masks differ from time to time, a clip counts with its mean over all times. Binarisation: "
        + ", ".join(f"{key} {value}" for key, value in document["binarise"].items())
        + ".",
    ]
    parts.append(DEVELOPED)
    for title, key in (
        ("The edit is about an object", "objects"),
        ("The edit is about the background", "background"),
    ):
        part = document[key]
        parts.append(f"## {title} ({part['n']} tasks of {part['clips']} {settings['split']} clips)")
        lines = ["| masks | mean IoU | interval | what it is |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {_cells(value)} | {document['what'][name]} |" for name, value in part["iou"].items()
        ]
        parts.append("\n".join(lines))
        lines = ["| difference on the same clips | mean | interval |", "|---|---|---|"]
        lines += [f"| {name} | {_cells(value)} |" for name, value in part["difference"].items()]
        parts.append("\n".join(lines))
        kinds = OBJECTS if key == "objects" else ("background",)
        low = sorted(row["iou"]["agreement"] for row in document["rows"] if row["kind"] in kinds)[:3]
        parts.append("The three lowest of `agreement`: " + ", ".join(f"{value:.2f}" for value in low) + ".")
    return "\n\n".join(parts) + "\n"


def _cells(estimate: Sequence[float]) -> str:
    mean, low, high = estimate
    return f"{mean:.3f} | {low:.3f} to {high:.3f}"


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.workshop.agreement", description=__doc__)
    parser.add_argument("--split", default="heldout", choices=("train", "heldout"))
    parser.add_argument(
        "--clips", type=int, default=30, help="clips with objects; a third as many with backgrounds"
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="the first clip's seed within the split")
    parser.add_argument("--to", default="reports")
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
