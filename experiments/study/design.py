"""How people are asked: which questions, on what scale, what they see at once, and what shows that they look."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from freemask.errors import UserError

Number = float | int
PARTS = ("key", "title", "ask", "low", "high")
MOST = 1000  # steps of a scale
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Design:
    """`kind`: rating (one edit at a time, a value of the scale for each question), ranking (all edits of a clip, put in
    order) or paired (two edits, which is better). `scale`: lowest, highest, step. `criteria` have a key, a title, what
    is asked, and of a scale what its ends mean; the first asks whether the edit is what the text wants. `table`: whose
    study columns they are, by their keys. `told`, `unchanged` and `repeats` count what shows that a
    rater looks; who fails more than `allowed` of them is left out. `apart`: by how much of the scale an answer given
    twice may differ on average."""

    kind: Literal["rating", "ranking", "paired"]
    criteria: Sequence[Mapping[str, str]]
    table: str | None = None
    about: str = ""
    scale: Sequence[float | int] | None = None
    source: bool = True
    sets: int | None = None
    each: int | None = None
    raters: int | None = None
    pairs: Literal["reference", "all"] = "reference"
    tie: bool = False
    told: int = 1
    unchanged: int = 0
    repeats: int = 1
    allowed: int = 1
    apart: Number = 0.3
    keys: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        for each in self.criteria:
            strange = sorted(set(each) - set(PARTS))
            if strange or not each.get("ask") or not re.fullmatch(r"[a-z][a-z0-9_]*", each.get("key", "")):
                expected = "a key of small letters, and `ask`; also title, low, high"
                raise UserError("this is no question of a study", came=dict(each), expected=expected)
        object.__setattr__(self, "keys", tuple(each["key"] for each in self.criteria))
        if not self.keys or len(set(self.keys)) < len(self.keys):
            came = ", ".join(self.keys) or "none"
            raise UserError("the questions need keys of their own", came=came, expected="each key once")
        if (self.kind == "rating") is (self.scale is None):
            came = f"design.kind={self.kind}, {'no' if self.scale is None else 'a'} scale"
            expected = "design.scale=[0,10,1]: lowest, highest, step"
            raise UserError("a scale belongs to ratings, and only to them", came=came, expected=expected)
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.scale is not None:
            lowest, highest, step = [*self.scale, 0, 0, 0][:3]
            if len(self.scale) != 3 or not 0 < step <= highest - lowest <= MOST * step:
                expected = f"lowest, highest (which is more), and a step above 0, of which {MOST} at most fit"
                raise UserError(
                    "this is no scale", came=f"design.scale={list(self.scale)}", expected=expected
                )
        for name, least in (("told", 0), ("unchanged", 0), ("repeats", 0), ("allowed", 0)):
            if getattr(self, name) < least:
                raise UserError(
                    f"design.{name} is too small", came=getattr(self, name), expected=f"{least} or more"
                )
        for name in ("sets", "each", "raters"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(
                    f"design.{name} is too small", came=getattr(self, name), expected="1 or more, or null"
                )

    @property
    def values(self) -> list[Number]:
        """Of the scale; none where there is no scale."""
        if self.scale is None:
            return []
        lowest, highest, step = self.scale
        return [lowest + k * step for k in range(int((highest - lowest) / step + 1e-9) + 1)]

    @property
    def lower(self) -> bool:
        """Whether less is better: of places, the first is best."""
        return self.kind == "ranking"

    @property
    def metric(self) -> str:
        """By which differences of answers agreement is counted."""
        return {"rating": "interval", "ranking": "ordinal", "paired": "nominal"}[self.kind]

    def title(self, key: str) -> str:
        return next(each.get("title") or key for each in self.criteria if each["key"] == key)

    def record(self) -> dict[str, Any]:
        said = asdict(self)
        del said["keys"]
        return said

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Design":
        return cls(**record)
