"""What a study's answers are worth: means, differences to the reference, how far raters agree, and who was counted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.stats.crossed import Crossed
from evaluation.stats.judged import Judged, agreement, differences, mean_of
from evaluation.stats.many import better_than
from evaluation.stats.paired import Difference
from experiments.study.answers import Heard, Said, hear
from experiments.study.folder import Study
from freemask.errors import UserError, nearest


@dataclass(frozen=True)
class Results:
    """`means` by method and question, `agree` by question."""

    study: Study
    heard: Heard
    said: Sequence[Judged]
    means: Mapping[tuple[str, str], Crossed]
    differences: Sequence[Difference]
    agree: Mapping[str, float]
    reference: str

    @property
    def raters(self) -> int:
        return len(self.heard.said)

    def places(self, key: str) -> dict[str, int]:
        found = {method: one.value for (method, asked), one in self.means.items() if asked == key}
        every = list(found.values())
        up = not self.study.design.lower
        return {method: 1 + better_than(value, every, up) for method, value in found.items()}


def results_of(study: Study, allowed: int | None = None, reference: str | None = None) -> Results:
    heard = hear(study, allowed)
    said = [one for each in heard.said for one in judged(study, each)]
    keys, methods = study.design.keys, list(study.methods)
    found = {(method, key): mean_of(said, method, key) for method in methods for key in keys}
    means = {pair: each for pair, each in found.items() if each is not None}
    base = _reference(study, reference)
    apart = differences(said, methods, keys, base)
    agree = {key: agreement(said, key, study.design.metric) for key in keys}
    return Results(study, heard, said, means, apart, agree, base)


def _reference(study: Study, asked: str | None) -> str:
    if asked is not None and asked not in study.methods:
        wrong, expected = (
            f"the study '{study.name}' has no method of that name",
            nearest(asked, study.methods),
        )
        raise UserError(wrong, came=f"reference={asked}", expected=expected)
    return asked or study.reference


def judged(study: Study, said: Said) -> Iterator[Judged]:
    """Neither of items that check a rater, nor of what came a second time."""
    for turn, values in said.values:
        meant = study.meant[turn.item]
        if meant["check"] or turn.again:
            continue
        for key, value in values.items():
            scores = _scores(study.design.kind, meant["entries"], value)
            yield Judged(said.rater.casefold(), meant["clip"], meant["task"], key, scores)


def _scores(kind: str, entries: Mapping[str, str], value: Any) -> dict[str, float | int]:
    if kind == "rating":
        return {method: value for method in entries.values()}
    if kind == "ranking":
        return {entries[each]: place for place, each in enumerate(value, 1)}
    return {method: 0.5 if value is None else float(value == each) for each, method in entries.items()}
