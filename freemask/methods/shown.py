"""What an edit says of itself afterwards: its mask as a picture, facts for the row, warnings."""

from collections.abc import Mapping

import torch
from torch import Tensor

from freemask.fusion.settings import Policies
from freemask.masks.plan import Subject, Use, Wanted
from freemask.methods.editing import Editing
from freemask.types import Grid

GB = 10**9
SHOWN = 12  # times of which the pictured mask is the mean


def pictures(editing: Editing) -> dict[str, Tensor]:
    """The mask at the frames' size, as the mean over the edit's times: how often a pixel may change."""
    if editing.masks is None:
        return {}
    frames, times = editing.subject.clip.frames, editing.subject.times
    blend = editing.policies.latent
    use: Use = "latent" if blend is not None and blend.masked else "self"
    grid = Grid(frames.shape[0], *frames.shape[-2:])
    places = torch.linspace(0, len(times) - 1, min(SHOWN, len(times)))
    chosen = sorted({times[round(float(place))] for place in places})
    masks = [editing.masks(Wanted(use, t, grid)).float().cpu() for t in chosen]
    return {"mask": torch.stack(masks).mean(0)}


def facts(editing: Editing, made: Mapping[str, Tensor]) -> dict[str, str | float | int | bool | None]:
    found: dict[str, str | float | int | bool | None] = {"mask_used": False}
    if editing.masks is not None:
        found = dict(editing.masks.facts)
    if "mask" in made:
        found["mask_share"] = round(float(made["mask"].mean()), 4)
        found["mask_empty_frames"] = int((made["mask"].flatten(1).amax(1) == 0).sum())
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


def warnings(made: Mapping[str, Tensor]) -> list[str]:
    if "mask" not in made:
        return []
    per_frame = made["mask"].flatten(1)
    empty, full = int((per_frame.amax(1) == 0).sum()), bool((made["mask"] == 1).all())
    said = []
    if empty:
        of = f"{empty} of {len(per_frame)} frames"
        said.append(f"the mask is empty in {of}: masked fusion lets nothing change there")
    if full:
        said.append("the mask covers every pixel: masked fusion keeps nothing of the clip")
    return said
