"""What a calibration comes to: the codebook, its curves for loggers, figures, a page, and the lines on the screen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from evaluation.tables import render
from evaluation.tables.grid import Grid, Shown, lines_of
from experiments.jobs.calibrate import NO_MASK
from experiments.loggers.base import Guarded
from experiments.report import alike, optimum
from experiments.runs.rows import write_text
from freemask.attention.record import parted
from freemask.masks.codebook import Codebook
from freemask.masks.mmc import Estimate, cost, match

SHOWN = 5
CURVES = "curves.png"
Row = Mapping[str, Any]


def codebook(rows: Sequence[Row], about: Mapping[str, Any], wanted: int) -> Codebook | None:
    """From all rows that are done so far; None where there are none."""
    done = [row for row in rows if row["status"] == "done"]
    if not done:
        return None
    first = done[0]
    clips = [row["clip"] for row in done]
    d = torch.tensor([row["iou"] for row in done], dtype=torch.float64)
    found = match(d, clips, floor=about["floor"])
    return Codebook(
        **{key: about[key] for key in ("model", "data", "binarise", "phrase", "heat", "overlap", "floor")},
        backbone=first["model"],
        words=sorted({row["word"] for row in done}),
        n=len(done),
        of=wanted - sum(row["status"] == NO_MASK for row in rows),
        clips=len(set(clips)),
        sites=first["sites"],
        strides=first["strides"],
        grids=first["grids"],
        times=first["times"],
        iou=[[round(value, 4) for value in line] for line in found.iou.tolist()],
        cost=[[round(value, 4) for value in line] for line in found.cost.tolist()],
        lmmc=[Estimate(*(round(value, 4) for value in each)) for each in found.lmmc],
        tmmc=[Estimate(*(round(value, 4) for value in each)) for each in found.tmmc],
        best_site=first["sites"][found.best_layer],
        best_time=first["times"][found.best_time],
        made={
            "steps": first["steps"],
            "commits": sorted({row["commit"] for row in done}),
            "finished": max(row["finished"] for row in done),
        },
        floors=[
            {
                "floor": each.floor,
                "share": round(each.share, 4),
                "best_site": first["sites"][each.best_layer],
                "best_time": first["times"][each.best_time],
            }
            for each in found.floors
        ],
        ceilings=_ceilings(done, about["floor"]),
    )


def _ceilings(done: Sequence[Row], floor: float) -> list[dict[str, float]]:
    """What each layer's grid allows; nothing where rows of an older version do not say it."""
    if not all("ceilings" in row for row in done):
        return []
    d = torch.tensor([row["ceilings"] for row in done], dtype=torch.float64)
    means = zip(d.mean(dim=0).tolist(), cost(d, floor).mean(dim=0).tolist(), strict=True)
    return [{"iou": round(iou, 4), "cost": round(least, 4)} for iou, least in means]


def log(logger: Guarded, book: Codebook) -> None:
    """The curves as points: the k-th holds the k-th layer's and the k-th time's cost."""
    curves = {"lmmc": ("layer", range(len(book.sites)), book.lmmc), "tmmc": ("time", book.times, book.tmmc)}
    for k in range(max(len(book.sites), len(book.times))):
        point: dict[str, float] = {}
        for name, (axis, places, found) in curves.items():
            if k < len(found):
                each = found[k]
                point |= {
                    axis: places[k],
                    name: each.mean,
                    f"{name}_low": each.low,
                    f"{name}_high": each.high,
                }
        logger.row({"task": f"point {k}", "metrics": point}, {})


def without_tables(row: Row) -> dict[str, Any]:
    """A row as loggers show it."""
    tables = ("iou", "ceilings", "sites", "strides", "grids", "times")
    return {key: value for key, value in row.items() if key not in tables}


def finish(folder: Path, run: Path, rows: Sequence[Row], book: Codebook | None, left: int) -> None:
    """Files in the folder of one model, then lines on the screen. Files of rows are named from the run's folder."""
    counts = {status: sum(row["status"] == status for row in rows) for status in ("done", "failed", NO_MASK)}
    said = f"{counts['done']} done, {counts['failed']} failed, {counts[NO_MASK]} without a mask, {left} left"
    if book is not None:
        book.write(folder / "codebook.json")
        _leave(folder, run, said, book, rows)
        ranking = _ranking(book)
        first = replace(ranking, title=f"{ranking.title}, the first {SHOWN}", blocks=ranking.blocks[:SHOWN])
        print("\n".join(_facts(book, rows)), render.text(first), sep="\n\n", end="\n\n")
    print(said)
    for row in [row for row in rows if row["status"] != "done"][:SHOWN]:
        print(f"  {row['status']}: {row['task']}: {row['message'].splitlines()[0]}")
    if counts["failed"]:
        print("  retry=failed does failed items again")
    if left:
        print("  the same command does the rest")
    if book is None:
        print(f"rows:                   {folder}")
        return
    print(f"codebook:               {folder / 'codebook.json'}")
    print(f"page to look at:        {folder / 'index.html'}")


