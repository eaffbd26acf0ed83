"""What an edit says of itself afterwards: its mask as a picture, facts for the row, warnings."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from freemask.fusion.settings import Policies
from freemask.masks.look import over_times
from freemask.masks.plan import MaskPlan, Subject, Use, Wanted
from freemask.methods.composite import Free
from freemask.methods.editing import Editing
from freemask.types import Grid, Time

GB = 10**9


def pictures(editing: Editing) -> dict[str, Tensor]:
    """The mask at the frames' size, as the mean over the edit's times: how often a pixel may change."""
    if editing.masks is None:
        return {}
    return of_masks(editing.masks, _use(editing), editing.subject.times, editing.subject.clip.frames)


def free(editing: Editing) -> Free | None:
    """Which pixels may change. None where no mask holds any: without one, where it acts on nothing, where it is turned
    round (of a style, what is outside the object changes), and where an edit beside the masked ones has none."""
    acts = acts_on(editing)
    if editing.masks is None or editing.policies.whole_frame or acts == "nothing" or "inverse" in acts:
        return None
    return ever(editing.masks, _use(editing), editing.subject.times, editing.subject.clip.frames)


def ever(masks: MaskPlan, use: Use, times: Sequence[Time], frames: Tensor) -> Free:
    """What is in the mask at any time; the picture shows some of them."""
    grid = Grid(len(frames), *frames.shape[-2:])
    return torch.stack([(masks(Wanted(use, t, grid)) > 0).cpu() for t in times]).any(dim=0)


def _use(editing: Editing) -> Use:
    blend = editing.policies.latent
    return "latent" if blend is not None and blend.masked else "self"


def of_masks(masks: MaskPlan, use: Use, times: Sequence[Time], frames: Tensor) -> dict[str, Tensor]:
    return {"mask": over_times(masks, use, times, Grid(len(frames), *frames.shape[-2:]))}


def of_picture(mask: Tensor, acts: str) -> dict[str, str | float | int]:
    """How much of the clip a mask covers, and what it acts on."""
    empty = int((mask.flatten(1).amax(1) == 0).sum())
    return {"mask_acts_on": acts, "mask_share": round(float(mask.mean()), 4), "mask_empty_frames": empty}


def facts(editing: Editing, made: Mapping[str, Tensor]) -> dict[str, str | float | int | bool | None]:
    found: dict[str, str | float | int | bool | None] = {"mask_used": False}
    if editing.masks is not None:
        found = dict(editing.masks.facts)
    if "mask" in made:
        found |= of_picture(made["mask"], acts_on(editing))
    found |= of_object(editing.policies, editing.subject)
    found["inversion_passes"] = editing.inversion.passes
    if editing.lender is not editing.inversion:
        found["attention"] = "reconstruction"
    if editing.cache is not None:
        found["features_gb"] = round(editing.cache.bytes / GB, 4)
    return found


def of_object(policies: Policies, subject: Subject) -> dict[str, bool]:
    """Eq. 7's delta, where fusion makes use of it."""
    return {"keeps_object": subject.keeps_object} if policies.attention or policies.latent is not None else {}


def acts_on(editing: Editing) -> str:
    """The parts of the fusion that use the mask in some step. Only latents put pixels of the source back; inverse, the
    source's attention is used inside the mask and not outside."""
    policies, steps = editing.policies, range(len(editing.subject.times))
    parts = [
        f"inverse {part}" if getattr(policy, "inverse", False) else part
        for part, policy in policies.attention.items()
        if policy.masked and part not in policies.vanish and any(policy.awake(i) for i in steps)
    ]
    blend = policies.latent
    blended = [i + 1 for i in steps if blend is not None and blend.masked and i in blend.window]
    if blended:
        parts.append(f"latents in steps {blended[0]}-{blended[-1]} of {len(steps)}")
    return ", ".join(parts) or "nothing"


def warnings(made: Mapping[str, Tensor], acts: str) -> list[str]:
    if "mask" not in made:
        return []
    per_frame = made["mask"].flatten(1)
    empty, full = int((per_frame.amax(1) == 0).sum()), bool((made["mask"] == 1).all())
    nothing, everything = "lets nothing change", "keeps nothing of the clip"
    if "inverse" in acts:
        nothing, everything = (
            "keeps nothing of the clip's self-attention",
            "keeps all the clip's self-attention",
        )
    said = []
    if empty:
        of = f"{empty} of {len(per_frame)} frames"
        said.append(f"the mask is empty in {of}: masked fusion {nothing} there")
    if full:
        said.append(f"the mask covers every pixel: masked fusion {everything}")
    return said
