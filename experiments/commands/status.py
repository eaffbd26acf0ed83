"""`freemask status`: how far runs are, and who is at work. No torch."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli.verb import Verb
from experiments.runs.run import below, find
from experiments.runs.status import RunStatus, Tally
from freemask.errors import UserError

VERB = Verb(
    "how far runs are: done, failed, left, time to go, and who is at work",
    paths=("paths.runs",),
    positional="name",
    json=True,
    reads_rows=True,
    names={"name": "runs"},
    examples=("freemask status", "freemask status NAME", "freemask status runs/sweep --json"),
    notes=(
        "name=NAME|FOLDER   one run, or all below a folder; without it every run",
        "paths.runs=FOLDER  where the runs are",
    ),
)


def main(words: Sequence[str], flags: Mapping[str, Any]) -> int:
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    strange = sorted(set(given) - {"name", "paths.runs"})
    if strange:
        wrong = f"there is no key '{strange[0]}' in 'status'"
        expected = "a run's name or folder, and paths.runs=FOLDER"
        raise UserError(wrong, came=strange[0], expected=expected, todo="freemask status --help")
    runs = Path(given.get("paths.runs") or os.environ.get("FREEMASK_RUNS") or "runs").expanduser()
    place = find(given["name"], runs) if given.get("name") is not None else runs
    found = []
    for folder in below(place):
        try:
            found.append(RunStatus.read(folder))
        except UserError as error:  # one that cannot be read hides no other
            print(f"{folder}: {error.wrong}", file=sys.stderr)
    if flags.get("json"):
        print(json.dumps([each.record() for each in found], indent=1))
    else:
        whole = given.get("name") is not None
        print("\n\n".join(told(each, whole=whole) for each in found) or f"no runs in {runs}")
    return 0


def told(run: RunStatus, *, whole: bool) -> str:
    """One line for a run without names, or a line for each variant; then time to go, and who is at work."""
    lines = [str(run.folder)]
    if list(run.variants) == [""]:
        lines[0] += f": {_counts(run.variants[''])}"
    else:
        lines += _table(run)
    lines += [f"  {line}" for line in _ahead(run)]
    if whole:
        for worker in run.workers:
            variant = f"{worker.variant}: " if worker.variant else ""
            doing = "between two items" if worker.item is None else f"{variant}{worker.item}"
            lines.append(f"  at work: {worker.host} process {worker.pid}: {doing}")
        between = run.between()
        if between is not None:
            lines.append(f"  between two of them: {between:.1f} s (loading, files, waiting)")
    return "\n".join(lines)


def _ahead(run: RunStatus) -> list[str]:
    left = [tally.left for tally in run.variants.values()]
    if any(each is None for each in left):
        return [_workers(run)] if run.workers else []
    if not any(left):
        failed = any(tally.of("failed") for tally in run.variants.values())
        return ["finished" + ("; retry=failed does failed tasks again" if failed else "")]
    seconds = run.seconds_left()
    time = "time to go is not known yet" if seconds is None else f"about {_span(seconds)} to go"
    return [f"{time} with {_workers(run)}"]


def _workers(run: RunStatus) -> str:
    count = len(run.workers)
    return "one worker; nobody is at work now" if not count else f"{count} worker{'s' * (count > 1)} at work"


def _counts(tally: Tally) -> str:
    left = "" if tally.left is None else f", {tally.left} left"
    return f"{tally.of('done')} done, {tally.of('failed')} failed{left}"


def _table(run: RunStatus) -> list[str]:
    rows: list[tuple[object, ...]] = [("", "done", "failed", "left", "s / edit")]
    for name, tally in run.variants.items():
        left = "?" if tally.left is None else tally.left
        mean = "-" if tally.mean is None else f"{tally.mean:.1f}"
        rows.append((name, tally.of("done"), tally.of("failed"), left, mean))
    wide = max(map(len, run.variants))
    return [f"  {name:<{wide}}" + "".join(f"  {each:>8}" for each in numbers) for name, *numbers in rows]


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
