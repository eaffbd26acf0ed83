"""`freemask figure NAME`: a paper's figure from what runs and calibrations have left, as PNG and PDF."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from evaluation.tables.render import tex
from experiments.cli.verb import Verb
from experiments.config.compose import plain
from experiments.config.options import Keys
from experiments.figures.papers import LEFT, SOURCE, PaperFigure, figure_of, variant_of
from experiments.runs.rows import write_text
from experiments.runs.run import find
from experiments.tables.lacking import content
from experiments.tables.rows import folders
from freemask.errors import UserError, nearest

if TYPE_CHECKING:
    from experiments.figures.stored import Kept

VERB = Verb(
    "a paper's figure: curves, grids and pictures from runs and calibrations, or measured, as PNG and PDF",
    prompts=("name", "out", "change"),
    paths=("paths.runs",),
    positional="name",
    reads_rows=True,
    names={"name": "figures", "runs": "runs"},
    examples=(
        "freemask figure freemask/1",
        "freemask figure freemask/4 tasks=[world-10000001-shape]",
        "freemask figure freemask/3 runs=[freemask-fig3-davis] out=paper",
        "freemask figure st-modulator/7 change='method.steps=50 method.within=0.3'",
    ),
)


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/figure.yaml."""

    name: str | None
    runs: str | Sequence[str] | None
    tasks: str | Sequence[str] | None
    change: str | None
    frames: int | None
    out: str

    def __post_init__(self) -> None:
        if self.frames is not None and not 1 <= self.frames <= 8:
            raise UserError("so many frames fit no figure", came=f"frames={self.frames}", expected="1 to 8")


@dataclass(frozen=True)
class Drawn:
    """Pictures as they lie in the folder, and what is missing in them, each with its remedy."""

    files: Sequence[Path]
    caption: str
    missing: Sequence[str]


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    figure, out = figure_of(options.name), Path(options.out).expanduser()
    _refuse_unread(figure, options)
    measured = figure.verb == "figure"
    runs = [] if measured else _runs(figure, options, Path(config["paths"]["runs"]).expanduser())
    snippet = out / f"{figure.file_name}.tex"
    draw = {"calibrate": _curves, "run": _strips, "figure": _measured}[figure.verb]
    try:
        made = draw(figure, options, runs, out)
        write_text(snippet, _latex(made, figure.file_name))
    except OSError as error:
        came = f"{out}: {error.strerror}"
        raise UserError("cannot write the figure", came=came, todo="out=FOLDER") from error
    print("\n".join([made.caption, *(f"  missing: {line}" for line in made.missing)]))
    print("files: " + ", ".join(str(path) for path in [*made.files, snippet]))
    return 0


def _runs(figure: PaperFigure, options: Options, runs: Path) -> list[Path]:
    """Those asked for, or the one that the figure's experiment makes."""
    usual = str(content(figure.experiment).get("name") or figure.file_name)
    if options.runs is None and not (runs / usual).is_dir():
        raise _nothing(figure, f"no run {runs / usual}")
    named = [usual] if options.runs is None else _list(options.runs)
    return [find(each, runs) for each in named] if figure.verb == "calibrate" else folders(runs, named)


def _curves(figure: PaperFigure, options: Options, runs: Sequence[Path], out: Path) -> Drawn:
    """The cost curves of every calibrated model, and the maps of the first that kept some."""
    from experiments.figures.mmc import curves
    from experiments.figures.stored import books, draw_maps

    found = books(runs)
    if not found:
        raise _nothing(figure, "no codebook")
    files = _both(out / f"{figure.file_name}-curves")
    for path in files:
        curves(path, {name: book for name, (book, _) in found.items()})
    caption = f"{figure.title}, ours. {figure.caption} Models: {', '.join(found)}."
    maps = _both(out / f"{figure.file_name}-maps")
    shown = next((name for name, each in found.items() if draw_maps(maps, *each)), None)
    if shown is not None:
        files += maps
        caption += f" Maps of a word over layers (rows) and times (columns) of {shown}; the best are bold."
    wanted = content(figure.experiment).get("models") or ()
    how = f"{figure.command} (left out where its weights are missing)"
    return Drawn(files, caption, [f"{name}: {how}" for name in wanted if name not in found])


def _strips(figure: PaperFigure, options: Options, runs: Sequence[Path], out: Path) -> Drawn:
    """A line of frames for each variant; a label without any frames is only named."""
    from experiments.figures.stored import kept
    from experiments.figures.strips import Strips, draw

    found, count = kept(runs), options.frames or figure.frames
    every = [each for each in found if each.line in figure.lines]
    if not every:
        raise _nothing(figure, _no_line(figure, {each.line for each in found}, runs))
    tasks = _tasks(figure, _list(options.tasks), every)
    by = {(each.line, each.task): each for each in every}
    first = [next(by[line, task] for line in figure.lines if (line, task) in by) for task in tasks]
    pictures, missing = {}, {}
    for line, label in figure.lines.items():
        if line == SOURCE:
            pictures[label] = [each.clip(count) for each in first]
            continue
        variant = variant_of(line)
        cells = [each and _shown(each, line, count) for each in (by.get((variant, task)) for task in tasks)]
        if any(cells):
            pictures[label] = cells
        if not all(cells):
            missing[label] = _how(figure, variant)
    lacks = f" Not there yet: {', '.join(missing)}." if missing else ""
    caption = f"{figure.title}, ours. {figure.caption}{lacks}"
    files = _both(out / figure.file_name)
    titles = [f"{each.source} → {each.target}" for each in first]
    draw(files, Strips(pictures, titles, figure.fold), caption)
    return Drawn(files, caption, [f"{label}: {how}" for label, how in missing.items()])


