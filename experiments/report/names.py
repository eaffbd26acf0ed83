"""Names for runs that are shown together: what is different about them, in the words of the command line."""

from collections.abc import Mapping, Sequence

from experiments.runs.record import Record

MOST = 80
# Keys of a launch: what they say changes no number.
LAUNCH = ("name", "paths", "runner", "logger", "keep", "limit", "start", "retry", "only", "reference")


def tell_apart(records: Sequence[Record]) -> list[str]:
    """`mask=mmc fusion.temporal=false`: only what differs; an empty text where nothing is known to."""
    groups = [
        g for g in _keys([each.choices for each in records]) if len({r.choices.get(g) for r in records}) > 1
    ]
    found = []
    for record in records:
        words = [f"{group}={record.choices[group]}" for group in groups if record.choices.get(group)]
        for each in record.overrides:
            everywhere = all(each in other.overrides for other in records)
            key = each.lstrip("+").partition("=")[0]
            if not everywhere and key not in groups and key.partition(".")[0] not in LAUNCH:
                words.append(each)
        found.append(_cut(" ".join(words)))
    return found


def _keys(mappings: Sequence[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(key for each in mappings for key in each))


def _cut(text: str) -> str:
    return text if len(text) <= MOST else text[: MOST - 1] + "…"
