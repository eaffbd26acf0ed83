"""Names for runs that are shown together: what is different about them, in the words of the command line."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from experiments.config import choices

# Where a group's options land in a run's record, and what of it is no choice of the user's.
PLACES = {
    "model": "model",
    "method": "method",
    "mask": "method.mask",
    "fusion": "method.fusion",
    "data": "data",
}
DERIVED = ("weights", "task_list", "codebook of")
MOST = 80


def tell_apart(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """`mask=mmc fusion.temporal=false`: only what differs; an empty text where nothing is known to."""
    flat = [dict(_flat(each)) for each in records]
    chosen = [{group: _option(group, each) for group in PLACES} for each in records]
    keys = [key for key in dict.fromkeys(key for each in flat for key in each) if _differ(flat, key)]
    groups = [group for group in PLACES if len({str(each[group]) for each in chosen}) > 1]
    kept = [key for key in keys if not _explained(key, flat, chosen, groups)]
    found = []
    for each, own in zip(flat, chosen, strict=True):
        words = [f"{group}={own[group]}" for group in groups if own[group]]
        words += [f"{_short(key)}={_plain(each[key])}" for key in kept if key in each]
        found.append(_cut(" ".join(words)))
    return found


def _differ(flat: Sequence[Mapping[str, Any]], key: str) -> bool:
    return len({repr(each.get(key)) for each in flat}) > 1


def _explained(
    key: str,
    flat: Sequence[Mapping[str, Any]],
    chosen: Sequence[Mapping[str, str | None]],
    groups: Sequence[str],
) -> bool:
    """Whether the chosen options say it: every run has there what its own option has."""
    if any(part.startswith(DERIVED) for part in key.split(".")):
        return True
    group = _group(key)
    if group not in groups:
        return False
    inner = key.removeprefix(PLACES[group]).lstrip(".")
    return all(
        _as_in_option(group, own[group], inner, each.get(key)) for each, own in zip(flat, chosen, strict=True)
    )


def _as_in_option(group: str, name: str | None, inner: str, value: Any) -> bool:
    if name is None:
        return False
    given = _content(group, name)
    written = str(given.get(inner, ""))
    return inner not in given or "${" in written or given[inner] == value


def _group(key: str) -> str:
    """The group with the longest place that the key lies in."""
    inside = [group for group, place in PLACES.items() if key == place or key.startswith(f"{place}.")]
    return max(inside, key=lambda group: len(PLACES[group]), default="")


def _option(group: str, record: Mapping[str, Any]) -> str | None:
    """The option that a part of the record was made from: the one most of whose keys it has."""
    node: Any = record
    for step in PLACES[group].split("."):
        node = node.get(step) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        return None
    own = dict(_flat(node))
    scores: dict[str, int] = {}
    for each in choices.group(group):
        given = _content(group, each.name)
        if given.get("_target_") == node.get("_target_"):
            pairs = [(key, value) for key, value in given.items() if "${" not in str(value) and key in own]
            scores[each.name] = sum(1 if own[key] == value else -1 for key, value in pairs)
    best = [name for name, score in scores.items() if score == max(scores.values())]
    return best[0] if best else str(node.get("_target_", "")).rpartition(".")[2] or None


@cache
def _content(group: str, name: str) -> dict[str, Any]:
    """An option's keys; those that it takes from another option of its group are filled in."""
    given = choices.content(group, name)
    found: dict[str, Any] = {}
    for base in given.pop("defaults", ()):
        known = {each.name for each in choices.group(group)}
        if isinstance(base, str) and base in known and base != name:
            found |= _content(group, base)
    return found | dict(_flat(given))


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def _short(key: str) -> str:
    """method.mask.x as the user wrote it: mask.x."""
    group = _group(key)
    return f"{group}{key.removeprefix(PLACES[group])}" if group else key


def _plain(value: Any) -> str:
    return (
        {None: "null", True: "true", False: "false"}.get(value, str(value)) if _simple(value) else str(value)
    )


def _simple(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _cut(text: str) -> str:
    return text if len(text) <= MOST else text[: MOST - 1] + "…"
