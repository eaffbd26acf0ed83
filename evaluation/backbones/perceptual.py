"""The networks under LPIPS: AlexNet and VGG16 with the heads of the lpips package, and stated stand-ins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from evaluation.backbones import clip
from evaluation.backbones.weights import Found, find, present
from evaluation.ops import perceptual_distance, resize_cubic
from freemask.errors import UserError

CHOICES = ("auto", "alex", "vgg", "random-alex", "embedded")
SMALLEST = 64
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)

ALEX = ((3, 64, 11, 4, 2), "tap", "pool", (64, 192, 5, 1, 2), "tap", "pool", (192, 384, 3, 1, 1), "tap")
ALEX += ((384, 256, 3, 1, 1), "tap", (256, 256, 3, 1, 1), "tap")
VGG_BLOCKS = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))


@dataclass(frozen=True, eq=False)
class Perceptual:
    """A distance between frames in 0..1, one value a frame; 0 for equal frames."""

    label: str
    maps: Callable[[Tensor], Sequence[Tensor]]
    heads: Sequence[Float[Tensor, " _"]] | None = None

    def __call__(self, a: Float[Tensor, "f 3 h w"], b: Float[Tensor, "f 3 h w"]) -> Float[Tensor, " f"]:
        """Frame by frame, which bounds the memory of large clips."""
        with torch.inference_mode():
            pairs = zip(a.split(1), b.split(1), strict=True)
            return torch.cat(
                [perceptual_distance(self.maps(x), self.maps(y), self.heads).cpu() for x, y in pairs]
            )


class Trunk(nn.Module):
    """The convolutions of a classifier, numbered as torchvision does; gives the layers that LPIPS takes."""

    def __init__(self, plan: Sequence, pool: int) -> None:
        super().__init__()
        self.features = nn.ModuleList()
        self.taps: set[int] = set()
        for step in plan:
            if step == "pool":
                self.features.append(nn.MaxPool2d(pool, 2))
                continue
            if step == "tap":
                self.taps.add(len(self.features) - 1)
                continue
            into, out, size, stride, padding = step
            self.features.append(nn.Conv2d(into, out, size, stride, padding))
            self.features.append(nn.ReLU())

    def forward(self, frames: Float[Tensor, "f 3 h w"]) -> list[Tensor]:
        mean, std = (torch.tensor(v, device=frames.device)[:, None, None] for v in (SHIFT, SCALE))
        x, found = (enlarged(frames) * 2 - 1 - mean) / std, []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                found.append(x)
        return found


def enlarged(frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "f 3 h2 w2"]:
    """Frames are compared at their own size; a shorter side below 64 pixels is first enlarged to 64."""
    h, w = frames.shape[-2:]
    if min(h, w) >= SMALLEST:
        return frames
    factor = SMALLEST / min(h, w)
    return resize_cubic(frames, round(h * factor), round(w * factor))


def alex() -> Trunk:
    return Trunk(ALEX, pool=3)


def vgg() -> Trunk:
    plan: list = []
    for block in VGG_BLOCKS:
        plan += ["pool"] if plan else []
        plan += [(a, b, 3, 1, 1) for a, b in zip(block, block[1:], strict=False)] + ["tap"]
    return Trunk(plan, pool=2)


def randomise(trunk: Trunk, seed: int) -> Trunk:
    """He-normal weights, no biases. From numpy's frozen generator: the same on every machine."""
    rng = np.random.RandomState(seed)
    with torch.no_grad():
        for layer in trunk.features:
            if isinstance(layer, nn.Conv2d):
                spread = (2 / layer.weight[0].numel()) ** 0.5
                layer.weight.copy_(torch.from_numpy(rng.standard_normal(layer.weight.shape) * spread))
                assert layer.bias is not None
                layer.bias.zero_()
    return trunk


def resolve(backbone: str, weights: str | None = None) -> Found:
    """What a setting means here; `auto` is AlexNet if torchvision's weights are here, else the random one."""
    if backbone not in CHOICES:
        raise UserError(f"there is no LPIPS backbone '{backbone}'", expected=", ".join(CHOICES))
    if backbone == "auto":
        backbone = "alex" if present("alex") else "random-alex"
    if backbone == "random-alex":
        if weights is not None:
            raise UserError(
                "a random backbone takes no weights", came=weights, expected="backbone=alex or vgg"
            )
        return Found(backbone, backbone)
    return find(backbone, weights)


def load(found: Found, device: str = "auto") -> Perceptual:
    """Read once per process."""
    return _load(found, clip.pick_device(device))


@lru_cache(maxsize=4)
def _load(found: Found, device: str) -> Perceptual:
    label = found.label
    if found.name == "embedded":
        return Perceptual(label, clip.load(found, device).maps)
    trunk, heads = (vgg() if found.name == "vgg" else alex()), None
    if found.path is None:
        randomise(trunk, seed=0)
    else:
        heads = [head.to(device) for head in read_heads(found.name)]
        try:
            state = torch.load(found.path, map_location="cpu", weights_only=True)
            trunk.load_state_dict({key: value for key, value in state.items() if key.startswith("features.")})
        except Exception as error:
            raise UserError(
                f"the weights of LPIPS '{label}' cannot be read",
                came=found.path,
                expected="torchvision's file",
            ) from error
    trunk = trunk.eval().requires_grad_(False).to(device)
    return Perceptual(label, lambda frames: trunk(frames.to(device)), heads)


def read_heads(backbone: str) -> list[Float[Tensor, " _"]]:
    """The layer weights (version 0.1) that come with the lpips package (BSD-2-Clause)."""
    import importlib.resources

    file = Path(str(importlib.resources.files("lpips"))) / "weights" / "v0.1" / f"{backbone}.pth"
    state = torch.load(file, map_location="cpu", weights_only=True)
    return [state[f"lin{layer}.model.1.weight"].flatten() for layer in range(5)]
