"""`freemask figure NAME`: a paper's figure from what runs and calibrations have left, as PNG and PDF."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from evaluation.tables.render import tex
from experiments.cli.verb import Verb
from experiments.config.compose import plain
from experiments.config.options import Keys
from experiments.figures.papers import FIGURES, SOURCE, PaperFigure, figure_of
from experiments.runs.garbage import seldom_collected
from experiments.runs.rows import write_text
from experiments.tables.lacking import content
from experiments.tables.rows import folders, stores
from freemask.errors import UserError, nearest

VERB = Verb(
    "a paper's figure from runs and calibrations: curves, ablation grids, pictures, as PNG and PDF",
    prompts=("name", "out"),
    paths=("paths.runs",),
    positional="name",
    examples=(
        "freemask figure freemask/1",
        "freemask figure freemask/4 tasks=[world-10000001-shape]",
        "freemask figure freemask/3 runs=[freemask-table2] out=paper",
    ),
    keys=(
        "NAME              freemask/1 freemask/3 freemask/4 freemask/5 fatezero/8 fatezero/9",
        "runs=[A,B]        whose frames; left out, those of the figure's own experiment",
        "tasks=[ID,...]    which edits; left out, the first ones that every line finished",
        "frames=N          of each clip",
        "out=FOLDER        where the .png and .pdf go",
    ),
)


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/figure.yaml."""

    name: str | None
    runs: str | Sequence[str] | None
    tasks: str | Sequence[str] | None
    frames: int
    out: str

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= 8:
            raise UserError("so many frames fit no figure", came=f"frames={self.frames}", expected="1 to 8")


@seldom_collected()
def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    figure, runs = figure_of(_name(options.name)), Path(config["paths"]["runs"]).expanduser()
    out = Path(options.out).expanduser()
    try:
        made, caption, missing = (_curves if figure.verb == "calibrate" else _pictures)(
            figure, options, runs, out
        )
        write_text(out / f"{figure.file_name}.tex", _latex(made, caption, figure.file_name))
    except OSError as error:
        raise UserError(
            "cannot write the figure", came=f"{out}: {error.strerror}", todo="out=FOLDER"
        ) from error
    print(caption)
    for line in missing:
        print(f"  missing: {line}")
    print("files: " + ", ".join(str(path) for path in [*made, out / f"{figure.file_name}.tex"]))
    return 0


def _name(asked: str | None) -> str:
    if asked is not None:
        return asked
    listed = "".join(f"\n    {name}  {figure.caption.partition(':')[0]}" for name, figure in FIGURES.items())
    raise UserError(
        "which figure?", came="no name", expected=f"one of{listed}", todo="freemask figure freemask/4"
    )


Made = tuple[list[Path], str, list[str]]


def _curves(figure: PaperFigure, options: Options, runs: Path, out: Path) -> Made:
    """The cost curves of every calibrated model, and the maps of the first that kept some."""
    from experiments.figures.calibrated import books, picture_of_maps
    from experiments.figures.mmc import curves

    found = books(_runs(figure, options, runs, need_rows=False))
    if not found:
        raise _nothing(figure, "no codebook")
    made = _both(out / f"{figure.file_name}-curves")
    for path in made:
        curves(path, {name: book for name, (book, _) in found.items()})
    caption = f"{figure.title}, ours. {figure.caption} Models: {', '.join(found)}."
    maps = _both(out / f"{figure.file_name}-maps")
    shown = next(
        (name for name, (book, folder) in found.items() if picture_of_maps(maps, book, folder)), None
    )
    if shown is not None:
        made += maps
        caption += (
            f" Maps of a word over layers (rows) and times (columns) of {shown}; the chosen ones are bold."
        )
    wanted = content(figure.experiment).get("models") or ()
    lacks = [
        f"{name}: {_command(figure)} (left out where its weights are missing)"
        for name in wanted
        if name not in found
    ]
    return made, caption, lacks


