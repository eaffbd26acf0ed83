"""`-m`: one start, or several one after the other. All are composed, and all runs planned, before the first begins."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli.quoting import quoted
from experiments.cli.words import Command
from experiments.config.compose import Composed, composed
from experiments.config.sweep import Start, starts
from freemask.errors import UserError

Begin = Callable[[Composed, Mapping[str, Any]], int]


def every(command: Command, begin: Begin) -> int:
    """`begin` takes a composed configuration and flags, and gives an exit code; the worst one counts."""
    verb, joint = command.spec.config or "", command.spec.joint
    found = starts(verb, command.overrides, joint=joint)
    single = len(found) == 1
    made = [_composed(verb, each, single) for each in found]
    told = [{**command.flags, **own} for _, own in made]
    if joint and not single:
        for (each, _), flags in zip(made, told, strict=True):
            begin(each, {**flags, "freeze": True})
    codes = []
    for place, (start, (each, _), flags) in enumerate(zip(found, made, told, strict=True), 1):
        if not single:
            print(f"{'' if place == 1 else chr(10)}{place} of {len(found)}: {start.name}", flush=True)
        codes.append(_carried_out(begin, each, flags))
    if joint and not single and (names := sorted({str(each.cfg.name) for each, _ in made if each.cfg.name})):
        place = Path(made[0][0].cfg.paths.runs) / names[0].rpartition("/")[0]
        print(f"\nall of them on one page: freemask report {place}")
    return max(codes)


def _composed(verb: str, start: Start, single: bool) -> tuple[Composed, dict[str, Any]]:
    """With what the verb is told besides. Of several with a name, each gets a folder of its own below it."""
    overrides: Sequence[str] = start.overrides
    made = composed(verb, overrides)
    if not single and made.cfg.get("name"):
        overrides = [*overrides, quoted("name", f"{made.cfg.name}/{start.name}")]
        made = composed(verb, overrides)
    return made, {"overrides": tuple(overrides), "variants": start.variants}


def _carried_out(begin: Begin, made: Composed, flags: Mapping[str, Any]) -> int:
    """What stops one start does not stop the next."""
    try:
        return begin(made, flags)
    except UserError as error:
        if flags.get("debug"):
            raise
        print(f"freemask: {error}", file=sys.stderr)
        return 2
