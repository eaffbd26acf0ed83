"""What a column of numbers is. No torch: tables are made without it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """One number of a metric. The name carries the variant, as in `lpips[alex]`: other variant, other column.

    `needs` completes the sentence "does not apply without ...", for cases in which the metric leaves it out.
    A direction of None: neither way is better, or the rows do not tell it. Then nothing is called best or worse.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    description: str
    needs: str = ""

    @classmethod
    def of(cls, name: str, facts: Mapping[str, Any]) -> "Column":
        """From what a run or a row says of it; what is not said is not known."""
        up = facts.get("higher_is_better", facts.get("up"))
        texts = (str(facts.get(key) or "") for key in ("unit", "description", "needs"))
        unit, description, needs = texts
        return cls(name, unit, up if isinstance(up, bool) else None, description, needs)

    @property
    def arrow(self) -> str:
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]
