"""The answers of a study's raters: files that are believed only as far as the study itself allows."""

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from experiments.study.checks import failed
from experiments.study.drawn import Turn, fault_of, turns
from experiments.study.folder import Study
from experiments.study.form import TEXT

WHAT = "answers of a video study"
MOST = 5_000_000  # bytes of a file
LARGE = 1e9  # beyond any number that the page hands in


@dataclass(frozen=True)
class Said:
    """One rater's answers, in the order of the turns: by question a number, an order of ids, or an id (None: no
    difference)."""

    rater: str
    file: str
    finished: str
    values: Sequence[tuple[Turn, Mapping[str, Any]]]
    seconds: float | None = None
    comment: str = ""


@dataclass(frozen=True)
class Heard:
    """`said`: those that count. `left_out`: by file or rater why others do not. `most`: failed checks that are
    allowed."""

    said: Sequence[Said]
    left_out: Sequence[tuple[str, str]]
    most: int


class Fault(Exception):
    """Why these are no answers of this study."""


def parse(study: Study, text: str | bytes, file: str = "") -> Said:
    """Raises a Fault where anything is not as the study's page would have left it."""
    return believed(study, read(text), file)


def believed(study: Study, found: Mapping[str, Any], file: str = "") -> Said:
    if found.get("what") != WHAT:
        raise Fault("it is no file of answers that the page of a study left")
    if found.get("study") != study.id:
        raise Fault("it is of another study")
    rater, given = found.get("rater"), found.get("answers")
    if why := fault_of(rater):
        raise Fault(f"its rater has no code: {why}")
    if found.get("consent") is not True:
        raise Fault("its rater has not agreed to take part")
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise Fault("it holds no list of answers")
    wanted = turns(study.public, str(rater))
    for place, (turn, each) in enumerate(zip(wanted, given, strict=False), 1):
        if (each.get("item"), each.get("again"), each.get("order")) != (
            turn.item,
            turn.again,
            list(turn.order),
        ):
            raise Fault(f"answer {place} is not to what this rater was shown there")
        if why := _fault(study, turn, each.get("values")):
            raise Fault(f"answer {place}: {why}")
    if len(given) != len(wanted):
        raise Fault(f"{len(given)} of {len(wanted)} answers are there")
    values = [(turn, each["values"]) for turn, each in zip(wanted, given, strict=True)]
    told = {name: _plain(found.get(name)) for name in ("finished", "comment")}
    return Said(str(rater), file, values=values, seconds=_seconds(given), **told)


def read(text: str | bytes) -> dict[str, Any]:
    if len(text) > MOST:
        raise Fault("it is too large")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Fault(f"it is no JSON ({error})") from error
    return found if isinstance(found, dict) else {}


def _fault(study: Study, turn: Turn, values: Any) -> str:
    if not isinstance(values, dict) or sorted(values) != sorted(study.design.keys):
        return f"it needs {', '.join(study.design.keys)}, and nothing else"
    for key, value in values.items():
        if not _fits(study, turn, value):
            return f"{key} cannot be {json.dumps(value)[:80]}"
    return ""


def _fits(study: Study, turn: Turn, value: Any) -> bool:
    design = study.design
    if design.scale is not None:
        return _is_number(value) and any(math.isclose(value, each, abs_tol=1e-9) for each in design.values)
    if design.kind == "ranking":
        texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        return texts and sorted(value) == sorted(turn.order)
    return (value is None and design.tie) or (isinstance(value, str) and value in turn.order)


def _seconds(given: Sequence[Mapping[str, Any]]) -> float | None:
    """That the rater looked, as far as the page has told it."""
    known = [each.get("seconds") for each in given]
    able = [each for each in known if _is_number(each)]
    return float(sum(able)) if able and min(able) >= 0 else None


def _is_number(value: Any) -> TypeGuard[float | int]:
    """Of a size that anything here has."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGE < value < LARGE


def _plain(value: Any) -> str:
    """A text that can be written and shown in a terminal, and is no book."""
    if not isinstance(value, str):
        return ""
    text = value[:TEXT].encode("utf-8", "replace").decode()
    return "".join(each if each == "\n" or unicodedata.category(each) != "Cc" else " " for each in text)


def hear(study: Study, allowed: int | None = None) -> Heard:
    """Every file in the folder of answers. Of one rater's files the one that was finished first counts."""
    most = study.design.allowed if allowed is None else allowed
    left_out: list[tuple[str, str]] = []
    found: list[Said] = []
    for path in sorted(study.answers.glob("*")):
        if path.is_dir() or path.name.startswith("."):
            continue
        try:
            found.append(parse(study, _bytes(path), _plain(path.name)))
        except Fault as fault:
            left_out.append((_plain(path.name), str(fault)))
    counted: dict[str, Said] = {}
    for each in sorted(found, key=lambda one: (one.finished, one.file)):
        first = counted.setdefault(each.rater.casefold(), each)
        if first is not each:
            same = "the same answers" if first.values == each.values else "other answers of the same rater"
            left_out.append((each.file, f"{same} as in {first.file}, which was finished first"))
    kept = []
    for each in counted.values():
        why = failed(study, each.values)
        if len(why) > most:
            left_out.append(
                (f"{each.file} (rater {each.rater})", f"{len(why)} checks failed: {'; '.join(why)}")
            )
        else:
            kept.append(each)
    return Heard(sorted(kept, key=lambda one: one.rater), left_out, most)


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST:
            raise Fault("it is too large")
        return path.read_bytes()
    except OSError as error:
        raise Fault(f"it cannot be read ({error.strerror})") from error
