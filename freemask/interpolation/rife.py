"""The network of RIFE HDv3 (Huang et al., 2022, "IFNet"): the picture half way between two others.

Three blocks look at the pictures four times smaller, then twice, then as they are. Each corrects where the pixels of
the middle come from in either picture, and how much each picture counts. It is run in both directions and averaged, so
that swapping the pictures changes nothing. The names of the parts are those of the published weights.
"""

from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from freemask.errors import UserError
from freemask.optical.ops import warped

WIDTH, SCALES = 90, (4, 2, 1)
SEEN = 11  # two pictures, the share of the first, the flow into both
SIDES = 16  # what sides must be a multiple of: a picture four times smaller is halved twice
UNUSED = "block_tea."  # a fourth block, which taught the others


class Block(nn.Module):
    def __init__(self, seen: int = SEEN) -> None:
        super().__init__()
        self.conv0 = nn.Sequential(conv(seen, WIDTH // 2, 2), conv(WIDTH // 2, WIDTH, 2))
        self.convblock0, self.convblock1, self.convblock2, self.convblock3 = (
            nn.Sequential(conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)) for _ in range(4)
        )
        self.conv1, self.conv2 = head(4), head(1)

    def forward(
        self, pictures: Float[Tensor, "b 7 h w"], flow: Float[Tensor, "b 4 h w"], scale: int
    ) -> tuple[Float[Tensor, "b 4 h w"], Float[Tensor, "b 1 h w"]]:
        """What is to be added to the flow (in pixels) and to the share, both found at sides `scale` times smaller."""
        small = sized(torch.cat([pictures, flow / scale], dim=1), 1 / scale)
        maps = self.conv0(small)
        for layers in (self.convblock0, self.convblock1, self.convblock2, self.convblock3):
            maps = maps + layers(maps)
        return sized(self.conv1(maps), scale) * scale, sized(self.conv2(maps), scale)


class Between(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block0, self.block1, self.block2 = Block(), Block(), Block()

    def forward(
        self, left: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b 3 h w"]:
        flow, share = left.new_zeros(len(left), 4, *left.shape[-2:]), torch.zeros_like(left[:, :1])
        a, b = left, right
        for block, scale in zip((self.block0, self.block1, self.block2), SCALES, strict=True):
            forth, more = block(torch.cat([a, b, share], dim=1), flow, scale)
            back, less = block(torch.cat([b, a, -share], dim=1), swapped(flow), scale)
            flow = flow + (forth + swapped(back)) / 2
            share = share + (more - less) / 2
            a, b = warped(left, flow[:, :2]), warped(right, flow[:, 2:])
        of_left = share.sigmoid()
        return of_left * a + (1 - of_left) * b


def conv(seen: int, made: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(seen, made, 3, stride, 1), nn.PReLU(made))


def head(made: int) -> nn.Sequential:
    """Back to four times the sides."""
    half = WIDTH // 2
    layers = nn.ConvTranspose2d(WIDTH, half, 4, 2, 1), nn.PReLU(half), nn.ConvTranspose2d(half, made, 4, 2, 1)
    return nn.Sequential(*layers)


def sized(maps: Tensor, factor: float | int) -> Tensor:
    return F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)


def swapped(flow: Float[Tensor, "b 4 h w"]) -> Float[Tensor, "b 4 h w"]:
    """With the two pictures in each other's place."""
    return flow.roll(2, dims=1)


@torch.no_grad()
def between(
    network: nn.Module, left: Float[Tensor, "f 3 h w"], right: Float[Tensor, "f 3 h w"], device: str
) -> Float[Tensor, "f 3 h w"]:
    """Pair by pair, which bounds the memory of long clips; sides are filled up to what the network can take."""
    height, width = left.shape[-2:]
    fill = [0, -width % SIDES, 0, -height % SIDES]
    found = []
    for pair in zip(left.split(1), right.split(1), strict=True):
        a, b = (F.pad(each.float(), fill, mode="replicate").to(device) for each in pair)
        found.append(network(a, b)[..., :height, :width].to(left))
    return torch.cat(found)


@lru_cache(maxsize=2)
def load(path: Path, device: str) -> nn.Module:
    """Read once per process: a .safetensors file, or what torch has saved, of which tensors alone are read."""
    from safetensors.torch import load_file

    network = Between()
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        named = {name.removeprefix("module."): value for name, value in weights.items()}
        network.load_state_dict({name: each for name, each in named.items() if not name.startswith(UNUSED)})
    except Exception as error:  # the readers of both formats raise many unrelated kinds
        raise UserError(
            "the weights of RIFE cannot be read",
            came=f"{path}: {str(error).splitlines()[0]}",
            expected="flownet.pkl of RIFE HDv3, or its tensors as .safetensors",
        ) from error
    return network.eval().requires_grad_(False).to(device)
