"""python -m tests.official.compare PATH/TO/golden/CASE.json: our code on a stored case of the authors' code.

Prints the configuration that a user would type, and the worst error of each group of tensors. Ends with 0 where all
lie within the manifest's tolerance, 1 where one does not, 2 where the case cannot be run.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

from freemask.errors import UserError
from tests.official import calibration, families
from tests.official.case import Case
from tests.official.families import Wanted
from tests.official.ledger import Ledger


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.official.compare", description=__doc__)
    parser.add_argument("case", help="the manifest, golden/CASE.json")
    parser.add_argument("--teacher-only", action="store_true", help="leave out the free-running part")
    parser.add_argument("--dtype", help="float64 shows how much of an error is rounding")
    parser.add_argument("--steps", type=int, help="only the first steps (and no free-running part)")
    given = parser.parse_args(arguments)
    try:
        case = Case.read(given.case)
        if given.dtype is not None:
            case = replace(case, about={**case.about, "dtype": given.dtype})
        ledger = compare(case, steps=given.steps, free=not given.teacher_only)
        if case.unused():
            ledger.remark("stored, but not compared: " + ", ".join(case.unused()))
    except UserError as error:
        print(f"cannot run {given.case}: {error}")
        return 2
    print(ledger.table())
    part = f" (the first {given.steps} steps alone)" if given.steps else ""
    print(f"{given.case}: {'PASS' if ledger.passed else 'FAIL'}{part}")
    return 0 if ledger.passed else 1


@torch.no_grad()
def compare(case: Case, *, steps: int | None = None, free: bool = True, extra: Sequence[str] = ()) -> Ledger:
    """`steps`: only so many denoising steps, and what they need of the inversion. `extra`: more overrides."""
    ledger = Ledger()
    if calibration.is_miou(case):
        calibration.miou(case, ledger)
        return ledger
    run = families.of(case)
    run(case, ledger, Wanted(steps, free, tuple(extra), show))
    return ledger


def show(stage: str, done: int, total: int) -> None:
    print(f"\r{stage}: {done}/{total}   ", end="" if done < total else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
