"""`freemask train what=boxes_report`: whether pictures show things where boxes want them."""

import json
from collections.abc import Mapping
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from evaluation.ops import overlap
from evaluation.tables import render
from evaluation.tables.grid import Grid, Shown, lines_of
from experiments.runs.environment import commit
from experiments.runs.progress import tracked
from experiments.workshop.boxes import told
from experiments.workshop.control_fit import owners
from experiments.workshop.control_report import SHOWN, WORDS, sheet
from experiments.workshop.measures import even_scenes, judge, verdicts
from freemask.backbones.gated import BOXES, GATES, PHRASES
from freemask.backbones.inflated2d import Inflated2D
from freemask.data.world.render import owner_map, render_frames
from freemask.data.world.spec import SPLITS, Scene
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import sample
from freemask.methods.ground_a_video_field import inside
from freemask.types import Given

WITH, ALONE, CAPTION, TRUE = "caption and boxes", "boxes alone", "caption alone", "true picture"
NOTE = (
    "placed: overlap of where the picture shows each thing, by its colours, and where it is to be; the others: how "
    "often the small CLIP sees the right word."
)


def report(run: dict[str, Any], **settings: Any) -> None:
    folder, count, first = Path(settings["to"]), settings["pictures"], settings["first"]
    sizes = {key: settings[key] for key in ("steps", "guidance")}
    scenes = even_scenes(count, first)
    work = partial(drawn, str(settings["models"]), **sizes)
    with get_context("spawn").Pool(run["processes"]) as pool:
        rows = list(tracked(pool.imap(work, scenes), len(scenes), "drawing in boxes"))
    found = {
        way: {key: float(np.mean([row[way][key] for row in rows])) for key in rows[0][way]}
        for way in (WITH, ALONE, CAPTION, TRUE)
    }
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "boxes.png"
    sheet([row["shown"] for row in rows[:SHOWN]]).save(picture)
    start, (stand, dirty) = SPLITS["heldout"].start + first, commit()
    about = {"n": count, "seeds": [start, start + count], "commit": stand, "dirty": dirty, **sizes}
    (folder / "boxes.json").write_text(json.dumps({**found, **about}, indent=1) + "\n")
    show(found, count, picture)


def show(found: Mapping[str, Mapping[str, float]], count: int, picture: Path) -> None:
    names = list(found[WITH])
    lines = {way: [Shown(f"{each[name]:.3f}") for name in names] for way, each in found.items()}
    title = f"Pictures with boxes, {count} held-out frames"
    print(render.text(Grid(title, names, lines_of(lines), [NOTE], corner="")))
    print(f"pictures: {picture} (true frame, its boxes, {WITH}, {ALONE}, {CAPTION})")


@lru_cache(maxsize=1)
def network(weights: str) -> Inflated2D:
    torch.set_num_threads(1)
    folder = Path(weights)
    return Inflated2D.load(folder / "t2i", attention="frame", shared_norm=False, gated=folder / "boxes")


def drawn(weights: str, scene: Scene, *, steps: int, guidance: float) -> dict[str, Any]:
    """A picture of the scene's first frame by its caption, by boxes, and by both, from the same noise; and what the
    true one would measure, as the autoencoder has it."""
    backbone, true = network(weights), render_frames(scene, (0,))
    latents = backbone.encode(true)
    start = torch.randn(latents.shape, generator=Generator().manual_seed(scene.seed))
    phrases, boxes = zip(*told(scene, 0), strict=True)
    texts = [backbone.embed(phrase) for phrase in phrases]
    last = torch.stack([each.tokens[each.length - 1] for each in texts])
    spoken = {BOXES: torch.stack(boxes)[None], PHRASES: last[None]}
    made = {TRUE: backbone.decode(latents)}
    for way, text, parts in (
        (WITH, scene.caption, spoken),
        (ALONE, "", spoken),
        (CAPTION, scene.caption, {GATES: torch.tensor(0.0)}),
    ):
        nothing = parts if BOXES not in parts else {**parts, BOXES: torch.zeros_like(parts[BOXES])}
        given, away = (
            Given({**backbone.embed(words).given.parts, **each})
            for words, each in ((text, parts), ("", nothing))
        )
        made[way] = backbone.decode(
            sample(backbone, start, guided(backbone, given, guidance, uncond=away), steps)
        )
    asked = torch.stack([inside(box[None, None], *true.shape[-2:]) for box in boxes]).amax(0)
    shown = [true, asked[:, None].expand_as(true), made[WITH], made[ALONE], made[CAPTION]]
    return {"shown": shown, **{way: _measured(weights, made[way], scene) for way in made}}


def _measured(weights: str, made: Float[Tensor, "1 3 h w"], scene: Scene) -> dict[str, float]:
    said = verdicts(judge(weights), made, scene)
    return {"placed": placed(made, scene), **{word: float(np.mean(said[word])) for word in WORDS}}


def placed(made: Float[Tensor, "1 3 h w"], scene: Scene) -> float:
    """Mean over the things that the scene's first frame shows; 0 for one that the picture has not."""
    shown, wanted = owners(made[0], scene), owner_map(scene, (0,))[0]
    numbers = [number for number in range(1, len(scene.things) + 1) if bool((wanted == number).any())]
    return float(np.mean([overlap((shown == n)[None], (wanted == n)[None]) or 0.0 for n in numbers]))