def _shown(edit: "Kept", line: str, count: int) -> Sequence[Any] | None:
    left = LEFT.fullmatch(line)
    if left:
        return edit.left(left[1], count)
    return edit.edited(count) if line == edit.line else edit.masked(count)


def _measured(figure: PaperFigure, options: Options, runs: Sequence[Path], out: Path) -> Drawn:
    """Measured here and now, on one edit of the figure's experiment."""
    from experiments.figures.setting import Setting
    from experiments.figures.strips import draw

    module = import_module(f"experiments.figures.{figure.measured}")
    out.mkdir(parents=True, exist_ok=True)  # before the long part
    setting = Setting.of(figure.experiment, shlex.split(options.change or ""), _list(options.tasks))
    found = module.measured(setting, options.frames or figure.frames)
    caption = f"{figure.title}, ours. {figure.caption} {found.about}"
    files = []
    for ending, strips in found.grids.items():
        paths = _both(out / (f"{figure.file_name}-{ending}" if ending else figure.file_name))
        draw(paths, replace(strips, fold=strips.fold or figure.fold), caption)
        files += paths
    return Drawn(files, caption, [])


def _refuse_unread(figure: PaperFigure, options: Options) -> None:
    measured = figure.verb == "figure"
    name = "runs" if measured else "change"
    if (value := getattr(options, name)) is not None:
        how = "measured while it is drawn" if measured else "made of what a run has left"
        other = "change='KEY=VALUE ...'" if measured else f"{figure.command} with these overrides"
        raise UserError(f"{figure.name} is {how}: it reads no {name}", came=f"{name}={value}", todo=other)


def _tasks(figure: PaperFigure, asked: Sequence[str], every: Sequence["Kept"]) -> Sequence[str]:
    """Those asked for; otherwise the first of each kind that most lines have, or the worst."""
    kinds = {each.task: each.kind for each in every}
    for task in asked:
        if task not in kinds:
            wrong, came = f"no frames of the task '{task}' are there", f"tasks=[{','.join(asked)}]"
            raise UserError(wrong, came=came, expected=nearest(task, kinds))
    lines: dict[str, set[str]] = {}
    for each in every:
        lines.setdefault(each.task, set()).add(each.line)
    last, worst = [*figure.lines][-1:], figure.worst_by
    of = {each.task: each.value(worst) for each in every if worst and each.line in last}
    by_lines = sorted(kinds, key=lambda task: (-len(lines[task]), of.get(task, 0)))
    usual = [[task for task in by_lines if kinds[task] == kind][: figure.each] for kind in figure.kinds]
    chosen = asked or sum(usual, [])
    if not chosen:
        raise _nothing(figure, f"only edits of the kind {', '.join(sorted(set(kinds.values())))}")
    return chosen


def _no_line(figure: PaperFigure, found: Collection[str], runs: Sequence[Path]) -> str:
    """Lines are found by name: those that were looked for, and those that are there."""
    variants = dict.fromkeys(variant_of(line) for line in figure.lines if line != SOURCE)
    wanted = ", ".join(variants)
    there = ", ".join(sorted(found)) or "no finished edit with stored frames"
    where = ", ".join(map(str, runs))
    return f"{there} in {where}; looked for were variants (or methods) called {wanted}"


def _nothing(figure: PaperFigure, came: str) -> UserError:
    return UserError(
        f"there is nothing yet to draw {figure.name} from",
        came=came,
        expected=f"what experiment={figure.experiment} leaves, or runs=[NAME] with videos kept",
        todo=figure.command,
    )


def _how(figure: PaperFigure, line: str) -> str:
    if line in (content(figure.experiment).get("variants") or {}):
        return f"{figure.command} only=[{line}]"
    return f"no method yet; of videos by its authors' code: freemask evaluate manifest=LIST.csv method_name={line}"


def _list(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _both(stem: Path) -> list[Path]:
    return [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "pdf")]


def _latex(made: Drawn, label: str) -> str:
    drawn = [
        rf"\includegraphics[width=\linewidth]{{{path.name}}}" for path in made.files if path.suffix == ".pdf"
    ]
    inside = [r"\centering", *drawn, rf"\caption{{{tex(made.caption)}}}", rf"\label{{fig:{label}}}"]
    return "\n  ".join([r"\begin{figure}", *inside]) + "\n" + r"\end{figure}" + "\n"
