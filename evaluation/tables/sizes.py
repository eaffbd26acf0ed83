"""Lines of one table that were measured at different sizes: their numbers are of different pictures."""

from collections.abc import Iterable, Mapping, Sequence

from evaluation.stats.values import Row

SHOWN = 3


def unlike(lines: Mapping[str, Iterable[Row]]) -> list[str]:
    """A sentence where a task of several lines was measured at several sizes. Videos made elsewhere are measured as
    large as their sources are read, which is the user's to choose; an edit has the size that its model took."""
    found: dict[str, dict[tuple[int, ...], list[Row]]] = {}
    names: dict[tuple[int, ...], dict[str, None]] = {}
    for name, rows in lines.items():
        for row in rows:
            size = tuple((row.get("frames") or ())[-2:])
            if row.get("status") == "done" and size:
                found.setdefault(str(row.get("task")), {}).setdefault(size, []).append(row)
                names.setdefault(size, {})[name] = None
    apart = [each for each in found.values() if len(each) > 1]
    if not apart:
        return []
    sizes = sorted({size for each in apart for size in each})
    listed = "; ".join(f"{wide}x{high} ({_some(list(names[high, wide]))})" for high, wide in sizes)
    said = f"The same tasks were measured at different sizes, so that their numbers must not be compared: {listed}."
    rows = [(size, row) for each in apart for size, group in each.items() for row in group]
    own = {size for size, row in rows if not row.get("outside")}
    if len(own) == 1:  # then all others came from outside
        ((high, wide),) = own
        said += (
            f" `freemask evaluate` measures videos made elsewhere at {wide}x{high}, too, with "
            f"data.geometry.height={high} data.geometry.width={wide} and another name=..."
        )
    return [said]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