def together(folder: Path, books: Mapping[str, Codebook]) -> None:
    """Several models in one figure, and the page around it."""
    from experiments.figures.mmc import curves

    curves(folder / CURVES, books)
    agreement = alike.between(books)
    parts = [_head(folder.name), _picture(CURVES), *([_lines(agreement)] if agreement else [])]
    for name, book in books.items():
        parts.append(f"<h2><a href='{quote(name)}/index.html'>{escape(name)}</a></h2>{_lines(_facts(book))}")
    write_text(folder / "index.html", render.html_page(folder.name, parts))
    print()
    for name, book in books.items():
        print(f"{name}: {'; '.join(_best(book))}")
    print(*agreement, sep="\n", end="\n" if agreement else "")
    print(f"all curves:             {folder / CURVES}")
    print(f"page to look at:        {folder / 'index.html'}")


def _leave(folder: Path, run: Path, said: str, book: Codebook, rows: Sequence[Row]) -> None:
    """The curves, pictures of the maps that were kept, and the page around them."""
    from experiments.figures.mmc import curves, maps

    curves(folder / CURVES, {book.model: book})
    parts = [_head(folder.name), _lines([said, *_facts(book, rows)]), _picture(CURVES)]
    for row in rows:
        kept = run / row.get("files", {}).get("maps", "none")
        if kept.is_file():
            picture = kept.with_suffix(".png")
            maps(picture, kept, f"'{row['word']}' in: {row['source']}", (book.best_site, book.best_time))
            parts.append(_picture(picture.relative_to(folder).as_posix()))
    parts.append(render.html_table(_ranking(book), 2))
    parts += [_lines([f"{row['task']}: {row['message']}"], "failed") for row in rows if row["message"]]
    write_text(folder / "index.html", render.html_page(folder.name, parts))


def _facts(book: Codebook, rows: Sequence[Row] = ()) -> list[str]:
    single, floors = book.best_map(), book.floors
    how = ", ".join(f"{key} {value}" for key, value in book.binarise.items())
    return [
        f"{book.model} ({book.backbone}): {book.n} of {book.of} items, {book.clips} clips; heat: {book.heat}, {how}; "
        f"{book.overlap} overlap, at least {book.floor} each; 95 % intervals over clips",
        *_best(book),
        f"mean overlap there: {book.overlap_at(book.best_site, book.best_time):.3f}",
        f"best single map: {single[0]} at {single[1]:g}, overlap {book.overlap_at(*single):.3f}",
        *_allowed(book),
        *([f"masks that miss (overlap at most {book.floor}): {floors[0]['share']:.1%}"] if floors else []),
        *([*optimum.told(rows, book), *alike.told(rows, book)] if rows else []),
        *([f"warning: {book.warning}"] if book.warning else []),
    ]


def _allowed(book: Codebook) -> list[str]:
    """What no mask of the best layer can exceed."""
    if not book.ceilings:
        return []
    place = list(book.sites).index(book.best_site)
    most, grid = book.ceilings[place], "x".join(map(str, book.grids[place]))
    return [f"its grid of {grid} cells allows: overlap {most['iou']:.3f}, LMMC {most['cost']:.2f}"]


def _best(book: Codebook) -> list[str]:
    layer = _spelled(book.lmmc[book.sites.index(book.best_site)])
    time = _spelled(book.tmmc[book.times.index(book.best_time)])
    return [f"best layer  {book.best_site}: LMMC {layer}", f"best time   {book.best_time:g}: TMMC {time}"]


def _ranking(book: Codebook) -> Grid:
    """Layers, the best first."""
    order = sorted(range(len(book.sites)), key=lambda i: book.lmmc[i].mean)
    lines = {}
    for i in order:
        overlap = sum(book.iou[i]) / len(book.times)
        cells = ["x".join(map(str, book.grids[i])), _spelled(book.lmmc[i]), f"{overlap:.3f}"]
        cells += [f"{book.ceilings[i]['iou']:.3f}"] if book.ceilings else []
        lines[book.sites[i]] = [Shown(each) for each in cells]
    columns = ["grid", "LMMC", "mean IoU", *(["IoU its grid allows"] if book.ceilings else [])]
    kind = "layer" if parted(book.best_site)[1] is None else "head"
    return Grid(f"{len(order)} {kind}s by LMMC", columns, lines_of(lines), corner=kind)


def _spelled(each: Estimate) -> str:
    return f"{each.mean:.2f} [{each.low:.2f}, {each.high:.2f}]"


def _head(name: str) -> str:
    return f"<h1>{escape(name)}</h1>"


def _lines(said: Sequence[str], kind: str = "") -> str:
    return f"<p class='{kind}'>{'<br>'.join(map(escape, said))}</p>"


def _picture(path: str) -> str:
    return f'<img src="{quote(path)}" alt="overlap by layer and time">'
