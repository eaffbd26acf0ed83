"""What a network that animates a picture reads of it: the answer of an image encoder of transformers."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from freemask.backbones.checkpoint import Checkpoint

ENCODER, EXTRACTOR = "image_encoder", "feature_extractor"
KIND = "CLIPVisionModelWithProjection"


class ImageReader:
    """An image encoder, and the size, mean and spread of the pictures that it was trained on."""

    def __init__(self, encoder: Any, about: dict[str, Any]) -> None:
        crop = about["crop_size"]
        self.size = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        self.mean, self.std = (
            torch.tensor(about[f"image_{name}"])[:, None, None] for name in ("mean", "std")
        )
        self.encoder = encoder.eval().requires_grad_(False)

    @classmethod
    def of(cls, files: Checkpoint, dtype: torch.dtype, device: torch.device) -> "ImageReader | None":
        """None where the checkpoint has no image encoder."""
        if ENCODER not in files.classes:
            return None
        files.kind(EXTRACTOR, ())
        encoder = files.part(ENCODER, (KIND,), dtype, device)
        return cls(encoder, files.config(EXTRACTOR, "preprocessor_config.json"))

    @torch.no_grad()
    def __call__(self, frame: Float[Tensor, "3 h w"]) -> Float[Tensor, " d"]:
        seen = (square(frame, self.size) - self.mean) / self.std
        return self.encoder(seen[None].to(self.encoder.device, self.encoder.dtype)).image_embeds[0]


def square(frame: Float[Tensor, "3 h w"], size: tuple[int, int]) -> Float[Tensor, "3 oh ow"]:
    """The middle of a frame, as high as the frame is wide, in this height and width. A frame that is wider than high is
    enlarged first. By bytes and with the rounding of I2VGen-XL's pipeline in diffusers."""
    height, width = frame.shape[1:]
    image = Image.fromarray((frame * 255).round().byte().permute(1, 2, 0).cpu().numpy())
    scale = min(1.0, height / width)
    image = image.resize((round(width // scale), round(height // scale)), Image.Resampling.BOX)
    left, top = (image.width - width) // 2, (image.height - width) // 2
    middle = image.crop((left, top, left + width, top + width))
    made = np.array(middle.resize((size[1], size[0]), Image.Resampling.BILINEAR), np.float32) / 255
    return torch.from_numpy(made).permute(2, 0, 1)
