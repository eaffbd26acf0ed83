"""What an edit of regions says of itself: each as a picture, how large it is, and what is doubtful about them."""

from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from freemask.masks.plan import Subject, remembered
from freemask.masks.several import union
from freemask.methods import shown
from freemask.methods.composite import composited
from freemask.methods.held import acting, free, of_masks
from freemask.methods.regional import Layout
from freemask.methods.videograin_step import Grain
from freemask.types import Edit


def told(edit: Edit, grain: Grain, subject: Subject, composite: str) -> Edit:
    layout, clip, times = grain.layout, subject.clip, subject.times
    if layout is None:
        return composited(of_masks(edit, None, times, clip), clip, composite, lambda: None)
    masks, drawn = remembered(union(layout.plans)), "attention of regions" if grain.drew else ""
    if layout.holds:
        edit = of_masks(edit, masks, times, clip, f"{drawn}, " if drawn else "")
    else:
        edit = acting(edit, masks, times, clip, drawn or "nothing")
    edit = _with_regions(edit, layout, subject)
    return composited(edit, clip, composite, lambda: free(masks, times, clip) if layout.holds else None)


def _with_regions(edit: Edit, layout: Layout, subject: Subject) -> Edit:
    pictures = {
        f"mask {name}": shown.of_masks(plan, "latent", subject.times, subject.clip.frames)["mask"]
        for name, plan in zip(names(layout), layout.plans, strict=True)
    }
    shares = ", ".join(
        f"{name.removeprefix('mask ')} {float(each.mean()):.3f}" for name, each in pictures.items()
    )
    facts = {**edit.facts, "regions": len(pictures), "region_shares": shares}
    extras = {**edit.extras, **(pictures if len(pictures) > 1 else {})}
    return replace(edit, extras=extras, facts=facts, warnings=(*edit.warnings, *doubts(pictures)))


def names(layout: Layout) -> list[str]:
    """Of the regions: what is said of each, and where that is nothing, its number."""
    return [", ".join(each.said) or f"region {place + 1}" for place, each in enumerate(layout.phrases)]


def doubts(pictures: dict[str, Tensor]) -> list[str]:
    """Regions that are empty somewhere, or lie over each other."""
    said = []
    for name, mask in pictures.items():
        empty = int((mask.flatten(1).amax(1) == 0).sum())
        if empty:
            what = "in no frame" if empty == len(mask) else f"missing in {empty} of {len(mask)} frames"
            said.append(f"the region of '{name.removeprefix('mask ')}' is {what}")
    for (a, first), (b, second) in combinations(pictures.items(), 2):
        least = torch.minimum(first.sum(), second.sum())
        share = float(torch.minimum(first, second).sum() / least.clamp_min(1))
        if share > 0.01:
            both = " and ".join(f"'{name.removeprefix('mask ')}'" for name in (a, b))
            said.append(f"the regions of {both} overlap in {share:.0%} of the smaller one")
    return said
