"""Cases of FreeMask and FateZero: an inversion, and edits into which its attention is fused."""

from dataclasses import replace
from tempfile import TemporaryDirectory

from freemask.attention.record import Recording
from tests.official import calibration, editing, inversion
from tests.official.case import Case
from tests.official.families import Wanted
from tests.official.ledger import Ledger
from tests.official.workshop import Job, load

FIXED_INDEX = 10  # of the inversion: where the authors' temporal masks come from


def compare(case: Case, ledger: Ledger, wanted: Wanted) -> None:
    count = case.steps if wanted.steps is None else max(1, min(wanted.steps, case.steps))
    free = wanted.free and count == case.steps
    backbone = load(case)
    inversion.texts(case, backbone, ledger)
    if calibration.is_maps(case):
        calibration.maps(case, backbone, ledger, steps=count, free=free, progress=wanted.progress)
        return
    jobs = [Job.of(case, edit, backbone, wanted.extra) for edit in case.edits()]
    for job in jobs:
        print(f"{job.edit.name}: freemask edit " + " ".join(job.lines))
    first = case.latents("inv/latents")[0]
    wishes = [(job.keeps(job.subject(first)).source, Recording()) for job in jobs]
    last = case.steps - 1
    only = {*range(count), *range(last, last - count, -1), min(FIXED_INDEX, last)}
    inversion.forced(case, backbone, ledger, wishes, only, wanted.progress)
    for job, (_, source) in zip(jobs, wishes, strict=True):
        editing.forced(job, source, ledger, count, wanted.progress)
    if free:
        with TemporaryDirectory() as folder:  # several prompts share one inversion
            for job in jobs:
                method = replace(job.method, inversions=folder if len(jobs) > 1 else None)
                latents = editing.free(replace(job, method=method), ledger, wanted.progress)
                if job is jobs[0]:
                    inversion.compare_free(case, latents, ledger)
