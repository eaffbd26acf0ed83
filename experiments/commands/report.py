"""`freemask report RUN`: one static page about a run, a run of variants, a sweep, or several of them."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from rich.console import Console

from experiments.cli.verb import Verb
from experiments.config.compose import plain
from experiments.config.options import Keys
from experiments.report.gather import Gathered, Variant
from experiments.report.page import Page, notices_of, write_page
from experiments.report.sources import Source, Sources, runs_of, sources_of
from experiments.runs.garbage import seldom_collected
from experiments.runs.rows import columns, read
from experiments.runs.run import find
from freemask.errors import UserError, nearest

VERB = Verb(
    "one page about a run that works from disk: tables, videos in step, worst and best cases, costs",
    prompts=("run", "title", "out", "reference"),
    paths=("paths.runs",),
    positional="run",
    examples=(
        "freemask report runs/demo",
        "freemask report demo variants=[mmc,average] reference=average",
        "freemask report runs/first runs/second out=both.html",
    ),
    keys=(
        "RUN               a run's folder or its name below paths.runs; a sweep's folder joins its runs",
        "out=FOLDER        or out=NAME.html; otherwise index.html in the run's folder",
        "title=TEXT        of the page",
        "variants=[a,b]    these alone",
        "reference=NAME    the variant that the others are compared with",
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


@seldom_collected()
def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    folders = [find(each, config["paths"]["runs"]) for each in _asked(options, flags.get("overrides", ()))]
    sources = sources_of(folders)
    path = _page_path(options.out, folders)
    with Console(stderr=True).status("reading rows"):
        gathered, sources = gather(sources, options, path.parent)
        title = options.title or " and ".join(each.resolve().name for each in folders)
        notices = [*notices_of(gathered), *_apart(sources.each)]
        reference = options.reference or sources.reference
        write_page(path, Page(title, reference, notices), gathered)
    done = gathered.count - gathered.failures
    named = f"{len(gathered.variants)} variants, " if len(gathered.variants) > 1 else ""
    print(f"{named}{done} done, {gathered.failures} failed")
    for each in notices:
        print(f"note: {each}")
    print(f"page to look at:        {path}")
    return 0


def gather(sources: Sources, options: Options, page: Path) -> tuple[Gathered, Sources]:
    """Reads all rows; files are linked from the page's folder."""
    gathered, kept = Gathered(), sources.only(options.names) if options.names else sources
    for source in kept.each:
        name = source.label or "run"
        gathered.describe(columns(source.folder))
        about = Variant(name, _link(source.folder, page))
        gathered.add(about, read(source.folder))
        if not source.label:
            about.name = str((about.about.get("method") or [source.folder.name])[0])
    names = [each.name for each in gathered.variants]
    if not names:
        raise UserError(
            "there are no rows yet",
            came=", ".join(str(each) for each in runs_of(kept.each)),
            expected="at least one edit that is done or has failed",
            todo="wait for the run, or freemask run name=NAME",
        )
    if options.reference is not None and options.reference not in names:
        raise UserError(
            "the reference is none of the variants",
            came=f"reference={options.reference}",
            expected=nearest(options.reference, names),
        )
    return gathered, kept


def _asked(options: Options, overrides: Sequence[str]) -> list[str]:
    """Every word without a key is a run; the configuration itself knows only the last of them."""
    parser = OverridesParser.create()
    said = [parser.parse_override(each) for each in overrides if re.match(r"run=", each)]
    found = [str(each.value()) for each in said if each.value() is not None]
    if not found and options.run is None:
        raise UserError(
            "which run?", came="nothing", expected="the folder of a run", todo="freemask report runs/NAME"
        )
    return list(dict.fromkeys(found)) or [str(options.run)]


def _page_path(out: str | None, folders: Sequence[Path]) -> Path:
    if out is None and len(folders) > 1:
        raise UserError(
            "several runs need a place for their page",
            came=" ".join(map(str, folders)),
            expected="a folder",
            todo="out=FOLDER",
        )
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


def _apart(sources: Sequence[Source]) -> list[str]:
    """Runs over different data or measured differently are shown together only with a word about it."""
    found = []
    for key, said in (("data", "different data"), ("metric", "different metrics")):
        if len({str(each.record.parts.get(key)) for each in sources if each.record.parts}) > 1:
            found.append(f"These runs have {said}: differences between them are not the variants' alone.")
    return found
