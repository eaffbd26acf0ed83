"""Collects errors by group of tensors, and prints the worst of each with its limit."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

FORCED, FREE = "teacher-forced", "free-running"


def relative(ours: Tensor, stored: Tensor) -> float:
    """L2 of the difference / L2 of the stored tensor; infinite where ours is not a number."""
    if ours.shape != stored.shape:
        raise ValueError(f"ours has the shape {tuple(ours.shape)}, the stored one {tuple(stored.shape)}")
    gap = float((ours.double() - stored.double()).norm())
    size = float(stored.double().norm())
    if gap != gap:
        return float("inf")
    return gap / size if size else (0.0 if gap == 0 else float("inf"))


def furthest(ours: Tensor, stored: Tensor) -> float:
    """The largest difference; infinite where one is not a number."""
    if ours.shape != stored.shape:
        raise ValueError(f"ours has the shape {tuple(ours.shape)}, the stored one {tuple(stored.shape)}")
    gap = (ours.double() - stored.double()).abs().max()
    return float("inf") if bool(torch.isnan(gap)) else float(gap)


@dataclass
class Worst:
    error: float = 0.0
    where: str = ""
    limit: float | None = None
    count: int = 0
    failed: bool = False


@dataclass
class Ledger:
    """`limit` None: shown, not judged."""

    found: dict[tuple[str, str], Worst] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def note(self, group: str, mode: str, where: str, error: float, limit: float | None) -> None:
        worst = self.found.setdefault((group, mode), Worst(limit=limit))
        worst.count += 1
        worst.failed = worst.failed or (limit is not None and not error <= limit)
        if not worst.where or error > worst.error:
            worst.error, worst.where, worst.limit = error, where, limit

    def remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)

    @property
    def passed(self) -> bool:
        judged = [worst for worst in self.found.values() if worst.limit is not None]
        return bool(judged) and not any(worst.failed for worst in judged)

    def table(self) -> str:
        lines = [f"{'group':<34}{'mode':<16}{'tensors':>8}  {'worst':>10} {'limit':>8}  verdict  where"]
        for (group, mode), worst in self.found.items():
            limit = "-" if worst.limit is None else f"{worst.limit:.0e}"
            verdict = "-" if worst.limit is None else "FAIL" if worst.failed else "PASS"
            lines.append(
                f"{group:<34}{mode:<16}{worst.count:>8}  {worst.error:>10.2e} {limit:>8}  {verdict:<7}  {worst.where}"
            )
        return "\n".join([*lines, *(f"note: {text}" for text in self.remarks)])
