"""The stored masks of an edit: put in the place of ours, and compared with them."""

import re
from collections.abc import Mapping

from torch import Tensor

from freemask.masks.plan import MaskPlan, Use, Wanted
from freemask.types import Grid
from tests.official.case import Case
from tests.official.ledger import FORCED, Ledger, furthest
from tests.official.workshop import Job

USES: Mapping[Use, str] = {
    "cross": "attention_blend",
    "self": "attention_blend",
    "temporal": "kv_blend",
    "latent": "latent_blend",
}


def mask_name(job: Job, wanted: Wanted, what: str = "mask") -> str:
    """The stored mask of a step; those of latents are counted from 1."""
    times = job.backbone.noise_path.times(job.case.steps)
    i = len(times) - 1 - times.index(wanted.t) + (wanted.use == "latent")
    return f"{job.edit.name}/{USES[wanted.use]}_{what}/step{i:02d}/{wanted.grid.height}"


def stored_plan(job: Job, ours: MaskPlan, ledger: Ledger) -> MaskPlan:
    """The stored binary masks; ours where none is stored."""

    def mask(wanted: Wanted) -> Tensor:
        name = mask_name(job, wanted)
        if name not in job.case:
            ledger.remark(f"{name} is not stored: our own mask stands in")
            return ours(wanted)
        return job.case[name][-1].float().reshape(tuple(wanted.grid))

    return MaskPlan(mask, ours.facts, ours.soft, ours.live)


def compare_masks(job: Job, plan: MaskPlan | None, i: int, ledger: Ledger, mode: str) -> None:
    case, name = job.case, job.edit.name
    close, margin = mask_limits(case)
    for use in ("self", "temporal", "latent"):
        shown = i + (use == "latent")
        for stored_name in list(case.names(f"{name}/{USES[use]}_mask/step{shown:02d}/")):
            if plan is None:
                ledger.remark(f"{stored_name} is stored, but nothing in our edit asks for masks")
                continue
            binary = case[stored_name][-1].float()
            values = case[stored_name.replace("_mask/", "_soft/")].nan_to_num(0).amax(0)
            wanted = Wanted(use, job.time_of(i), Grid(*binary.shape))
            assert plan.soft is not None
            error = furthest(plan.soft(wanted), values)
            limit = close if mode == FORCED else None
            where = stored_name.removeprefix(f"{name}/")
            ledger.note(f"{name}: soft masks", mode, where, error, limit)
            wrong = (plan(wanted) != binary) & ((values - job.edit.threshold).abs() >= margin)
            limit = 0.0 if mode == FORCED else None
            ledger.note(f"{name}: binary masks, share wrong", mode, where, float(wrong.float().mean()), limit)


def mask_limits(case: Case) -> tuple[float, float]:
    """How close soft values must be, and how near to the threshold a pixel may differ."""
    said = str(case.about.get("tolerance", {}).get("binary_masks", ""))
    numbers = [float(each) for each in re.findall(r"\d+(?:\.\d+)?e-\d+|0\.\d+", said)]
    return (numbers[0], numbers[1]) if len(numbers) >= 2 else (1e-4, 1e-4)
