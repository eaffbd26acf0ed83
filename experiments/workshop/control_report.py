"""`freemask train what=control_report`: how well pictures have the edges that they were asked for."""

import json
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn.functional import max_pool2d

from evaluation.tables import render
from evaluation.tables.grid import Grid, Shown, lines_of
from experiments.runs.environment import commit
from experiments.runs.progress import tracked
from experiments.workshop.control import EDGES
from experiments.workshop.measures import even_scenes, judge, verdicts
from freemask.backbones.inflated2d import Inflated2D
from freemask.data.world.source import truth
from freemask.data.world.spec import SPLITS, Scene
from freemask.diffusion.guidance import given_to, guided
from freemask.diffusion.loops import sample
from freemask.types import Clip

WAYS = {"with edges": 1.0, "caption alone": 0.0}  # strengths of the ControlNet; alone shows what chance gives
WORDS = ("class", "color", "background")
SHOWN, COLUMNS, LARGER = (
    24,
    3,
    2,
)  # of the sheet: scenes, of these beside each other, and how much larger it is


def report(run: dict[str, Any], **settings: Any) -> None:
    folder, first = Path(settings["to"]), settings["first"]
    sizes = {key: settings[key] for key in ("steps", "guidance")}
    work = partial(drawn, str(settings["models"]), **sizes)
    scenes = even_scenes(settings["pictures"], first)
    with get_context("spawn").Pool(run["processes"]) as pool:
        rows = list(tracked(pool.imap(work, scenes), len(scenes), "drawing along edges"))
    found = {
        way: {key: float(np.mean([row[way][key] for row in rows])) for key in rows[0][way]} for way in WAYS
    }
    start, (stand, dirty) = SPLITS["heldout"].start + first, commit()
    about = {"n": len(rows), "seeds": [start, start + len(rows)], "commit": stand, "dirty": dirty, **sizes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "control.json").write_text(json.dumps({**found, **about}, indent=1) + "\n")
    sheet([row["shown"] for row in rows[:SHOWN]]).save(folder / "control.png")
    lines = {way: [Shown(f"{value:.3f}") for value in each.values()] for way, each in found.items()}
    title = f"Pictures along edges, {len(rows)} held-out frames"
    notes = [
        "kept: edges asked for that the picture has within a pixel; asked: the picture's own that were asked for; "
        "the others: how often the small CLIP sees the right word."
    ]
    print(render.text(Grid(title, list(found["with edges"]), lines_of(lines), notes, corner="")))
    print(f"pictures: {folder / 'control.png'} (true frame, its edges, with them, from the caption alone)")


@lru_cache(maxsize=1)
def network(weights: str) -> Inflated2D:
    torch.set_num_threads(1)
    folder = Path(weights)
    return Inflated2D.load(folder / "t2i", control=folder / "control_edges", control_images="edges")


def drawn(weights: str, scene: Scene, *, steps: int, guidance: float) -> dict[str, Any]:
    """A picture of the scene's first frame in each way, from the same noise."""
    backbone, true = network(weights), truth(scene).frames[:1]
    clip, noise = Clip("scene", true), Generator().manual_seed(scene.seed)
    start, wanted = torch.randn(backbone.encode(true).shape, generator=noise), EDGES.of(true)
    found: dict[str, Any] = {"shown": [true, wanted]}
    for way, strength in WAYS.items():
        away, given = (
            given_to(backbone, clip, backbone.embed(text)).plus(control_strength=torch.tensor(strength))
            for text in ("", scene.caption)
        )
        made = backbone.decode(sample(backbone, start, guided(backbone, given, guidance, uncond=away), steps))
        said = verdicts(judge(weights), made, scene)
        found[way] = {**agreement(wanted, EDGES.of(made)), **{word: np.mean(said[word]) for word in WORDS}}
        found["shown"].append(made)
    return found


def agreement(wanted: Tensor, made: Tensor) -> dict[str, float]:
    """Of two images of edges (`f 3 h w`, 0 or 1)."""
    near_made, near_wanted = (max_pool2d(each, 3, 1, 1) for each in (made, wanted))
    kept = float((wanted * near_made).sum() / wanted.sum().clamp(min=1))
    return {"kept": kept, "asked": float((made * near_wanted).sum() / made.sum().clamp(min=1))}


def sheet(shown: list[list[Tensor]]) -> Image.Image:
    """A row for each scene, in columns."""
    rows = [torch.cat([each[0] for each in row], dim=2) for row in shown]
    high = -(-len(rows) // COLUMNS)
    rows += [torch.zeros_like(rows[0])] * (high * COLUMNS - len(rows))
    columns = [torch.cat(rows[place * high : (place + 1) * high], dim=1) for place in range(COLUMNS)]
    picture = (torch.cat(columns, dim=2) * 255).round().byte().permute(1, 2, 0).numpy()
    made = Image.fromarray(picture)
    return made.resize((made.width * LARGER, made.height * LARGER), Image.Resampling.NEAREST)
