"""Pictures to look at: clips side by side, and a contact sheet with a row per clip."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from experiments.jobs.lettering import font_for
from freemask.data.write import to_bytes

GAP, LINE, MOST = 6, 22, 8
BETWEEN = "    |    "
VIEW = 256  # small clips are enlarged to about this height for looking at
PAPER, INK = (255, 255, 255), (30, 30, 30)
VEIL, THICK, EDGE, TINT = (0.10, 0.12, 0.30), 0.75, (1.0, 0.85, 0.0), 0.35


def enlarged(frames: Float[Tensor, "f 3 h w"], height: int = VIEW) -> Float[Tensor, "f 3 oh ow"]:
    """Whole-number enlargement without smoothing; larger clips stay as they are."""
    factor = max(1, height // frames.shape[-2])
    return frames if factor == 1 else interpolate(frames, scale_factor=factor, mode="nearest")


def veiled(frames: Float[Tensor, "f 3 h w"], mask: Float[Tensor, "f h w"]) -> Float[Tensor, "f 3 h w"]:
    """The picture as it is where the mask is 1, darkened to blue where it is 0, with a line around all above half."""
    frames, open_to = frames.detach().float().cpu(), mask.detach().float().cpu()[:, None]
    return _rimmed(frames + (1 - open_to) * THICK * (_color(VEIL) - frames), open_to)


def outlined(frames: Float[Tensor, "f 3 h w"], mask: Float[Tensor, "f h w"]) -> Float[Tensor, "f 3 h w"]:
    """The whole picture as it is, a little yellow in the mask, with a line around all above half: for a mask that
    holds no pixels."""
    frames, inside = frames.detach().float().cpu(), mask.detach().float().cpu()[:, None]
    return _rimmed(frames + inside * TINT * (_color(EDGE) - frames), inside)


def beside(
    clips: Mapping[str, Float[Tensor, "f 3 h w"]], height: int = VIEW
) -> Float[Tensor, "f 3 oh total"]:
    """Clips next to each other, each under its name."""
    shown = {name: enlarged(frames.detach().float().cpu(), height) for name, frames in clips.items()}
    length = min(len(frames) for frames in shown.values())
    tall = max(frames.shape[-2] for frames in shown.values())
    parts = []
    for name, frames in shown.items():
        high, wide = frames.shape[-2:]
        box = torch.ones(length, 3, LINE + tall, wide)
        box[:, :, :LINE] = _label(name, wide)
        box[:, :, LINE : LINE + high] = frames[:length]
        parts += [box, torch.ones(length, 3, LINE + tall, GAP)]
    return torch.cat(parts[:-1], dim=-1)


def contact_sheet(
    path: Path,
    clips: Mapping[str, Float[Tensor, "f 3 h w"]],
    captions: Mapping[str, str],
    about: Sequence[str] = (),
) -> None:
    """At most eight frames of each clip, evenly spread, every row with its name and caption. Below them the captions
    that are too long for their row, in full, and lines `about` the edit."""
    rows = {name: thumbs(frames) for name, frames in clips.items()}
    high, wide = next(iter(rows.values())).shape[1:3]
    columns = max(len(frames) for frames in rows.values())
    sheet = Image.new("RGB", (GAP + columns * (wide + GAP), GAP + len(rows) * (LINE + high + GAP)), PAPER)
    draw, cut = ImageDraw.Draw(sheet), []
    for row, (name, frames) in enumerate(rows.items()):
        y = GAP + row * (LINE + high + GAP)
        words = printable(f"{name}: {captions[name]}" if captions.get(name) else name)
        font = font_for(words)
        shown = fitting(words, sheet.width, font)
        cut += [words] if shown != words else []
        draw.text((GAP, y + 3), shown, fill=INK, font=font)
        for column, picture in enumerate(frames):
            sheet.paste(Image.fromarray(picture), (GAP + column * (wide + GAP), y + LINE))
    path.parent.mkdir(parents=True, exist_ok=True)
    with_lines(sheet, [*cut, *about]).save(path)


def with_lines(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The picture, and below it the lines in full, short ones beside each other, long ones wrapped to its width."""
    font, wide = font_for("".join(lines)), picture.width - 2 * GAP
    lines = [part for line in _beside_each_other(lines, wide, font) for part in _wrapped(line, wide, font)]
    whole = Image.new("RGB", (picture.width, picture.height + len(lines) * LINE), PAPER)
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    for place, line in enumerate(lines):
        draw.text((GAP, picture.height + place * LINE), line, fill=INK, font=font)
    return whole


def printable(words: str) -> str:
    return "".join(each if each.isprintable() else " " for each in words)


def _color(rgb: tuple[float, ...]) -> Float[Tensor, "1 3 1 1"]:
    return torch.tensor(rgb)[None, :, None, None]


def _rimmed(frames: Float[Tensor, "f 3 h w"], mask: Float[Tensor, "f 1 h w"]) -> Float[Tensor, "f 3 h w"]:
    inside = (mask > 0.5).float()
    rim = (max_pool2d(inside, 3, stride=1, padding=1) - inside).bool()
    return torch.where(rim, _color(EDGE), frames)


def thumbs(frames: Float[Tensor, "f 3 h w"]) -> np.ndarray:
    """At most eight frames, evenly spread, as bytes in a size to look at."""
    pick = torch.linspace(0, len(frames) - 1, min(MOST, len(frames))).round().long()
    chosen = enlarged(frames.detach().float().cpu()[pick], 160)
    if chosen.shape[-2] > 200:
        chosen = interpolate(chosen, scale_factor=160 / chosen.shape[-2], mode="bilinear", antialias=True)
    return to_bytes(chosen)


def _label(words: str, wide: int) -> Float[Tensor, "3 line w"]:
    picture = Image.new("RGB", (wide, LINE), PAPER)
    font = font_for(words)
    ImageDraw.Draw(picture).text((2, 3), fitting(words, wide, font), fill=INK, font=font)
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.reshape(LINE, wide, 3).permute(2, 0, 1).float() / 255


def fitting(words: str, width: int, font: Any) -> str:
    """The words, cut where they are wider."""
    words = printable(words)
    if font.getlength(words) <= width - 2 * GAP:
        return words
    while words and font.getlength(words + "…") > width - 2 * GAP:
        words = words[:-1]
    return words + "…"


def _beside_each_other(lines: Sequence[str], width: int, font: Any) -> list[str]:
    rows: list[str] = []
    for line in lines:
        longer = f"{rows[-1]}{BETWEEN}{line}" if rows else ""
        if longer and font.getlength(printable(longer)) <= width:
            rows[-1] = longer
        else:
            rows.append(line)
    return rows


def _wrapped(words: str, width: int, font: Any) -> list[str]:
    """Lines that fit; a word longer than a line has one of its own."""
    lines = [""]
    for word in printable(words).split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
