"""The clip's own pixels put back where an edit's mask lets nothing change.

A mask on latents does not hold every pixel: an autoencoder sees beyond a cell's border, and one over time lets a
latent frame speak in all that come after it.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from jaxtyping import Bool
from torch import Tensor

from freemask.diffusion.noise_paths import one_of
from freemask.types import Clip, Edit

COMPOSITES = ("none", "pixels")
Free = Bool[Tensor, "f h w"]
MOST = 100.0  # decibels: pixels that are the same


def check(composite: str) -> None:
    one_of("composite", composite, COMPOSITES)


def composited(edit: Edit, clip: Clip, composite: str, free: Callable[[], Free | None]) -> Edit:
    """And how far those pixels were from the clip before. `free`: which pixels may change; None where no mask holds
    any, so that there is nothing to put back."""
    if composite == "none":
        return edit
    changing = free()
    if changing is None:
        said = "no mask holds the clip: composite=pixels put nothing back"
        return replace(edit, warnings=(*edit.warnings, said))
    kept = ~changing[:, None].expand_as(edit.frames).to(edit.frames.device)
    own = clip.frames.to(edit.frames)
    error = float((edit.frames - own)[kept].square().mean()) if kept.any() else 0.0
    before = MOST if error == 0 else min(MOST, -10 * math.log10(error))
    facts = {**edit.facts, "composite": composite, "held_psnr_before_composite": round(before, 4)}
    return replace(edit, frames=edit.frames.where(~kept, own), facts=facts)
