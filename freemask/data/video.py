"""Decode a video file (PyAV) into upright RGB frames, or refuse it with a reason.

Handled: rotation and mirroring from the display matrix, odd sizes, non-square pixels, more than 8 bits,
variable frame rate. Transparent pixels are laid over black. Refused: files without pictures, HDR transfer
curves (their colours would be wrong), pictures that change size, damaged and cut-off files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Float
from torch import Tensor

from freemask.data.frames import Footage, FrameRange
from freemask.data.geometry import Geometry
from freemask.errors import UserError

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts")
# What FFmpeg may recognise behind those names. Not playlists, pictures or text, which it would read as well.
CONTAINERS = {"mov", "matroska", "avi", "gif", "mpeg", "mpegts"}
HDR = {16: "PQ (HDR10)", 18: "HLG"}


def read_video(
    path: str | Path, geometry: Geometry | None = None, frames: FrameRange | None = None
) -> Footage:
    path, geometry, frames = Path(path), geometry or Geometry(), frames or FrameRange()
    kept: list[Tensor] = []
    indices: list[int] = []
    size = (0, 0)
    with _opened(path) as container:
        stream = _picture_stream(container, path)
        fps = float(stream.average_rate or stream.guessed_rate or 0) or 8.0
        rate = frames.rate(fps, str(path))
        for position, frame in frames.choose(_decoded(container, stream, path), fps, str(path)):
            picture = _upright(_rgb(frame, stream), frame, path)
            size = (picture.shape[-2], picture.shape[-1])
            kept.append(geometry.frames(picture[None])[0])
            indices.append(position)
    return Footage(torch.stack(kept), tuple(indices), size, rate)


def _opened(path: Path) -> InputContainer:
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty", came="0 bytes", expected="a video file")
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except FFmpegError as error:
        raise UserError(
            f"{path}: cannot be opened as a video",
            came=error.strerror,
            expected="a whole video file",
            todo="download or copy it again, or see whether a player opens it",
        ) from error
    names = set(container.format.name.split(","))
    if not names & CONTAINERS:
        container.close()
        raise UserError(f"{path}: not a video file", came=f"content of type '{container.format.name}'")
    return container


def _picture_stream(container: InputContainer, path: Path) -> VideoStream:
    streams = [
        stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic
    ]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        raise UserError(
            f"{path}: holds no pictures",
            came=f"only {', '.join(kinds) or 'nothing'}",
            expected="a video stream",
        )
    if streams[0].codec_context is None:
        raise UserError(f"{path}: its codec is not known here", todo="convert it to H.264 in an mp4 file")
    return streams[0]


def _decoder(stream: VideoStream) -> VideoCodecContext:
    """The stream's own decoder; for VP8/VP9 with alpha the one that does not drop the alpha channel."""
    context = stream.codec_context
    special = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(context.codec.canonical_name)
    if stream.metadata.get("alpha_mode") == "1" and special:
        return cast(VideoCodecContext, VideoCodecContext.create(special, "r"))
    context.options = {"err_detect": "explode"}
    return context


def _decoded(
    container: InputContainer, stream: VideoStream, path: Path
) -> Iterator[tuple[float | int, VideoFrame]]:
    """(seconds, frame) in order of display; every damage is an error, none is painted over."""
    decoder, rate = _decoder(stream), float(stream.average_rate or 0) or 8.0
    position, first, end = 0, None, 0.0
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise _damaged(path, f"frame {position} is incomplete")
            for frame in decoder.decode(packet):
                first = first or frame
                _check(frame, first, position, path)
                seconds = position / rate if frame.time is None else frame.time
                end = seconds + 1 / rate
                yield seconds, frame
                position += 1
    except FFmpegError as error:
        raise _damaged(path, f"{error.strerror} at frame {position}") from error
    _check_end(container, stream, path, end=end, frames=position)


def _check(frame: VideoFrame, first: VideoFrame, position: int, path: Path) -> None:
    if frame.is_corrupt:
        raise _damaged(path, f"frame {position} is damaged")
    if (frame.width, frame.height) != (first.width, first.height):
        raise UserError(
            f"{path}: the pictures change size within the file",
            came=f"frame {position} is {frame.width}x{frame.height}",
            expected=f"{first.width}x{first.height}, as frame 0",
            todo="cut the file into parts of one size",
        )
    if frame.color_trc in HDR:
        raise UserError(
            f"{path}: high dynamic range video would be decoded with wrong colours",
            came=HDR[frame.color_trc],
            expected="standard dynamic range",
            todo="tone-map it to BT.709 first (ffmpeg: zscale and tonemap filters)",
        )


def _check_end(
    container: InputContainer, stream: VideoStream, path: Path, *, end: float, frames: int
) -> None:
    """A file cut at a frame's border decodes without a complaint; its header still tells the whole length."""
    rate = float(stream.average_rate or 0) or 8.0
    if stream.duration is not None and stream.time_base is not None:
        told = float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    elif container.duration is not None and len(container.streams) == 1:
        told = (container.duration + (container.start_time or 0)) / 1e6
    else:
        return
    if frames and told - end > max(3 / rate, 0.02 * told):
        raise _damaged(path, f"ends after {frames} frames ({end:.2f} s); its header says {told:.2f} s")


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: the video is damaged or cut off",
        came=what,
        todo="download or copy it again, or ask only for frames before the damage",
    )


def _rgb(frame: VideoFrame, stream: VideoStream) -> Float[Tensor, "3 h w"]:
    """Colours in 0..1 with square pixels; transparency over black."""
    deep = any(part.bits > 8 for part in frame.format.components)
    clear = any(part.is_alpha for part in frame.format.components) or frame.format.has_palette
    layout = ("rgba64le" if clear else "rgb48le") if deep else ("rgba" if clear else "rgb24")
    aspect = float(stream.sample_aspect_ratio or 0) or 1.0
    plain = VideoReformatter().reformat(
        frame,
        width=round(frame.width * max(aspect, 1)),
        height=round(frame.height / min(aspect, 1)),
        format=layout,
        interpolation="BICUBIC",
        threads=1,  # as many as there are cores would be started anew for every frame
    )
    values = plain.to_ndarray().astype(np.float32) / (65535 if deep else 255)
    if clear:
        values = values[..., :3] * values[..., 3:]
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def _upright(picture: Float[Tensor, "3 h w"], frame: VideoFrame, path: Path) -> Float[Tensor, "3 oh ow"]:
    """Apply the display matrix: x' = a x + c y, y' = b x + d y."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return picture
    (a, b, _), (c, d, _), _ = np.sign(np.frombuffer(bytes(data), np.int32).reshape(3, 3)).tolist()
    if (abs(a), abs(b), abs(c), abs(d)) == (0, 1, 1, 0):
        picture, across, down = picture.transpose(1, 2), c, b
    elif (abs(a), abs(b), abs(c), abs(d)) == (1, 0, 0, 1):
        across, down = a, d
    else:
        raise UserError(
            f"{path}: turned by an angle that is not a quarter turn",
            came=f"{frame.rotation} degrees",
            todo="turn it upright with a video tool first",
        )
    turned = [axis for axis, sign in ((2, across), (1, down)) if sign < 0]
    return picture.flip(turned) if turned else picture.contiguous()
