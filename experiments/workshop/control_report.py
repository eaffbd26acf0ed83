"""`freemask train what=control_report`: how well pictures fit the edges or the depth that they were asked for."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from evaluation.tables import render
from evaluation.tables.grid import Grid, Shown, lines_of
from experiments.runs.environment import commit
from experiments.runs.progress import tracked
from experiments.workshop import control_fit as fit
from experiments.workshop.measures import even_scenes, judge, verdicts
from freemask.backbones.inflated2d import Inflated2D
from freemask.data.world.source import truth
from freemask.data.world.spec import SPLITS, Scene
from freemask.diffusion.guidance import given_to, guided
from freemask.diffusion.loops import sample
from freemask.types import Clip

KINDS = ("edges", "depth")
ALONE, TRUE = "caption alone", "true picture"
WORDS = ("class", "color", "background")
NOTES = {
    "edges": "kept: edges asked for that the picture has within a pixel; asked: the picture's own that were asked for",
    "depth": "iou: of where the picture shows things, by their colours, and where the image of depth has them; order: "
    "where two things cover each other, the share that shows the one which is to be in front",
}
SHOWN, COLUMNS, LARGER = 24, 3, 2  # of a sheet: scenes, of these beside each other, how much larger it is


def report(run: dict[str, Any], **settings: Any) -> None:
    folder, count, first = Path(settings["to"]), settings["pictures"], settings["first"]
    sizes = {key: settings[key] for key in ("steps", "guidance")}
    scenes = even_scenes(count, first)
    pairs = [fit.turned(scene, front) for scene in fit.crossing_scenes(count // 2, first) for front in (0, 1)]
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    with get_context("spawn").Pool(run["processes"]) as pool:

        def all_of(work: Any, listed: Sequence[Scene], told: str) -> list[dict[str, Any]]:
            return list(tracked(pool.imap(work, listed), len(listed), told))

        for kind in KINDS:
            work = partial(drawn, str(settings["models"]), kind, **sizes)
            rows = all_of(work, scenes, f"drawing along {kind}")
            crossing = all_of(work, pairs, "which is in front") if kind == "depth" else []
            found[kind] = together(rows, crossing)
            sheet([row["shown"] for row in [*crossing[:4], *rows][:SHOWN]]).save(
                folder / f"control-{kind}.png"
            )
            show(kind, found[kind], len(rows), folder / f"control-{kind}.png")
    start, (stand, dirty) = SPLITS["heldout"].start + first, commit()
    about = {"n": count, "seeds": [start, start + count], "commit": stand, "dirty": dirty, **sizes}
    about |= {"crossing": {"n": len(pairs), "seeds": sorted({scene.seed for scene in pairs})}}
    (folder / "control.json").write_text(json.dumps({**found, **about}, indent=1) + "\n")


def show(kind: str, found: Mapping[str, Mapping[str, float]], count: int, picture: Path) -> None:
    names = list(found[f"with {kind}"])
    lines = {
        way: [Shown(f"{each[name]:.3f}" if name in each else "") for name in names]
        for way, each in found.items()
    }
    title = f"Pictures along {kind}, {count} held-out frames"
    notes = [f"{NOTES[kind]}; the others: how often the small CLIP sees the right word."]
    print(render.text(Grid(title, names, lines_of(lines), notes, corner="")))
    print(f"pictures: {picture} (true frame, its {kind}, with it, from the caption alone)")


def together(rows: Sequence[Mapping], crossing: Sequence[Mapping]) -> dict[str, dict[str, float]]:
    """The means of each way; which thing is in front is asked where they cover each other (`crossing`)."""
    ways = [way for way in rows[0] if way != "shown"]
    asked = {key: crossing if key == "order" else rows for key in rows[0][ways[0]]}
    return {
        way: {key: float(np.nanmean([row[way][key] for row in of])) for key, of in asked.items()}
        for way in ways
    }


@lru_cache(maxsize=1)
def network(weights: str, kind: str) -> Inflated2D:
    torch.set_num_threads(1)
    folder = Path(weights)
    return Inflated2D.load(folder / "t2i", control=folder / f"control_{kind}", control_images=kind)


def drawn(weights: str, kind: str, scene: Scene, *, steps: int, guidance: float) -> dict[str, Any]:
    """A picture of the scene's first frame with the ControlNet and without, from the same noise; and what the true one
    would measure, as the autoencoder has it."""
    backbone, known = network(weights, kind), truth(scene)
    clip = Clip("scene", known.frames[:1], depth=known.depth[:1])
    start = torch.randn(backbone.encode(clip.frames).shape, generator=Generator().manual_seed(scene.seed))
    wanted = backbone.seen(clip)["control"]
    made = {TRUE: backbone.decode(backbone.encode(clip.frames))}
    for way, strength in ((f"with {kind}", 1.0), (ALONE, 0.0)):
        away, given = (
            given_to(backbone, clip, backbone.embed(text)).plus(control_strength=torch.tensor(strength))
            for text in ("", scene.caption)
        )
        made[way] = backbone.decode(
            sample(backbone, start, guided(backbone, given, guidance, uncond=away), steps)
        )
    found: dict[str, Any] = {"shown": [clip.frames, wanted, made[f"with {kind}"], made[ALONE]]}
    for way in (f"with {kind}", ALONE, TRUE):
        said = verdicts(judge(weights), made[way], scene)
        measured = fit.edges(made[way], wanted) if kind == "edges" else fit.things(made[way], wanted, scene)
        found[way] = {**measured, **{word: np.mean(said[word]) for word in WORDS}}
    return found


def sheet(shown: list[list[Tensor]]) -> Image.Image:
    """A row for each scene, in columns."""
    rows = [torch.cat([each[0] for each in row], dim=2) for row in shown]
    high = -(-len(rows) // COLUMNS)
    rows += [torch.zeros_like(rows[0])] * (high * COLUMNS - len(rows))
    columns = [torch.cat(rows[place * high : (place + 1) * high], dim=1) for place in range(COLUMNS)]
    picture = (torch.cat(columns, dim=2) * 255).round().byte().permute(1, 2, 0).numpy()
    made = Image.fromarray(picture)
    return made.resize((made.width * LARGER, made.height * LARGER), Image.Resampling.NEAREST)
