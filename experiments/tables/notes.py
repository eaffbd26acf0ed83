"""The sentences below a paper's table: what the numbers are, and which of them must not be compared."""

from collections.abc import Mapping

from evaluation.tables import sizes
from evaluation.tables.filled import UNIFORM, Filled
from evaluation.tables.run import INTERVAL


def notes(filled: Filled) -> list[str]:
    return [
        f"Ours: mean over tasks, of which seeds are averaged first; below it the {INTERVAL}. Failures enter no mean. "
        "Mean rank: over the measured columns, 1 is best. Best and second are marked among ours (over the tasks that "
        "all lines have) and among the published values, apart; they are not tested.",
        *_source(filled.table.source),
        *_study(filled),
        *_obstacles(filled),
        *sizes.unlike({line.title: line.rows for line in filled.lines}),
        *_made(filled),
        *_left_out(filled),
    ]


def _source(source: Mapping) -> list[str]:
    said = f"Published: {source['paper']}, Table {source['table']}"
    more = [f"{key}: {source[key]}" for key in ("clips", "networks") if source.get(key)]
    return ["; ".join([said, *more]) + "."]


def _study(filled: Filled) -> list[str]:
    asked = [column.title for column in filled.table.columns if column.study]
    if not asked:
        return []
    if filled.people:
        first, *others = filled.people
        return [f"† {', '.join(asked)}: published, a user study of the paper; ours, {first}", *others]
    return [
        f"† {', '.join(asked)}: a user study of the paper. Published values only; nothing here stands for people."
    ]


def _obstacles(filled: Filled) -> list[str]:
    """Why some differences to the published values are not shown."""
    found = []
    measured = [line for line in filled.lines if line.published and line.cells]
    world = [line.title for line in measured if line.of_world]
    if world:
        which = "All of our lines are" if len(world) == len(measured) else f"{', '.join(world)}:"
        found.append(
            f"{which} measured on clips of the embedded world, which are not the paper's: "
            "no difference to a published value is shown."
        )
    for column in filled.table.columns:
        reason = filled.obstacles.get(column.key)
        if reason and any(column.key in line.cells for line in filled.lines):
            found.append(f"{column.title}: {reason}; no difference is shown.")
    used = [
        f"{c.title} is {filled.chosen[c.key]}" + ("" if c.scale == 1 else f" times {c.scale:.4g}")
        for c in filled.table.columns
        if c.key in filled.chosen
    ]
    return [*found, *([f"Our columns: {', '.join(used)}."] if used else [])]


def _made(filled: Filled) -> list[str]:
    """Commits, and whatever was mixed because it was asked for."""
    lines = [line for line in filled.lines if line.rows]
    found = []
    commits = sorted({commit for line in lines for commit in line.values("commit")})
    if len(commits) == 1:
        found.append(f"All rows are of commit {commits[0]}.")
    for line in lines if len(commits) > 1 else ():
        found.append(f"{line.title}: commit {', '.join(line.values('commit'))}.")
    for key, called in UNIFORM.items():
        for line in lines:
            if len(line.values(key)) > 1:
                found.append(
                    f"{line.title} averages over {len(line.values(key))} {called}, as was asked for."
                )
    dirty = [line.title for line in lines if any(row.get("dirty") for row in line.rows)]
    if dirty:
        found.append(f"Made with local changes to that commit: {', '.join(dirty)}.")
    return found


def _left_out(filled: Filled) -> list[str]:
    copies = sum(line.copies for line in filled.lines)
    found = [f"{copies} rows are of edits that lie in several folders, which count once."] if copies else []
    if filled.nameless:
        found.append(
            f"{filled.nameless} rows are left out: they do not say which method and masks they were made with. Run "
            "again with this version, which writes that down."
        )
    return found
