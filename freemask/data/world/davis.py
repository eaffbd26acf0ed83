"""A clip of the world as DAVIS has it: a folder of pictures, and one of palette PNGs with a number for each thing."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from freemask.data.world.known import truth
from freemask.data.world.spec import Scene


def _palette() -> list[int]:
    """The first colours of the Pascal VOC palette, which DAVIS uses."""
    colors = []
    for index in range(256):
        rgb, bits = [0, 0, 0], index
        for shift in range(7, -1, -1):
            for channel in range(3):
                rgb[channel] |= ((bits >> channel) & 1) << shift
            bits >>= 3
        colors += rgb
    return colors


def write_clip(root: Path, name: str, scene: Scene) -> None:
    images, labels = root / "JPEGImages" / "480p" / name, root / "Annotations" / "480p" / name
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    known = truth(scene)
    for f, frame in enumerate(known.frames):
        pixels = (frame.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(images / f"{f:05d}.jpg", quality=97, subsampling=0)
        numbers = np.zeros(pixels.shape[:2], dtype=np.uint8)
        for index, mask in enumerate(known.things):
            numbers[mask[f].numpy()] = index + 1
        picture = Image.fromarray(numbers, mode="P")
        picture.putpalette(_palette())
        picture.save(labels / f"{f:05d}.png")
