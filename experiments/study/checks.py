"""What shows that a rater looks: items that say what to choose, clips that nobody has edited, items that come twice."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.study.design import Design
from experiments.study.drawn import Turn
from experiments.study.folder import SOURCE, Study

Given = Sequence[tuple[Turn, Mapping[str, Any]]]


def rule(design: Design, allowed: int) -> str:
    """In a sentence, for who reads the numbers."""
    parts = []
    if design.told:
        parts.append(f"{design.told} that say what to choose")
    if design.unchanged:
        good = {
            "rating": "gets no more than the middle of the scale",
            "ranking": "is not put first",
            "paired": "is not chosen",
        }
        parts.append(
            f"{design.unchanged} where the clip itself stands as an edit, which by the first question "
        )
        parts[-1] += good[design.kind]
    if design.repeats:
        near = {
            "rating": f"answers differ by at most {design.apart:g} of the scale on average",
            "ranking": "orders agree more than they disagree",
            "paired": "at least half of the choices are the same",
        }
        parts.append(f"{design.repeats} that come twice, where {near[design.kind]}")
    if not parts:
        return "No check shows whether raters look."
    return f"Checks: {'; '.join(parts)}. Who fails more than {allowed} of them is left out."


def failed(study: Study, given: Given) -> list[str]:
    return list(_failed(study, given))


def _failed(study: Study, given: Given) -> Iterator[str]:
    design = study.design
    first = {turn.item: values for turn, values in given if not turn.again}
    for turn, values in given:
        meant = study.meant[turn.item]
        if meant["check"] == "told" and not _as_told(design, turn, values, meant["wanted"]):
            yield "did not choose what an item said"
        if (
            meant["check"] == "unchanged"
            and not turn.again
            and _fooled(design, values[design.keys[0]], meant["entries"])
        ):
            yield "took a clip that nobody has edited for a good edit"
        if turn.again and not _alike(design, first[turn.item], values):
            yield "answered otherwise when an item came again"


def _as_told(design: Design, turn: Turn, values: Mapping[str, Any], wanted: Any) -> bool:
    if design.kind == "rating":
        return all(abs(value - wanted) < 1e-9 for value in values.values())
    right = list(turn.order) if design.kind == "ranking" else turn.order[0]
    return all(value == right for value in values.values())


def _fooled(design: Design, value: Any, entries: Mapping[str, str]) -> bool:
    if design.scale is not None:
        return value > (design.scale[0] + design.scale[1]) / 2
    best = value[0] if design.kind == "ranking" else value
    return best is not None and entries[best] == SOURCE


def _alike(design: Design, first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    if design.scale is not None:
        wide = (design.scale[1] - design.scale[0]) * design.apart
        return sum(abs(first[key] - second[key]) for key in first) / len(first) <= wide + 1e-9
    if design.kind == "ranking":
        return sum(_agreement(first[key], second[key]) for key in first) > 0
    return sum(first[key] == second[key] for key in first) >= len(first) / 2


def _agreement(first: Sequence[str], second: Sequence[str]) -> int:
    """Pairs in the same order, less those in the other."""
    place = {each: k for k, each in enumerate(second)}
    pairs = [(one, two) for k, one in enumerate(first) for two in first[k + 1 :]]
    return sum(1 if place[one] < place[two] else -1 for one, two in pairs)
