"""The state of a run in words, for a terminal."""

from collections.abc import Sequence

from experiments.commands.status import RunStatus, Tally


def told(run: RunStatus, *, whole: bool) -> str:
    """One line for a run without names, or a line for each variant; then time to go, and who is at work."""
    lines = [str(run.folder)]
    if list(run.variants) == [""]:
        lines[0] += f": {_counts(run.variants[''])}"
    else:
        lines += _table(run)
    lines += [f"  {line}" for line in _ahead(run)]
    if whole:
        tasks = {each["writer"]: _task(each["variant"], each["task"]) for each in run.doing}
        for worker in run.workers:
            where = f"{worker.host.partition(':')[0]} process {worker.pid}"
            lines.append(f"  at work: {where}: {tasks.get(worker.writer, 'between two tasks')}")
        overhead = run.overhead()
        if overhead is not None:
            lines.append(f"  between edits: {overhead:.1%} of the edits' own time")
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
    head = ["", "done", "failed", "left", "s / edit"]
    rows = [
        [
            name,
            str(tally.of("done")),
            str(tally.of("failed")),
            "?" if tally.left is None else str(tally.left),
            "-" if tally.mean is None else f"{tally.mean:.1f}",
        ]
        for name, tally in run.variants.items()
    ]
    return _aligned([head, *rows])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _task(variant: str, task: str) -> str:
    return f"{variant}: {task}" if variant else task


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
