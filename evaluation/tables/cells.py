"""The numbers of a paper's table: means in the paper's unit, intervals, and how far they are from the published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evaluation.stats.paired import Difference, difference, quotient_difference
from evaluation.stats.values import Parts, Row, Values, common, mean_of, parts_of, quotient_of, values_of
from evaluation.tables.papers import PaperColumn, Value
from freemask.statistics import Interval


@dataclass(frozen=True)
class Cell:
    """In the paper's unit, of `n` tasks. `apart` is ours minus the published value, where the two can be compared.
    `raters`: of what people said, how many have said it."""

    mean: float
    low: float
    high: float
    n: int
    clips: int
    apart: float | None = None
    raters: int | None = None

    def beside(self, published: Value) -> "Cell":
        if not isinstance(published, int | float) or isinstance(published, bool):
            return self
        return replace(self, apart=self.mean - published)


class Measured:
    """The values of one line's rows by the paper's columns, each read once."""

    def __init__(
        self, columns: Sequence[PaperColumn], rows: Sequence[Row], chosen: Mapping[str, str]
    ) -> None:
        self.columns = {column.key: column for column in columns}
        self.values: dict[str, Values] = {}
        self.parts: dict[str, Parts] = {}
        for column in columns:
            if column.key not in chosen:
                continue
            if column.ratio:
                above, below = ((chosen[key], float(self.columns[key].scale)) for key in column.ratio)
                self.parts[column.key] = parts_of(rows, above, below)
            else:
                self.values[column.key] = values_of(rows, chosen[column.key], column.scale)

    def cells(self) -> dict[str, Cell]:
        found = {key: self._number(key) for key in self.columns}
        return {key: Cell(*each[:5]) for key, each in found.items() if each is not None}

    def _number(self, key: str) -> Interval | None:
        if key in self.parts:
            return quotient_of(self.parts[key])
        return mean_of(self.values.get(key, {}))

    def apart(self, name: str, key: str, base: "Measured") -> Difference | None:
        """Of this line, called `name`, to another."""
        if key in self.parts and key in base.parts:
            return quotient_difference(name, key, base.parts[key], self.parts[key])
        return difference(name, key, base.values.get(key, {}), self.values.get(key, {}))


def comparable(lines: Mapping[str, Measured], column: PaperColumn) -> dict[str, float]:
    """The number of each line over the tasks that all lines with this column have."""
    if not column.ratio:
        return common(
            {name: each.values[column.key] for name, each in lines.items() if each.values.get(column.key)}
        )
    parts = {name: each.parts[column.key] for name, each in lines.items() if column.key in each.parts}
    held = {name: each for name, each in parts.items() if each.above}
    above = common({name: each.above for name, each in held.items()})
    below = common({name: each.below for name, each in held.items()})
    return {name: above[name] / below[name] for name in above if below[name]}
