"""A codebook: what a calibration found out about one model, as a versioned JSON file."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from freemask.errors import UserError
from freemask.masks.mmc import Estimate
from freemask.masks.words import HEATS
from freemask.types import Time

VERSION = 1
BOOK = "codebook.json"  # as a calibration leaves it in its folder
SHIPPED = Path(__file__).parents[1] / "codebooks"


@dataclass(frozen=True)
class Codebook:
    """Layers (`sites`), or heads of them (`blocks.5.attn2:3`), stand in the order in which the network calls them,
    `times` ascending.

    `n` of `of` items were measured, on `clips` different clips, with the tokens that `phrase` takes of `words`.
    `iou` and `cost` are layers x times, means over items; `lmmc` has one estimate for each layer, `tmmc` for each
    time. `grids` are heights and widths of the layers. `floors`: for each of several floors of the overlap the share of
    masks that count as it, and the best layer and time. `ceilings`: for each layer the highest overlap that its grid
    allows, and its cost. `heat`: a word's own, or its share of the prompt's (`freemask.masks.words.HEATS`). Older files
    lack these three, and mean the word's own.
    """

    backbone: str
    model: str
    data: Mapping[str, Any]
    words: Sequence[str]
    phrase: str
    binarise: Mapping[str, Any]
    overlap: str
    floor: float | int
    n: int
    of: int
    clips: int
    sites: Sequence[str]
    strides: Sequence[int]
    grids: Sequence[Sequence[int]]
    times: Sequence[Time]
    iou: Sequence[Sequence[float | int]]
    cost: Sequence[Sequence[float | int]]
    lmmc: Sequence[Estimate]
    tmmc: Sequence[Estimate]
    best_site: str
    best_time: Time
    made: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION
    floors: Sequence[Mapping[str, Any]] = ()
    heat: str = HEATS[0]
    ceilings: Sequence[Mapping[str, float | int]] = ()

    @property
    def warning(self) -> str:
        """Where the floor, and not the masks, decides what is best."""
        bests = {(each["best_site"], each["best_time"]) for each in self.floors}
        if len(bests) < 2:
            return ""
        said = "; ".join(
            f"floor {each['floor']}: {each['best_site']} at {each['best_time']:g}, {each['share']:.0%} of the masks"
            " miss"
            for each in self.floors
        )
        return f"the best layer or time depends on the floor of the overlap ({said}): do not trust it"

    @classmethod
    def read(cls, path: str | Path) -> "Codebook":
        """A folder stands for the codebook that a calibration left in it."""
        path = Path(path).expanduser()
        path = path / BOOK if path.is_dir() else path
        if not path.exists():
            wrong, expected = (
                f"there is no codebook in {path.parent}",
                f"{BOOK}, as `freemask calibrate` leaves it",
            )
            raise UserError(wrong, came=f"no {path.name}", expected=expected)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(path, f"{type(error).__name__}: {error}") from error
        version = found.get("version") if isinstance(found, dict) else None
        if not isinstance(version, int) or version < 1:
            raise _damaged(path, "it says no version")
        if version > VERSION:
            raise UserError(
                "this codebook was written by a newer freemask",
                came=f"{path}: version {version}",
                expected=f"version {VERSION} at most",
                todo="update freemask, or calibrate again",
            )
        try:
            made = {name: _estimates(found[name]) for name in ("lmmc", "tmmc")}
            book = cls(**{**found, **made})
            book.check()
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, str(error)) from error
        return book

    def write(self, path: str | Path) -> None:
        """All or nothing: a reader never sees half a file."""
        path = Path(path).expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_name(f".{path.name}.{os.getpid()}")
            half.write_text(self.text(), encoding="utf-8")
            half.replace(path)
        except OSError as error:
            raise UserError("cannot write the codebook", came=f"{path}: {error.strerror}") from error

    def nearest_time(self, times: Sequence[Time]) -> Time:
        """Of these network times, the one nearest to the best; the lesser of two equally near ones."""
        return min(times, key=lambda t: (abs(t - self.best_time), t))

    def best_time_of(self, site: str) -> Time:
        """The time at which this layer matched best, whatever the other layers did."""
        row = self.cost[self.sites.index(site)]
        return self.times[min(range(len(row)), key=lambda place: row[place])]

    def best_map(self) -> tuple[str, Time]:
        """The layer and time of least cost together. Eqs. 4 and 6 choose each by itself, over all of the other."""
        places = ((layer, time) for layer in range(len(self.sites)) for time in range(len(self.times)))
        layer, time = min(places, key=lambda place: self.cost[place[0]][place[1]])
        return self.sites[layer], self.times[time]

    def overlap_at(self, site: str, time: Time) -> float | int:
        """Mean overlap of this layer's masks at this time."""
        return self.iou[list(self.sites).index(site)][list(self.times).index(time)]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text().encode()).hexdigest()[:16]

    def text(self) -> str:
        """The JSON: one line for each key, and for each row of a table."""
        unsaid = {"floors": not self.floors, "ceilings": not self.ceilings, "heat": self.heat == HEATS[0]}
        values = {key: each for key, each in asdict(self).items() if not unsaid.get(key)}
        values |= {name: [each._asdict() for each in getattr(self, name)] for name in ("lmmc", "tmmc")}
        lines = [f"{json.dumps(key)}: {_spread(value)}" for key, value in values.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def check(self) -> None:
        """Raise ValueError where parts do not belong together."""
        for each in fields(self):
            if not isinstance(getattr(self, each.name), _kind(each.name)):
                raise ValueError(f"'{each.name}' is of the wrong kind")
        layers, times = len(self.sites), len(self.times)
        long = {
            "strides": layers,
            "grids": layers,
            "iou": layers,
            "cost": layers,
            "lmmc": layers,
            "tmmc": times,
        }
        for name, length in long.items():
            if len(getattr(self, name)) != length:
                raise ValueError(f"'{name}' has {len(getattr(self, name))} entries, not {length}")
        if not layers or not times or any(len(row) != times for row in (*self.iou, *self.cost)):
            raise ValueError(f"'iou' and 'cost' are not tables of {layers} layers and {times} times")
        if any({"floor", "share", "best_site", "best_time"} != set(each) for each in self.floors):
            raise ValueError("'floors' does not say share, best layer and best time of each")
        if self.ceilings and [set(each) for each in self.ceilings] != [{"iou", "cost"}] * layers:
            raise ValueError("'ceilings' does not say overlap and cost of each layer")
        if self.heat not in HEATS:
            raise ValueError(f"'heat' is {self.heat}, which is none of {', '.join(HEATS)}")
        if self.best_site not in self.sites or self.best_time not in self.times:
            raise ValueError("the best layer or time is none of those measured")


def _estimates(rows: Any) -> list[Estimate]:
    """Reads a table of {mean, low, high}."""
    return [Estimate(*(float(row[key]) for key in Estimate._fields)) for row in rows]


def _kind(name: str) -> type | tuple[type, ...]:
    if name in ("backbone", "model", "phrase", "overlap", "best_site", "heat"):
        return str
    if name in ("data", "binarise", "made"):
        return Mapping
    if name in ("floor", "best_time"):
        return (float, int)
    if name in ("n", "of", "clips", "version"):
        return int
    return (list, tuple)


def _spread(value: Any) -> str:
    """A list of lists or of mappings over several lines, everything else on one."""
    if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple | dict):
        return "[\n  " + ",\n  ".join(json.dumps(each, ensure_ascii=False) for each in value) + "\n]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        "this codebook cannot be read",
        came=f"{path}: {why}",
        expected="a file that `freemask calibrate` wrote",
        todo="name another one, or calibrate again: freemask calibrate model=...",
    )
