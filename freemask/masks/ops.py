"""From word heat to a binary mask, resizing, and how well two masks agree: pure functions of tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from freemask.errors import UserError, nearest

NORMALISE = ("frame_max", "frame_minmax", "clip_max", "clip_minmax")
RESIZE = ("nearest", "bilinear")
ORDERS = ("resize_first", "threshold_first")
OTSU = "otsu"
# official: the authors' mask for blending. paper: eqs. 1-2 leave the normalisation and the threshold open; these
# are ours, measured on the embedded model.
PRESETS: Mapping[str, Mapping[str, str | int | float]] = {
    "paper": {
        "normalise": "frame_minmax",
        "pool": 0,
        "threshold": 0.2,
        "resize": "nearest",
        "order": "threshold_first",
    },
    "official": {
        "normalise": "frame_max",
        "pool": 3,
        "threshold": 0.3,
        "resize": "nearest",
        "order": "resize_first",
    },
}

Mask = Bool[Tensor, "..."] | Float[Tensor, "..."] | Int[Tensor, "..."]


@dataclass(frozen=True)
class Binarise:
    """How heat becomes a mask. None: as the preset says.

    `pool` is the window of a max-pool on the layer's grid (0: none). A pixel is in the mask where its value is
    above the threshold; `otsu` is the one that splits the clip's own values best. `resize_first` resizes the heat and
    normalises it afterwards; `threshold_first` makes the mask on the layer's grid and resizes that. Heat that is zero,
    constant under min-max, or not a number, gives an empty mask.
    """

    preset: str = "paper"
    normalise: str | None = None
    pool: int | None = None
    threshold: float | int | str | None = None
    resize: str | None = None
    order: str | None = None

    def __post_init__(self) -> None:
        _one_of("preset", self.preset, tuple(PRESETS))
        known = PRESETS[self.preset]
        for each in fields(self):
            if each.name != "preset" and getattr(self, each.name) is None:
                object.__setattr__(self, each.name, known[each.name])
        _one_of("normalise", str(self.normalise), NORMALISE)
        _one_of("resize", str(self.resize), RESIZE)
        _one_of("order", str(self.order), ORDERS)
        if self.pool is None or self.pool < 0 or (self.pool and self.pool % 2 == 0):
            raise UserError(
                "the pooling window is not possible", came=f"pool={self.pool}", expected="0 or odd"
            )
        most = float("inf") if self.preset == "official" else 1  # their configs use 2 for: never anything
        at = self.threshold
        if not (0 <= at < most if isinstance(at, float | int) else at == OTSU):
            expected = f"0 or more, below 1, or {OTSU}"
            raise UserError("the threshold is not possible", came=f"threshold={at}", expected=expected)

    def settings(self) -> dict[str, str | int | float]:
        """Everything spelled out; `Binarise(**settings)` is the same again."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def soft(self, heat: Float[Tensor, "f h w"], height: int, width: int) -> Float[Tensor, "f oh ow"]:
        """The values that are compared with the threshold, on the wanted grid."""
        heat = self._pooled(heat)
        if self.order == "resize_first":
            return self._normalised(resize(heat, height, width, str(self.resize)))
        return resize(self._normalised(heat), height, width, str(self.resize))

    def mask(self, heat: Float[Tensor, "f h w"], height: int, width: int) -> Float[Tensor, "f oh ow"]:
        """1 inside, 0 outside."""
        if self.order == "resize_first":
            return self._above(self.soft(heat, height, width))
        small = self._above(self._normalised(self._pooled(heat)))
        return (resize(small, height, width, str(self.resize)) > 0.5).float()

    def _above(self, values: Tensor) -> Tensor:
        at = otsu(values) if self.threshold == OTSU else float(self.threshold or 0)
        return (values > at).float()

    def _pooled(self, heat: Tensor) -> Tensor:
        heat = heat if heat.dtype == torch.float64 else heat.float()
        size = self.pool or 0
        return max_pool2d(heat[None], size, stride=1, padding=size // 2)[0] if size > 1 else heat

    def _normalised(self, heat: Tensor) -> Tensor:
        over = (0, 1, 2) if str(self.normalise).startswith("clip") else (1, 2)
        if str(self.normalise).endswith("minmax"):
            heat = heat - heat.amin(dim=over, keepdim=True)
        return (heat / heat.amax(dim=over, keepdim=True)).nan_to_num(0, 0, 0)


def resize(
    mask: Float[Tensor, "f h w"] | Bool[Tensor, "f h w"], height: int, width: int, mode: str = "nearest"
) -> Float[Tensor, "f oh ow"] | Bool[Tensor, "f oh ow"]:
    """To another grid; a boolean mask stays one."""
    _one_of("resize", mode, RESIZE)
    if mask.shape[1:] == (height, width):
        return mask
    if mask.dtype == torch.bool:
        return resize(mask.float(), height, width, mode) > 0.5
    corners = None if mode == "nearest" else False
    return interpolate(mask[None], size=(height, width), mode=mode, align_corners=corners)[0]


def otsu(values: Float[Tensor, "f h w"]) -> float:
    """Otsu's threshold: the values above it and the rest differ most in their means, for the sizes of the two."""
    ordered = values.flatten().sort().values
    below = torch.arange(1, len(ordered), device=ordered.device)
    if not len(below):
        return float(ordered[0])
    above, sums = len(ordered) - below, ordered.cumsum(dim=0)
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / above
    return float(ordered[(below * above * (high - low) ** 2).argmax()])


def iou(mask: Mask, truth: Mask) -> float:
    """Foreground intersection over union over the whole clip (eq. 2); 1 where both are empty."""
    inside, wanted = _pair(mask, truth)
    union = int((inside | wanted).sum())
    return int((inside & wanted).sum()) / union if union else 1.0


def two_class_iou(mask: Mask, truth: Mask) -> float:
    """The official code's mean of background and foreground IoU; a class that is in neither mask is left out."""
    inside, wanted = _pair(mask, truth)
    found = []
    for a, b in ((~inside, ~wanted), (inside, wanted)):
        union = int((a | b).sum())
        if union:
            found.append(int((a & b).sum()) / union)
    return sum(found) / len(found)


def _pair(mask: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    if mask.shape != truth.shape or not mask.numel():
        raise ValueError(f"masks of different or no size cannot be compared: {mask.shape}, {truth.shape}")
    return mask > 0.5, truth.to(mask.device) > 0.5


def _one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{key} cannot be '{value}'", came=f"{key}={value}", expected=nearest(value, known))
