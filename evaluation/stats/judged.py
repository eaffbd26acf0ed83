"""What people said of several methods: means, differences and agreement, from single judgements. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evaluation.stats.agreement import alpha
from evaluation.stats.crossed import Crossed, crossed
from evaluation.stats.paired import Difference, adjusted

Number = float | int


@dataclass(frozen=True)
class Judged:
    """One person's values for what was judged together: by method a score, a place, or 1, .5 or 0 of a pair. `unit`:
    what it was that was judged, the same for all people."""

    person: str
    clip: str
    task: str
    criterion: str
    values: Mapping[str, Number]

    @property
    def unit(self) -> tuple[str, ...]:
        return (self.task, *sorted(self.values))


def mean_of(said: Iterable[Judged], method: str, criterion: str) -> Crossed | None:
    """None where nobody has judged it."""
    found = [(each.values[method], each.person, each.clip) for each in said if _is(each, criterion, method)]
    return crossed(*zip(*found, strict=True)) if found else None


def differences(
    said: Sequence[Judged], methods: Sequence[str], criteria: Sequence[str], reference: str
) -> list[Difference]:
    """Each method less the reference, by the same person on the same task; p corrected for all of them (Holm). Of two
    that were shown as a pair, only what was said of that pair counts."""
    found = []
    for criterion in criteria:
        together = _together([each for each in said if each.criterion == criterion])
        for method in methods:
            pairs = [
                (values[method] - values[reference], *key)
                for key, values in together
                if method != reference and method in values and reference in values
            ]
            if pairs:
                told = crossed(*zip(*pairs, strict=True))
                spread = (told.value, told.low, told.high, told.n, told.clips, told.p)
                found.append(Difference(method, criterion, *spread))
    return adjusted(found)


def agreement(said: Iterable[Judged], criterion: str, metric: str) -> float:
    """Krippendorff's alpha; of scores and places over each edit that was judged. Of pairs, over which of the two was
    chosen: the one that `values` has first, which must say nothing, or chance would not be one half."""
    units: dict[tuple[str, ...], list[Number]] = {}
    for each in said:
        if each.criterion != criterion:
            continue
        for method in [next(iter(each.values))] if metric == "nominal" else each.values:
            units.setdefault((*each.unit, method), []).append(each.values[method])
    return alpha(list(units.values()), metric)


def _is(each: Judged, criterion: str, method: str) -> bool:
    return each.criterion == criterion and method in each.values


def _together(said: Sequence[Judged]) -> list[tuple[tuple[str, str], dict[str, Number]]]:
    """(person, clip) and what was said by method. What was shown one by one, of one task, belongs together."""
    alone: dict[tuple[str, str, str], dict[str, Number]] = {}
    found = []
    for each in said:
        if len(each.values) > 1:
            found.append(((each.person, each.clip), dict(each.values)))
        else:
            alone.setdefault((each.person, each.clip, each.task), {}).update(each.values)
    return found + [((person, clip), values) for (person, clip, _), values in alone.items()]
