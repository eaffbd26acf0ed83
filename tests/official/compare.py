"""python -m tests.official.compare PATH/TO/golden/CASE.json: our code on a stored case of the authors' code.

Prints the configuration that a user would type, and the worst error of each group of tensors. Ends with 0 where all
lie within the manifest's tolerance, 1 where one does not, 2 where the case cannot be run.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory

import torch

from freemask.attention.record import Recording
from freemask.errors import UserError
from tests.official import calibration, editing, inversion
from tests.official.case import FAMILIES, Case
from tests.official.ledger import Ledger
from tests.official.workshop import Job, load

FIXED_INDEX = 10  # of the inversion: where the authors' temporal masks come from


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
    if not case.family:
        raise UserError(
            "the case is of no repository that is known",
            came=case.about.get("official_repo", "no official_repo in the manifest"),
            expected=" or ".join(FAMILIES),
        )
    count = case.steps if steps is None else max(1, min(steps, case.steps))
    free = free and count == case.steps
    backbone = load(case)
    inversion.texts(case, backbone, ledger)
    if calibration.is_maps(case):
        calibration.maps(case, backbone, ledger, steps=count, free=free, progress=show)
        return ledger
    jobs = [Job.of(case, edit, backbone, extra) for edit in case.edits()]
    for job in jobs:
        print(f"{job.edit.name}: freemask edit " + " ".join(job.lines))
    first = case.latents("inv/latents")[0]
    wishes = [(job.keeps(job.subject(first)).source, Recording()) for job in jobs]
    last = case.steps - 1
    only = {*range(count), *range(last, last - count, -1), min(FIXED_INDEX, last)}
    inversion.forced(case, backbone, ledger, wishes, only, show)
    for job, (_, source) in zip(jobs, wishes, strict=True):
        editing.forced(job, source, ledger, count, show)
    if free:
        with TemporaryDirectory() as folder:  # several prompts share one inversion
            for job in jobs:
                method = replace(job.method, inversions=folder if len(jobs) > 1 else None)
                latents = editing.free(replace(job, method=method), ledger, show)
                if job is jobs[0]:
                    inversion.compare_free(case, latents, ledger)
    return ledger


def show(stage: str, done: int, total: int) -> None:
    print(f"\r{stage}: {done}/{total}   ", end="" if done < total else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
