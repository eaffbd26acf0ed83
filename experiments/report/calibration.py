"""What a calibration comes to: the codebook, its curves for loggers, figures, a page, and the lines on the screen."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from experiments.jobs.calibrate import NO_MASK
from experiments.loggers.base import Guarded
from experiments.report.page import STYLE
from experiments.runs.rows import write_text
from freemask.masks.codebook import Codebook
from freemask.masks.mmc import Estimate, match

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
        **{key: about[key] for key in ("model", "data", "binarise", "phrase", "overlap", "floor")},
        backbone=first["model"],
        words=sorted({row["word"] for row in done}),
        n=len(done),
        of=wanted - sum(row["status"] == NO_MASK for row in rows),
        clips=len(set(clips)),
        sites=first["sites"],
        strides=first["strides"],
        grids=first["grids"],
        times=first["times"],
        iou=_rounded(found.iou.tolist()),
        cost=_rounded(found.cost.tolist()),
        lmmc=[_estimate(each) for each in found.lmmc],
        tmmc=[_estimate(each) for each in found.tmmc],
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
    )


def log(logger: Guarded, book: Codebook) -> None:
    """The curves as points: the k-th holds the k-th layer's and the k-th time's cost."""
    for k in range(max(len(book.sites), len(book.times))):
        point: dict[str, float] = {}
        if k < len(book.sites):
            point |= {"layer": k} | _named("lmmc", book.lmmc[k])
        if k < len(book.times):
            point |= {"time": book.times[k]} | _named("tmmc", book.tmmc[k])
        logger.row({"task": f"point {k}", "metrics": point}, {})


def without_tables(row: Row) -> dict[str, Any]:
    """A row as loggers show it."""
    return {
        key: value for key, value in row.items() if key not in ("iou", "sites", "strides", "grids", "times")
    }


def finish(folder: Path, run: Path, rows: Sequence[Row], book: Codebook | None, left: int) -> None:
    """Files in the folder of one model, then lines on the screen. Files of rows are named from the run's folder."""
    counts = {status: sum(row["status"] == status for row in rows) for status in ("done", "failed", NO_MASK)}
    said = f"{counts['done']} done, {counts['failed']} failed, {counts[NO_MASK]} without a mask, {left} left"
    if book is not None:
        pictures = _figures(folder, run, rows, book)
        book.write(folder / "codebook.json")
        write_text(folder / "index.html", page(folder.name, said, book, pictures, rows))
        print(summary(book))
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
    parts = [_picture(CURVES, "costs by time and by layer")]
    parts += [
        f"<h2><a href='{quote(name)}/index.html'>{_text(name)}</a></h2>{_about(books[name])}"
        for name in books
    ]
    write_text(folder / "index.html", _document(folder.name, parts))
    print()
    for name, book in books.items():
        layer, time = _best(book)
        print(f"{name}: {layer}; {time}")
    print(f"all curves:             {folder / CURVES}")
    print(f"page to look at:        {folder / 'index.html'}")


def summary(book: Codebook) -> str:
    layer, time = _best(book)
    single = book.best_map()
    head = [
        f"{book.model}: {book.n} of {book.of} items, {book.clips} clips, {book.overlap} overlap",
        f"best layer  {layer}",
        f"best time   {time}",
        f"overlap there, mean over items: {book.overlap_at(book.best_site, book.best_time):.3f}",
        f"best single map: {single[0]} at {single[1]}, overlap {book.overlap_at(*single):.3f}",
        "",
        f"layers by LMMC, the first {min(SHOWN, len(book.sites))} of {len(book.sites)}",
    ]
    lines = [
        f"  {cells[0]:<62} {cells[1]:>7}  {cells[2]:>22}  {cells[3]:>6}" for cells in _ranking(book)[:SHOWN]
    ]
    if book.floors:
        head.insert(-2, f"masks that miss (overlap at most {book.floor}): {book.floors[0]['share']:.1%}")
    if book.warning:
        head.insert(-2, f"warning: {book.warning}")
    head.append(f"  {'layer':<62} {'grid':>7}  {'LMMC':>22}  {'IoU':>6}")
    return "\n".join(head + lines)


