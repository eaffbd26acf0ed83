"""Read one picture or one mask file, upright and without guessing what its numbers mean."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from freemask.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")


def read_image(path: Path) -> Float[Tensor, "3 h w"]:
    """RGB in 0..1, turned as its EXIF entry says. Transparent pixels are laid over black; 16-bit grey keeps
    its depth; 16-bit colour is read with 8 bits."""
    image = open_picture(path)
    if image.mode.startswith("I"):
        grey = np.asarray(image, np.float32)
        if grey.max(initial=0) > 65535 or grey.min(initial=0) < 0:
            raise UserError(f"{path}: pixel values outside 16 bits", came=f"mode {image.mode}")
        values = np.repeat(grey[..., None] / 65535, 3, axis=2)
    elif image.mode == "F":
        raise UserError(f"{path}: floating-point pictures have no agreed range", todo="save it as PNG")
    elif image.has_transparency_data:
        clear = np.asarray(image.convert("RGBA"), np.float32) / 255
        values = clear[..., :3] * clear[..., 3:]
    else:
        values = np.array(image.convert("RGB"), np.float32) / 255
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def read_mask(path: Path) -> Bool[Tensor, "h w"]:
    """A black-and-white picture: true where white. Also true where an index or grey id is above 0."""
    return torch.from_numpy(read_ids(path) > 0)


def read_half(path: Path) -> Bool[Tensor, "h w"]:
    """A mask whose edges were blurred by JPEG: true where it is lighter than half."""
    return torch.from_numpy(np.array(open_picture(path).convert("L"), np.uint8) > 127)


def read_ids(path: Path) -> UInt8[np.ndarray, "h w"]:
    """Object ids of an annotation, 0 being background.

    Indexed pictures hold ids; black-and-white ones (0 and 255) hold object 1; grey ones hold ids as values.
    """
    image = open_picture(path)
    if image.mode == "P":
        values = np.array(image, np.uint8)
        _check_palette(image, values, path)
    elif image.mode in ("1", "L"):
        values = np.array(image.convert("L"), np.uint8)
    elif image.mode in ("RGB", "RGBA", "LA"):
        colours = np.array(image.convert("RGB"), np.uint8)
        values = colours[..., 0]
        if (colours != values[..., None]).any():
            raise UserError(
                f"{path}: a mask in full colour does not say which colour is which object",
                came=f"mode {image.mode}",
                expected="an indexed (palette) PNG with object ids, or black and white",
            )
    else:
        raise UserError(
            f"{path}: not a mask", came=f"mode {image.mode}", expected="an indexed or grey 8-bit PNG"
        )
    return _ids(values, path, grey=image.mode != "P")


def values_in(values: UInt8[np.ndarray, "h w"]) -> list[int]:
    """The values that occur, ascending; much faster than sorting a whole picture."""
    return np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()


def _ids(values: UInt8[np.ndarray, "h w"], path: Path, *, grey: bool) -> UInt8[np.ndarray, "h w"]:
    present = values_in(values)
    if set(present) <= {0, 255}:
        return (values // 255).astype(np.uint8)
    if 255 in present or (grey and present[-1] > 32):
        raise UserError(
            f"{path}: not a clean mask",
            came=f"{len(present)} different values between {present[0]} and {present[-1]}",
            expected="0 and 255, or object ids 0, 1, 2, ...",
            todo="save masks as PNG without smoothing (JPEG and smooth resizing blur their edges)",
        )
    return values


def _check_palette(image: Image.Image, values: UInt8[np.ndarray, "h w"], path: Path) -> None:
    """Background must be black and every object must have a colour of its own, else indices were shuffled."""
    flat = np.asarray(image.getpalette("RGB"), np.uint8)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(flat) // 3] = flat.reshape(-1, 3)
    used = [tuple(colours[index].tolist()) for index in values_in(values) if index]
    if tuple(colours[0].tolist()) != (0, 0, 0) or (0, 0, 0) in used or len(set(used)) < len(used):
        raise UserError(
            f"{path}: the palette is not that of an annotation",
            came=f"background {tuple(colours[0].tolist())}, objects {used[:5]}",
            expected="index 0 black, and a colour of its own for each object",
            todo="save it with the DAVIS palette",
        )


def open_picture(path: Path) -> Image.Image:
    """The decoded, upright picture; animations are refused. Of a camera's MPO file (a JPEG with a preview or a second
    eye's view behind it) the first picture is the photo."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if count > 1:
                raise UserError(f"{path}: an animation, not one picture", came=f"{count} frames")
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        size = path.stat().st_size
        raise UserError(
            f"{path}: not a picture",
            came=f"{size} bytes of something else" if size else "an empty file",
            expected="PNG, JPEG, WebP or BMP",
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path}: the picture is damaged", came=error, todo="copy or make it again"
        ) from error
