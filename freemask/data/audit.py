"""What an inspection of a data set has found: every fault with its place, not only the first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from freemask.errors import UserError
from freemask.types import EditTask


@dataclass(frozen=True)
class Finding:
    """`grave`: tasks would fail or mean something else; otherwise worth knowing."""

    where: str
    wrong: str
    todo: str = ""
    grave: bool = True


@dataclass
class Audit:
    tasks: Sequence[EditTask] = ()
    findings: list[Finding] = field(default_factory=list)
    frames: int = 0

    @property
    def fine(self) -> bool:
        return not any(each.grave for each in self.findings)

    def add(self, where: object, wrong: str, todo: str = "", *, grave: bool = True) -> None:
        found = Finding(str(where), wrong, todo, grave)
        if found not in self.findings:
            self.findings.append(found)

    def refused(self, where: object, error: UserError | OSError) -> None:
        """What a reader says about it becomes the finding, without the path that `where` names already."""
        if isinstance(error, OSError):
            self.add(where, f"cannot be read: {error.strerror or error}")
            return
        wrong = error.wrong.removeprefix(f"{where}: ").removeprefix(f"clip '{where}': ")
        parts = [f"came: {error.came}"] if error.came is not None else []
        parts += [f"expected: {error.expected}"] if error.expected is not None else []
        self.add(where, f"{wrong} ({'; '.join(parts)})" if parts else wrong, error.todo)


def few(names: Iterable[str], most: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
