"""Write frames: an H.264 mp4 to look at, or PNG files that keep every 8-bit value."""

import os
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from freemask.errors import UserError

BT709 = 1


def to_bytes(frames: Float[Tensor, "f 3 h w"]) -> UInt8[np.ndarray, "f h w 3"]:
    """0..1 to 0..255, rounded."""
    rounded = frames.detach().float().cpu().clamp(0, 1).mul(255).round()
    return np.ascontiguousarray(rounded.byte().permute(0, 2, 3, 1).numpy())


def write_video(
    path: str | Path, frames: Float[Tensor, "f 3 h w"], fps: float | int, *, crf: int = 12
) -> tuple[int, int]:
    """H.264, yuv420p. An odd height or width is made even by repeating the last row or column (such files
    play everywhere); returns the written (height, width). A file half written never has the final name."""
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UserError(
            f"{path}: videos are written as mp4", came=path.suffix or "no ending", expected=".mp4"
        )
    high, wide = frames.shape[-2], frames.shape[-1]
    even = pad(frames.float(), (0, wide % 2, 0, high % 2), mode="replicate")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    try:
        with av.open(str(part), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.height, stream.width, stream.pix_fmt = even.shape[-2], even.shape[-1], "yuv420p"
            stream.options = {"crf": str(crf), "preset": "faster"}
            # All three, or browsers take the colours for those of another standard.
            stream.codec_context.colorspace = BT709
            stream.codec_context.color_primaries = BT709
            stream.codec_context.color_trc = BT709
            stream.codec_context.color_range = 1
            convert = VideoReformatter()  # one for all frames, on this thread: a new one each starts threads
            for pixels in to_bytes(even):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                yuv = convert.reformat(frame, format="yuv420p", dst_colorspace=BT709, threads=1)
                container.mux(stream.encode(yuv))
            container.mux(stream.encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return even.shape[-2], even.shape[-1]


def write_frames(folder: str | Path, frames: Float[Tensor, "f 3 h w"]) -> list[Path]:
    """00000.png, 00001.png, ...; frames of an earlier, longer clip under such names are removed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:05d}.png" for index in range(len(frames))]
    for path, pixels in zip(paths, to_bytes(frames), strict=True):
        Image.fromarray(pixels).save(path)
    for old in folder.glob("*.png"):
        if re.fullmatch(r"\d{5}\.png", old.name) and old not in paths:
            old.unlink()
    return paths
