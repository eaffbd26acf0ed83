"""Masks of methods that run the clip beside its edit: outside the mask, the clip is held."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from freemask.attention.layout import in_rows
from freemask.attention.math import attend
from freemask.attention.record import Keep, Recording
from freemask.diffusion.inversions import Inversion, Wish
from freemask.diffusion.noise_paths import CLEAN
from freemask.errors import UserError
from freemask.fusion import ops
from freemask.masks.plan import MaskPlan, MaskStrategy, Subject, Wanted, remembered
from freemask.masks.several import keeps_of, plan_of
from freemask.masks.strategies.none import NoMask
from freemask.methods import shown
from freemask.methods.composite import Free
from freemask.methods.pnp_layers import of_source
from freemask.types import QKV, Clip, Edit, Grid, Taps, Time, Where

HELD = ("self", "temporal")
Inside = Callable[[Where], Float[Tensor, "f h w"]]


def wish_of(mask: MaskStrategy, subject: Subject, budget: int) -> Wish:
    """What the masks want of the inversion."""
    keeps = keeps_of(mask, subject)
    of_clip_alone(mask, keeps.target)
    return Wish(keeps.source, budget=budget, at=subject.times)


def of_clip_alone(mask: MaskStrategy, wanted: Sequence[Keep]) -> None:
    """`wanted`: what a mask wants of the edit."""
    if wanted:
        raise UserError(
            "This mask is made of the edit's own attention too, which this method does not give.",
            came=f"mask={type(mask).__name__}",
            expected="a mask that is made of the clip alone, such as mask=mmc_by_layer or mask=agreement",
        )


def planned(mask: MaskStrategy, subject: Subject, kept: Recording) -> MaskPlan | None:
    if isinstance(mask, NoMask):
        return None
    return remembered(plan_of(mask, subject, kept, Recording()))


def of_frames(masks: MaskPlan, frames: Sequence[int], total: int, where: Where) -> Float[Tensor, "f h w"]:
    """The mask of a layer that runs on some of a clip's frames."""
    use = "temporal" if where.site.role == "temporal" else "self"
    return masks(Wanted(use, where.t, where.grid._replace(frames=total)))[list(frames)]


def holding(taps: Taps, inside: Inside, convolutions: Sequence[str]) -> Taps:
    """Outside the mask, every stream has what the source has, in self-attention, attention along frames, and in these
    convolutions."""
    then = taps.attention

    def attention(where: Where, qkv: QKV) -> Tensor:
        out = attend(qkv) if then is None else then(where, qkv)
        if where.site.role not in HELD:
            return out
        return ops.blend(in_rows(inside(where).to(out), where), out, of_source(where, out))

    def features(where: Where, maps: Tensor) -> Tensor:
        tap = taps.features.get(where.site.name)
        made = maps if tap is None else tap(where, maps)
        return ops.blend(inside(where).to(maps)[:, None], made, of_source(where, made))

    return replace(taps, attention=attention, features=dict.fromkeys(convolutions, features))


def put_back(
    x: Float[Tensor, "f c h w"], t: Time, masks: MaskPlan, inversion: Inversion, times: Sequence[Time]
) -> Float[Tensor, "f c h w"]:
    """The latent after the step at t, outside the mask the clip's own. `times` ascend."""
    inside = masks(Wanted("latent", t, Grid(len(x), *x.shape[-2:]))).to(x)[:, None]
    below = [CLEAN, *times][list(times).index(t)]
    return ops.blend(inside, x, inversion.at(below).to(x))


def of_masks(
    edit: Edit,
    masks: MaskPlan | None,
    times: Sequence[Time],
    clip: Clip,
    attention: str = "self-attention, ",
) -> Edit:
    """And what the masks were; `attention`: what they act on beside latents."""
    if masks is None:
        return replace(edit, facts={"mask_used": False, **edit.facts})
    acts = f"{attention}latents in steps 1-{len(times)} of {len(times)}"
    edit = acting(edit, masks, times, clip, acts)
    return replace(edit, warnings=(*edit.warnings, *shown.warnings(edit.extras, acts)))


def acting(edit: Edit, masks: MaskPlan, times: Sequence[Time], clip: Clip, acts: str) -> Edit:
    """With the masks as a picture, and what they act on."""
    pictures = shown.of_masks(masks, "latent", times, clip.frames)
    facts = {**masks.facts, **shown.of_picture(pictures["mask"], acts), **edit.facts}
    return replace(edit, extras=pictures, facts=facts)


def free(masks: MaskPlan | None, times: Sequence[Time], clip: Clip) -> Free | None:
    """Which pixels may change in some step; None: all."""
    return None if masks is None else shown.ever(masks, "latent", times, clip.frames)