def page(name: str, said: str, book: Codebook, pictures: Sequence[str], rows: Sequence[Row]) -> str:
    cells = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in line) + "</tr>" for line in _ranking(book)
    )
    parts = [
        f"<p class='quiet'>{_text(said)}</p>",
        _about(book),
        _picture(CURVES, "costs by time and by layer"),
        *(_picture(each, "maps of a word by layer and time") for each in pictures),
        f"<table><tr><th>layer</th><th>grid</th><th>LMMC</th><th>mean IoU</th></tr>{cells}</table>",
        *(
            f"<p class='failed'>{_text(row['task'])}: {_text(row['message'])}</p>"
            for row in rows
            if row["message"]
        ),
    ]
    return _document(name, parts)


def _figures(folder: Path, run: Path, rows: Sequence[Row], book: Codebook) -> list[str]:
    """Draws them; gives the pictures of maps, relative to the folder."""
    from experiments.figures.mmc import curves, maps

    curves(folder / CURVES, {book.model: book})
    made = []
    for row in rows:
        kept = run / row.get("files", {}).get("maps", "none")
        if kept.is_file():
            picture = kept.with_suffix(".png")
            maps(picture, kept, f"'{row['word']}' in: {row['source']}", (book.best_site, book.best_time))
            made.append(picture.relative_to(folder).as_posix())
    return made


def _about(book: Codebook) -> str:
    layer, time = _best(book)
    single = book.best_map()
    how = ", ".join(f"{key} {value}" for key, value in book.binarise.items())
    return (
        f"<p>best layer <b>{_text(layer)}</b><br>best time <b>{_text(time)}</b><br>"
        f"mean overlap there {book.overlap_at(book.best_site, book.best_time):.3f}; of the best single map "
        f"({_text(single[0])} at {single[1]}) {book.overlap_at(*single):.3f}</p>"
        f"<p class='quiet'>{_text(book.model)} ({_text(book.backbone)}); "
        f"{book.n} of {book.of} items, {book.clips} clips; {_text(how)}; "
        f"{_text(book.overlap)} overlap, at least {book.floor} each; "
        "95 % intervals over clips</p>"
        + (f"<p class='failed'>{_text(book.warning)}</p>" if book.warning else "")
    )


def _best(book: Codebook) -> tuple[str, str]:
    layer = _spelled(book.lmmc[book.sites.index(book.best_site)])
    time = _spelled(book.tmmc[book.times.index(book.best_time)])
    return f"{book.best_site}: LMMC {layer}", f"{book.best_time}: TMMC {time}"


def _ranking(book: Codebook) -> list[tuple[str, str, str, str]]:
    """Layers, the best first: name, grid, LMMC, mean IoU over times."""
    order = sorted(range(len(book.sites)), key=lambda i: book.lmmc[i].mean)
    return [
        (
            book.sites[i],
            "x".join(map(str, book.grids[i])),
            _spelled(book.lmmc[i]),
            f"{sum(book.iou[i]) / len(book.times):.3f}",
        )
        for i in order
    ]


def _spelled(each: Estimate) -> str:
    return f"{each.mean:.2f} [{each.low:.2f}, {each.high:.2f}]"


def _estimate(each: Estimate) -> Estimate:
    return Estimate(*(round(value, 4) for value in each))


def _rounded(rows: list[list[float]]) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in rows]


def _named(name: str, each: Estimate) -> dict[str, float]:
    return {name: each.mean, f"{name}_low": each.low, f"{name}_high": each.high}


def _picture(path: str, words: str) -> str:
    return f'<img src="{quote(path)}" alt="{_text(words)}">'


def _document(name: str, parts: Sequence[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(name)}</title><style>{STYLE}</style></head>\n<body>\n<h1>{_text(name)}</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _text(words: object) -> str:
    return html.escape(str(words))
