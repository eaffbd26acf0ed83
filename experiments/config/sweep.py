"""`-m`: every combination of values separated by commas, in Hydra's grammar. Each is named by what differs."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from hydra.core.override_parser.types import Override

from experiments.config.choices import groups
from experiments.config.compose import sweep_params
from experiments.config.from_hydra import parsed
from freemask.errors import UserError

# What all variants of a run have in common; everything else a variant may change.
SHARED = (
    "data",
    "metric",
    "runner",
    "logger",
    "speed",
    "paths",
    "kind",
    "limit",
    "keep",
    "start",
    "retry",
    "name",
)
# Sweeps over these, too, make runs of their own: they say what a run is, or which kind of edit it does.
WHOLE = ("task", "experiment", "variants", "reference", "only")
LONGEST = 80
ODD = re.compile(r"(?:[^A-Za-z0-9_.+-]|(?<!\d)\.|\.(?!\d))+")  # a point stands in numbers alone
Spread = Mapping[str, Sequence[str]]  # what was typed -> an override for each value


@dataclass(frozen=True)
class Start:
    """One start of a verb. `variants`: the overrides of each combination that this start does by itself; `name` says
    how it differs from the other starts of the same command."""

    name: str
    overrides: Sequence[str]
    variants: Mapping[str, Sequence[str]] = field(default_factory=dict)


def starts(verb: str, overrides: Sequence[str], *, joint: bool) -> list[Start]:
    """With `joint`, combinations become variants of one start, except over keys that variants have in common."""
    fixed, spread = _split(verb, overrides)
    apart = {key: each for key, each in spread.items() if not joint or _is_apart(key)}
    within = {key: each for key, each in spread.items() if key not in apart}
    variants = dict(_combinations(within)) if within else {}
    return [Start(name, [*fixed, *own], variants) for name, own in _combinations(apart)]


def _split(verb: str, overrides: Sequence[str]) -> tuple[list[str], Spread]:
    """What every start has, and what is swept. An experiment may sweep too, as Hydra has it: hydra.sweeper.params."""
    every = [parsed(each) for each in overrides]
    fixed = [str(each.input_line) for each in every if not each.is_sweep_override()]
    typed = {each.key_or_group for each in every}
    given = [parsed(f"{key}={value}") for key, value in sweep_params(verb, fixed).items()]
    spread = {}
    for each in [*(each for each in given if each.key_or_group not in typed), *every]:
        if each.get_key_element().startswith(("hydra/sweeper", "hydra/launcher")):
            wrong = "with -m our own engines do the work"
            expected = "runner=local, fabric, slurm or ray"
            raise UserError(
                wrong, came=each.input_line, expected=expected, todo=f"leave out {each.input_line}"
            )
        if each.is_sweep_override():
            spread[each.key_or_group] = _values(each)
    return fixed, spread


def _values(swept: Override) -> list[str]:
    if not swept.is_discrete_sweep():
        wrong, hint = "has a range without steps", "values to choose from: a,b,c or range(1,5)"
        raise UserError(f"{swept.key_or_group} {wrong}", came=swept.input_line, expected=hint)
    return [f"{swept.get_key_element()}={value}" for value in swept.sweep_string_iterator()]


def _is_apart(key: str) -> bool:
    key = key.lstrip("+~")
    return key in WHOLE or re.split(r"[./@]", key)[0] in SHARED


def _combinations(spread: Spread) -> Iterator[tuple[str, list[str]]]:
    """By name; the only one of an empty sweep has none."""
    taken: set[str] = set()
    labels = {key: _labels(key, spread) for key in spread}
    for chosen in product(*(range(len(each)) for each in spread.values())):
        own = [spread[key][place] for key, place in zip(spread, chosen, strict=True)]
        name = _short("+".join(labels[key][place] for key, place in zip(spread, chosen, strict=True)))
        if name in taken:
            name = _short(f"{name}-{_mark(' '.join(own))}")
        taken.add(name)
        yield name, own


def _labels(key: str, spread: Spread) -> list[str]:
    """An option's name says enough, unless two groups are swept that both have it; of a key, as much as tells it from
    the others."""
    said = [_clean(each.partition("=")[2]) for each in spread[key]]
    counted = Counter(name for each in spread for name in {_value(text) for text in spread[each]})
    if key in groups() and all(counted[_value(text)] == 1 for text in spread[key]):
        return said
    parts, others = key.split("."), [each.split(".") for each in spread if each != key]
    size = next(
        n for n in range(1, len(parts) + 1) if n == len(parts) or all(o[-n:] != parts[-n:] for o in others)
    )
    return [f"{_clean('.'.join(parts[-size:]))}-{each}" for each in said]


def _value(override: str) -> str:
    return override.partition("=")[2]


def _clean(text: str) -> str:
    return ODD.sub("-", text).strip("-.+") or "empty"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 7]}-{_mark(name)}"


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
