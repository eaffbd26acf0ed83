"""What a study's answers say, told: as tables with their notes, as cells for a CSV file, and as a record."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.stats.crossed import Crossed
from evaluation.stats.paired import Difference
from evaluation.tables import render
from evaluation.tables.grid import BEST, DASH, SECOND, Block, Grid, Part, Shown
from evaluation.tables.numbers import chance, number, signed
from evaluation.tables.run import ranged
from experiments.runs.rows import cannot_write, write_text
from experiments.study.checks import rule
from experiments.study.results import Results

INTERVAL = (
    "95% interval that takes both the raters and the clips as drawn from many: the variance between raters plus that "
    "between clips, less that of single answers, which both have counted; Student's t with one degree of freedom less "
    "than there are raters or clips, whichever are fewer"
)
MEANS = {
    "rating": "mean score",
    "ranking": "mean place, 1 is the best",
    "paired": "share of its pairs in which it was preferred, no difference counting half",
}
METRICS = {"interval": "differences of scores", "ordinal": "places", "nominal": "the same choice or not"}


def grids(found: Results) -> list[Grid]:
    study, design = found.study, found.study.design
    arrow = "↓" if design.lower else "↑"
    head = [f"{design.title(key)} {arrow}" for key in design.keys]
    title = f"The study '{study.name}': what {many(found.raters, 'rater')} said"
    places = {key: found.places(key) for key in design.keys}
    blocks = []
    for method in study.methods:
        cells = [found.means.get((method, key)) for key in design.keys]
        if any(cells):
            most = max(each.n for each in cells if each)
            marks = [places[key].get(method, 0) for key in design.keys]
            parts = [Part(f"mean, n={most}", [_mean(*each) for each in zip(cells, marks, strict=True)])]
            parts.append(Part("95% interval", [Shown(_spread(each)) for each in cells]))
            blocks.append(Block(method, parts))
    first = Grid(title, head, blocks, notes(found))
    return [first, *([_apart(found, head)] if found.differences else [])]


def _mean(cell: Crossed | None, place: int) -> Shown:
    return Shown(DASH) if cell is None else Shown(number(cell.value), place if place in (BEST, SECOND) else 0)


def _spread(cell: Crossed | Difference | None) -> str:
    return (ranged(cell.low, cell.high).strip() if cell else "") or DASH


def _apart(found: Results, head: Sequence[str]) -> Grid:
    study, base, blocks = found.study, found.reference, []
    known = {(each.variant, each.column): each for each in found.differences}
    for method in study.methods:
        mine = [known.get((method, key)) for key in study.design.keys]
        if any(mine):
            means = [Shown(signed(e.mean), BEST if e.clear else 0) if e else Shown(DASH) for e in mine]
            spread = [Shown(_spread(each)) for each in mine]
            chances = [Shown(chance(each.p_adjusted) if each else DASH) for each in mine]
            parts = [Part("difference", means), Part("95% interval", spread), Part("corrected p", chances)]
            blocks.append(Block(method, parts))
    note = (
        f"Each less '{base}', by the same rater on the same task; the interval is of the same kind. p: two-sided, of "
        f"no difference, corrected after Holm for all {len(found.differences)} comparisons. Marked where that p is at "
        "most .05."
    )
    return Grid(f"Compared with {base}", head, blocks, [note])


def notes(found: Results) -> list[str]:
    design, heard = found.study.design, found.heard
    clips = len({each.clip for each in found.said})
    wanted = f" of the {design.raters} that the design asks for" if design.raters else ""
    agree = ", ".join(f"{design.title(key)} {_alpha(each)}" for key, each in found.agree.items())
    about = [f"{design.about}."] if design.about else []
    told = [
        *about,
        f"{many(found.raters, 'rater')}{wanted}, {many(len({each.task for each in found.said}), 'task')} on "
        f"{many(clips, 'clip')}, "
        f"{len(found.said)} answers. Each number: {MEANS[design.kind]}; below it the {INTERVAL}. Best and second are "
        "marked; they are not tested.",
        f"Agreement of raters (Krippendorff's alpha, by {METRICS[design.metric]}; 1: full, 0: chance): {agree}.",
        rule(design, heard.most),
    ]
    slow = sorted(each.seconds for each in heard.said if each.seconds is not None)
    if slow:
        told.append(f"Half of the raters took at least {slow[len(slow) // 2] / 60:.1f} minutes.")
    return [*told, *(f"Left out: {what}: {why}." for what, why in heard.left_out)]


def many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _alpha(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else DASH


def cells(found: Results) -> list[dict[str, Any]]:
    apart = {(each.variant, each.column): each for each in found.differences}
    lines = []
    for (method, key), one in found.means.items():
        other = apart.get((method, key))
        lines.append(
            {
                **{"method": method, "criterion": key, "mean": one.value, "low": one.low, "high": one.high},
                **{"n": one.n, "raters": one.people, "clips": one.clips},
                "difference": other and other.mean,
                "p_adjusted": other and other.p_adjusted,
            }
        )
    return [_finite(each) for each in lines]


def record(found: Results) -> dict[str, Any]:
    study, heard = found.study, found.heard
    return {
        **{"study": study.id, "name": study.name, "kind": study.design.kind, "table": study.design.table},
        **{"raters": [each.rater for each in heard.said], "allowed": heard.most},
        "left_out": [{"what": what, "why": why} for what, why in heard.left_out],
        "cells": cells(found),
        "agreement": _finite(dict(found.agree)),
        "differences": [_finite(asdict(each)) for each in found.differences],
        "notes": notes(found),
        "comments": {each.rater: each.comment for each in heard.said if each.comment},
    }


def write(found: Results, out: Path) -> list[Path]:
    """The same kinds of files as a paper's table has."""
    made, table = grids(found), cells(found)
    text = io.StringIO()
    if table:
        writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    levels = list(enumerate(made, 1))
    texts = {
        ".md": "\n\n".join(render.markdown(grid, level) for level, grid in levels) + "\n",
        ".csv": text.getvalue(),
        ".json": json.dumps(record(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        ".html": render.html_page(made[0].title, [render.html_table(grid, level) for level, grid in levels]),
    }
    texts[".tex"] = "% Needs \\usepackage{booktabs} and \\usepackage{amssymb}.\n" + "\n\n".join(
        render.latex(grid, f"{found.study.name}-{level}") for level, grid in levels
    )
    try:
        for suffix, said in texts.items():
            write_text(out / f"results{suffix}", said)
    except OSError as error:
        raise cannot_write(out, error) from error
    return [out / f"results{suffix}" for suffix in texts]


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