def _pictures(figure: PaperFigure, options: Options, runs: Path, out: Path) -> Made:
    from experiments.figures.frames import kept
    from experiments.figures.strips import Strips, draw

    every = [each for each in kept(_runs(figure, options, runs)) if each.line in figure.lines]
    if not every:
        raise _nothing(figure, "no finished edit with stored frames")
    tasks = _tasks(figure, options, every)
    by = {(each.line, each.task): each for each in every}
    pictures, missing = {}, []
    for key, label in figure.lines.items():
        if key == SOURCE:
            known = [next(by[name, task] for name in figure.lines if (name, task) in by) for task in tasks]
            pictures[label] = [each.clip(options.frames) for each in known]
            continue
        cells = [by[key, task].edited(options.frames) if (key, task) in by else None for task in tasks]
        if any(cells):
            pictures[label] = cells
        if not all(cells):
            missing.append(f"{label}: {_how(figure, key)}")
    titles = [_title(next(each for each in every if each.task == task)) for task in tasks]
    caption = f"{figure.title}, ours. {figure.caption}" + (
        f" Not there yet: {_names(missing)}." if missing else ""
    )
    made = _both(out / figure.file_name)
    draw(made, Strips(pictures, titles, figure.fold), caption)
    return made, caption, missing


def _runs(figure: PaperFigure, options: Options, runs: Path, need_rows: bool = True) -> list[Path]:
    if options.runs is not None:
        return folders(runs, [options.runs] if isinstance(options.runs, str) else list(options.runs))
    usual = runs / str(content(figure.experiment).get("name") or figure.file_name)
    if not stores(usual):
        raise _nothing(figure, f"no run {usual}")
    return [usual]


def _nothing(figure: PaperFigure, came: str) -> UserError:
    return UserError(
        f"there is nothing yet to draw {figure.name} from",
        came=came,
        expected=f"what experiment={figure.experiment} leaves, or runs=[NAME] with videos kept",
        todo=_command(figure),
    )


def _command(figure: PaperFigure) -> str:
    return f"freemask {figure.verb} experiment={figure.experiment}"


def _how(figure: PaperFigure, line: str) -> str:
    if line in (content(figure.experiment).get("variants") or {}):
        return f"{_command(figure)} only=[{line}]"
    return f"no method yet; of videos by its authors' code: freemask evaluate manifest=LIST.csv method_name={line}"


def _tasks(figure: PaperFigure, options: Options, every: Sequence[Any]) -> list[str]:
    """Those asked for; otherwise the first of each kind that most lines have."""
    lines: dict[str, set[str]] = {}
    for each in every:
        lines.setdefault(each.task, set()).add(each.line)
    asked = [options.tasks] if isinstance(options.tasks, str) else list(options.tasks or ())
    for task in asked:
        if task not in lines:
            raise UserError(
                f"no frames of the task '{task}' are there",
                came=f"tasks={options.tasks}",
                expected=nearest(task, lines),
            )
    kinds = {each.task: each.kind for each in every}
    chosen = []
    for kind in figure.kinds:
        mine = sorted((task for task in lines if kinds[task] == kind), key=lambda task: -len(lines[task]))
        chosen += mine[: figure.each]
    chosen = asked or chosen
    if not chosen:
        raise _nothing(figure, f"only edits of the kind {', '.join(sorted(set(kinds.values())))}")
    return chosen


def _title(edit: Any) -> str:
    return f"{edit.source} → {edit.target}"


def _names(missing: Sequence[str]) -> str:
    return ", ".join(each.partition(":")[0] for each in missing)


def _both(stem: Path) -> list[Path]:
    return [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "pdf")]


def _latex(made: Sequence[Path], caption: str, label: str) -> str:
    drawn = [
        f"  \\includegraphics[width=\\linewidth]{{{path.name}}}" for path in made if path.suffix == ".pdf"
    ]
    parts = [
        r"\begin{figure}",
        r"  \centering",
        *drawn,
        f"  \\caption{{{tex(caption)}}}",
        f"  \\label{{fig:{label}}}",
    ]
    return "\n".join([*parts, r"\end{figure}"]) + "\n"
