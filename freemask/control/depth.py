"""Images of depth, near is bright: as the clip's data knows it, or as a network estimates it (DPT, Depth Anything)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from freemask.backbones import checkpoint
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Clip

KINDS = ("dpt", "depth_anything")  # what they put out is large where it is near
GET = "hf download depth-anything/Depth-Anything-V2-Small-hf --local-dir DIR"

TINY = 1e-8  # depth that is the same everywhere

Network = Callable[[Float[Tensor, "3 h w"]], Float[Tensor, "y x"]]  # of one frame, in a size of its own


@dataclass(frozen=True)
class Depth:
    """`weights`: of a network that estimates depth, a folder or a hub id; without it, what the clip's data knows (the
    embedded world knows which thing is in front of which, and no more)."""

    weights: Annotated[str | Path | None, Effect.FILES] = None
    local_files_only: Annotated[bool, Effect.NONE] = False

    def check(self, clip: Clip) -> None:
        if self.weights is not None:
            self._folder(self.weights)
        elif clip.depth is None:
            raise UserError(
                "nobody knows the depth of this clip",
                came=f"'{clip.id}', and no network that would estimate it",
                expected="a clip of the embedded world, or weights of DPT or Depth Anything",
                todo=f"get some: {GET}\n            then model.control_depth.weights=DIR;"
                " or images made elsewhere: model.control_images=FOLDER",
            )

    def __call__(self, clip: Clip, device: str = "cpu") -> Float[Tensor, "f 3 h w"]:
        self.check(clip)
        found = clip.depth
        if self.weights is not None:
            found = estimated(load(self._folder(self.weights), device), clip.frames)
        assert found is not None
        return found.to(clip.frames)[:, None].expand(-1, 3, -1, -1).contiguous()

    def _folder(self, weights: str | Path) -> Path:
        patterns = ["*.json", *checkpoint.WEIGHTS]
        folder = checkpoint.alone(weights, patterns, local_files_only=self.local_files_only)
        config = checkpoint.read_json(folder / "config.json")
        kind, metric = config.get("model_type"), config.get("depth_estimation_type") == "metric"
        if kind not in KINDS or metric:
            raise UserError(
                "This network does not estimate depth as ControlNets are shown it.",
                came=f"{folder}: {kind}" + ", in metres" * metric,
                expected=f"one that says how near things are, relative to each other: {' or '.join(KINDS)}",
                todo=f"for example: {GET}",
            )
        return folder


def estimated(network: Network, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "f h w"]:
    """0 where the clip is farthest, 1 where it is nearest. The network is right only up to a scale: it is one for all
    frames, so that nothing flickers."""
    size = tuple(frames.shape[-2:])
    found = [network(frame)[None, None].float().cpu() for frame in frames]
    depth = torch.cat([interpolate(each, size, mode="bicubic", align_corners=False)[0] for each in found])
    low, high = depth.aminmax()
    return (depth - low) / (high - low if high > low else 1)


def as_channel(near: Float[Tensor, "f 1 y x"], height: int, width: int) -> Float[Tensor, "f 1 h w"]:
    """As Stable Diffusion 2 was taught it, on the grid of the latents: each frame from -1, its farthest, to 1."""
    small = interpolate(near, (height, width), mode="bicubic", align_corners=False)
    low, high = small.amin((1, 2, 3), keepdim=True), small.amax((1, 2, 3), keepdim=True)
    return 2 * (small - low) / (high - low).clamp_min(TINY) - 1


@lru_cache(maxsize=1)
def load(folder: Path, device: str) -> Network:
    """Read once per process."""

    def read() -> tuple[Any, Any]:
        import transformers as library

        own: dict[str, Any] = {"local_files_only": True}
        with checkpoint.no_bars(library):
            prepare: Any = library.AutoImageProcessor.from_pretrained(folder, **own)
            network: Any = library.AutoModelForDepthEstimation.from_pretrained(
                folder, use_safetensors=True, **own
            )
        return prepare, network.eval().requires_grad_(False).to(device)

    prepare, network = checkpoint.read(folder, read)

    @torch.no_grad()
    def estimate(frame: Tensor) -> Tensor:
        pixels = (frame * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        return network(**prepare(images=pixels, return_tensors="pt").to(device)).predicted_depth[0]

    return estimate
