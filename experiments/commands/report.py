"""`freemask report RUN`: one static page about a run, a run of variants, a sweep, or several of them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omegaconf import DictConfig
from rich.console import Console

from experiments.cli.verb import Verb
from experiments.config.compose import plain
from experiments.config.options import Keys, every
from experiments.report.gather import PageVariant
from experiments.report.made import Made, made_by
from experiments.report.page import notices_of, write_page
from experiments.runs.rows import latest
from experiments.runs.run import find
from experiments.runs.sources import Source, different, no_rows, of_one, sources_of
from freemask.errors import UserError, nearest

VERB = Verb(
    "one page about a run that works from disk: tables, videos in step, worst and best cases, costs",
    prompts=("run", "title", "out", "reference"),
    paths=("paths.runs",),
    positional="run",
    several=True,
    reads_rows=True,
    names={"run": "runs"},
    examples=(
        "freemask report runs/demo",
        "freemask report demo variants=[mmc,average] reference=average",
        "freemask report runs/first runs/second out=both.html",
    ),
)


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/report.yaml."""

    run: str | None
    out: str | None
    title: str | None
    variants: Sequence[str] | str | None
    reference: str | None

    @property
    def names(self) -> Sequence[str] | None:
        return [self.variants] if isinstance(self.variants, str) else self.variants


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    folders = [find(each, config["paths"]["runs"]) for each in _asked(options, flags.get("overrides", ()))]
    path = _page_path(options.out, folders)
    with Console(stderr=True).status("reading rows"):
        sources = sources_of(folders)
        labels = [source.label for source in sources]
        for name in options.names or ():
            _check("variants", name, labels)
        chosen = [source for source in sources if source.label in (options.names or labels)]
        runs = {source.run.folder: source.run for source in chosen}
        made = {folder: made_by(run) for folder, run in runs.items()}
        found = (_variant(each, path.parent, made[each.run.folder].get(each.variant)) for each in chosen)
        variants = [each for each in found if each.rows]
        if not variants:
            raise no_rows(folders[0])
        if options.reference is not None:
            _check("reference", options.reference, [each.name for each in variants])
        reference = options.reference or (sources[0].run.record.reference if of_one(sources) else None)
        columns = {name: each for source in chosen for name, each in source.run.columns().items()}
        title = options.title or " and ".join(each.resolve().name for each in folders)
        notices = [*notices_of(variants), *different(chosen)]
        write_page(path, title, variants, columns, reference, notices)
    done = [row["status"] == "done" for each in variants for row in each.rows]
    named = f"{len(variants)} variants, " if len(variants) > 1 else ""
    print(f"{named}{sum(done)} done, {len(done) - sum(done)} failed")
    for each in notices:
        print(f"note: {each}")
    print(f"page to look at:        {path}")
    return 0


def _check(key: str, asked: str, names: Sequence[str]) -> None:
    if asked not in names:
        raise UserError(
            f"there is no variant '{asked}'", came=f"{key}={asked}", expected=nearest(asked, names)
        )


def _variant(source: Source, page: Path, made: Made | None) -> PageVariant:
    rows = list(latest(source.folder).values())
    method = rows[0].get("method") if rows else None
    name = source.label or str(method or source.folder.name)
    return PageVariant(name, rows, _link(source.folder, page), made)


def _asked(options: Options, overrides: Sequence[str]) -> list[str]:
    """Every word without a key is a run."""
    found = every(overrides, "run")
    if not found and options.run is None:
        raise UserError(
            "which run?", came="nothing", expected="the folder of a run", todo="freemask report runs/NAME"
        )
    return found or [str(options.run)]


def _page_path(out: str | None, folders: Sequence[Path]) -> Path:
    if out is None and len(folders) > 1:
        wrong = "several runs need a place for their page"
        raise UserError(wrong, came=" ".join(map(str, folders)), expected="a folder", todo="out=FOLDER")
    path = folders[0] if out is None else Path(out).expanduser()
    if path.suffix.lower() in (".html", ".htm"):
        return path
    if path.is_file():
        raise UserError("the page's place is a file", came=f"out={out}", expected="a folder, or a name.html")
    return path / "index.html"


def _link(folder: Path, page: Path) -> str:
    """The folder as a link from the page: relative, so that both can be moved together."""
    try:
        near = os.path.relpath(folder.resolve(), page.resolve())
    except ValueError:  # another drive
        return folder.resolve().as_uri() + "/"
    return "" if near == "." else quote(near.replace(os.sep, "/").encode("utf-8", "surrogateescape")) + "/"
