"""What `freemask edit masks=...` leaves and tells: every mask strategy beside the others, as a picture, a table and
arrays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from evaluation.tables.numbers import fact, number
from experiments.config.fingerprint import digest
from experiments.config.identity import tuning_of
from experiments.jobs.captions import about
from experiments.jobs.explain import around
from experiments.jobs.lettering import font_for
from experiments.jobs.pictures import GAP, INK, LINE, PAPER, fitting, outlined, thumbs, veiled, with_lines
from experiments.report.edit_folder import place_of
from freemask.masks.look import Look, Seen
from freemask.types import Clip, EditTask

ACROSS = 5
RAMP = ((0.05, 0.03, 0.25), (0.45, 0.05, 0.50), (0.90, 0.30, 0.30), (1.0, 0.75, 0.2), (1.0, 1.0, 0.8))
THROUGH = 0.25  # so much of the frame is seen through its heat
PARTLY = "* source words alone: in an edit, its own heat is added"


def heated(frames: Float[Tensor, "f 3 h w"], heat: Float[Tensor, "f h w"]) -> Float[Tensor, "f 3 h w"]:
    """Heat as colours from dark to light, with a little of the frame in grey below it. Each clip has its own scale."""
    value = (heat / heat.max()).nan_to_num(0).clamp(0, 1) * (len(RAMP) - 1)
    low = value.floor().long().clamp(max=len(RAMP) - 2)
    ramp, part = torch.tensor(RAMP), (value - low)[..., None]
    color = (ramp[low] * (1 - part) + ramp[low + 1] * part).movedim(-1, 1)
    grey = frames.detach().float().cpu().mean(dim=1, keepdim=True)
    return color * (1 - THROUGH) + grey * THROUGH


def mask_sheet(path: Path, clip: Clip, look: Look, about: Sequence[str]) -> None:
    """A cell for the clip and one for each strategy: the middle frame as heat and as mask, under name and score."""
    middle = slice((len(clip.frames) - 1) // 2, (len(clip.frames) - 1) // 2 + 1)
    frame = clip.frames[middle].detach().float().cpu()
    first = [frame] if look.truth is None else [frame, outlined(frame, look.truth[middle].float())]
    cells = [(["", "", "source" if look.truth is None else "source, and its annotation"], first)]
    for name, each in look.seen.items():
        heat = torch.ones_like(frame) if each.heat is None else heated(frame, each.heat[middle])
        cells.append((_label(name, each, look.measure), [heat, veiled(frame, each.mask[middle])]))
    lines = [*about, f"middle frame; left heat, right mask (clear inside); {_means(look)}"]
    lines += _notes(look)
    lines += [f"without {name}: {reason}" for name, reason in look.lacking.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with_lines(_grid(cells), lines).save(path)


def folder_of_masks(config: Mapping[str, Any], out: str | None, task: EditTask) -> Path:
    named = digest([task.plain(), config["model"], *tuning_of(config).values()])
    return place_of(config, out, task, f"masks-{named[:8]}")


def about_masks(config: Mapping[str, Any], choices: Mapping[str, str | None], task: EditTask) -> list[str]:
    said = {"task": task.id, "clip": task.clip, "words": task.words, "choices": {"model": choices["model"]}}
    said |= {} if task.source == task.target else {"kind": task.kind}
    return about(said | {"method": "inversion alone", "steps": config["method"]["steps"]})


def leave_masks(folder: Path, clip: Clip, look: Look, about: Sequence[str]) -> dict[str, Path]:
    files = {"sheet": folder / "masks.png", "masks": folder / "masks.npz"}
    mask_sheet(files["sheet"], clip, look, about)
    arrays = {name: _bytes(each.mask) for name, each in look.seen.items()}
    arrays |= {f"{name} heat": _bytes(each.heat) for name, each in look.seen.items() if each.heat is not None}
    np.savez_compressed(files["masks"], allow_pickle=False, **arrays)
    return files


def tell_masks(look: Look, about: Sequence[str], files: Mapping[str, Path]) -> None:
    for line in about:
        print(line)
    rows = [("mask", look.measure, "covers", "layer", "time")]
    for name, each in look.seen.items():
        layer, time = (fact(each.facts.get(key)) for key in ("mask_layer", "mask_time"))
        rows.append((name + " *" * each.partly, _score(each), f"{float(each.mask.mean()):.1%}", layer, time))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for name, reason in look.lacking.items():
        print(f"  {name.ljust(widths[0])}  cannot work here: {reason}")
    print("\n".join([_means(look), *_notes(look)]))
    for name, path in files.items():
        print(f"  {name:<8} {path}")


def _means(look: Look) -> str:
    if look.truth is not None:
        return "IoU: with the clip's annotation"
    return "agreement: IoU with mask=agreement, for the clip has no annotation (a guess, no truth)"


def _notes(look: Look) -> list[str]:
    turned = dict.fromkeys(filter(None, (around(each.facts) for each in look.seen.values())))
    partly = any(each.partly for each in look.seen.values())
    return [f"heat and masks are turned, to show {each}" for each in turned] + [PARTLY] * partly


def _score(seen: Seen) -> str:
    return "-" if seen.score is None else number(seen.score)


def _label(name: str, seen: Seen, measure: str) -> list[str]:
    said = [
        f"{key.removeprefix('mask_')} {seen.facts[key]}"
        for key in ("mask_layer", "mask_time")
        if key in seen.facts
    ]
    return ["", "", f"{name}{' *' * seen.partly}   {measure} {_score(seen)}", *said][-3:]


def _grid(cells: Sequence[tuple[Sequence[str], Sequence[Tensor]]]) -> Image.Image:
    made = [(lines, [thumbs(each)[0] for each in pictures]) for lines, pictures in cells]
    high, wide = made[0][1][0].shape[:2]
    cell = (2 * wide + 3 * GAP, high + 3 * LINE + GAP)
    across = min(ACROSS, len(made))
    sheet = Image.new("RGB", (GAP + across * cell[0], GAP + -(-len(made) // across) * cell[1]), PAPER)
    draw, font = ImageDraw.Draw(sheet), font_for("".join(line for lines, _ in cells for line in lines))
    for place, (lines, pictures) in enumerate(made):
        x, y = GAP + place % across * cell[0], GAP + place // across * cell[1]
        for row, line in enumerate(lines):
            draw.text((x, y + row * LINE), fitting(line, cell[0], font), fill=INK, font=font)
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (x + column * (wide + 2), y + 3 * LINE))
    return sheet


def _bytes(values: Tensor) -> Any:
    return values.mul(255).round().clamp(0, 255).byte().cpu().numpy()
