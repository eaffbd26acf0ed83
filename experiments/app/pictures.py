"""The pictures of the page: every map in one sheet with those marked that a mask is made of, and one of them large."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from experiments.app.looked import Looked, Map
from experiments.jobs.lettering import font_for
from experiments.jobs.pictures import GAP, INK, PAPER, enlarged, fitting, veiled
from experiments.report.mask_sheet import heated
from freemask.data.write import to_bytes
from freemask.masks.heat import short

WIDE, LARGEST, SMALLEST = 1180, 44, 14  # pixels of all cells beside each other, and of one
LEFT, HEAD = 240, 62  # for the names of layers, and for times below the page's own buttons
MARK, BOOK, SHOWN = (
    (0, 214, 96),
    (196, 30, 30),
    (0, 170, 255),
)  # taken by the mask; best in the codebook; shown large
STAR, LINE = "★ ", 4
VIEW = 360


@dataclass(frozen=True)
class Cells:
    """Where the cells of a sheet lie."""

    layers: int
    times: int

    @property
    def side(self) -> int:
        return min(LARGEST, max(SMALLEST, WIDE // self.times))

    @property
    def size(self) -> tuple[int, int]:
        return LEFT + self.times * self.side + GAP, HEAD + self.layers * self.side + GAP

    def box(self, layer: int, time: int) -> tuple[int, int, int, int]:
        x, y = LEFT + time * self.side, HEAD + layer * self.side
        return x, y, x + self.side, y + self.side

    def at(self, x: float | int, y: float | int) -> tuple[int, int] | None:
        """Layer and time of the cell at a place of the picture."""
        layer, time = int((y - HEAD) // self.side), int((x - LEFT) // self.side)
        return (layer, time) if 0 <= layer < self.layers and 0 <= time < self.times else None


def cells_of(looked: Looked) -> Cells:
    return Cells(len(looked.layers), len(looked.times))


def sheet(looked: Looked, frame: int) -> Image.Image:
    """Heat of one frame: a row for each layer, in the order in which the network calls them, a column for each time,
    the least noise first. Each map has its own scale."""
    layers, times, cells = looked.layers, looked.times, cells_of(looked)
    picture = Image.new("RGB", cells.size, PAPER)
    for row, layer in enumerate(layers):
        for column, time in enumerate(times):
            heat = looked.subject.clock.lift(looked.maps[layer, time], len(looked.clip.frames))
            picture.paste(_cell(heat, frame, cells.side), cells.box(row, column)[:2])
    draw = ImageDraw.Draw(picture)
    _names(draw, looked, cells)
    _frames(draw, looked, cells)
    return picture


def marked(picture: Image.Image, looked: Looked, layer: int, time: int) -> Image.Image:
    """With the map that is shown large."""
    left, top, right, low = cells_of(looked).box(layer, time)
    marked = picture.copy()
    ImageDraw.Draw(marked).rectangle((left, top, right - 2, low - 2), outline=SHOWN, width=2)
    return marked


def view(looked: Looked, found: Map, frame: int) -> np.ndarray:
    """One map over a frame: its heat, and beside it the mask, clear inside."""
    frames, at = looked.clip.frames.detach().float().cpu(), slice(frame, frame + 1)
    heat = heated(frames[at], found.heat[at].float())
    parts = [enlarged(each, VIEW) for each in (heat, veiled(frames[at], found.mask[at].float()))]
    gap = torch.ones(1, 3, parts[0].shape[-2], 2 * GAP)
    return to_bytes(torch.cat([parts[0], gap, parts[1]], dim=-1))[0]


def _cell(heat: Float[Tensor, "f h w"], frame: int, side: int) -> Image.Image:
    one = heat[frame : frame + 1]
    one = one - one.min()
    nothing = torch.zeros(1, 3, *one.shape[-2:])
    colours = heated(nothing, one) / heated(nothing, torch.ones_like(one)).amax()
    small = Image.fromarray(to_bytes(colours)[0])
    small.thumbnail((side - 1, side - 1)) if max(small.size) > side else None
    wide, high = small.size
    scale = (side - 1) / max(wide, high)
    fitted = small.resize(
        (max(1, round(wide * scale)), max(1, round(high * scale))), Image.Resampling.NEAREST
    )
    cell = Image.new("RGB", (side, side), PAPER)
    cell.paste(fitted, ((side - 1 - fitted.width) // 2, (side - 1 - fitted.height) // 2))
    return cell


def _names(draw: ImageDraw.ImageDraw, looked: Looked, cells: Cells) -> None:
    """Of layers and some times; a star where the codebook says that a layer, or a time, is the best."""
    layers, times = looked.layers, looked.times
    book = None if looked.book is None else looked.book.book
    best_layer = None if book is None else book.best_site.partition(":")[0]
    best_time = None if book is None else book.nearest_time(times)
    font = font_for(STAR)
    for row, layer in enumerate(layers):
        star, ink = (STAR, BOOK) if layer == best_layer else ("", INK)
        words = fitting(f"{star}{row + 1} {short(layer)}", LEFT, font)
        draw.text((GAP, cells.box(row, 0)[1] + cells.side // 2 - 8), words, fill=ink, font=font)
    every = max(1, -(-34 // cells.side))
    for column, time in enumerate(times):
        best = time == best_time
        near = best_time is not None and abs(column - times.index(best_time)) < every
        if best or (column % every == 0 and not near):
            words = f"{STAR.strip() if best else ''}{time:g}"
            draw.text((cells.box(0, column)[0], HEAD - 18), words, fill=BOOK if best else INK, font=font)
    draw.text((GAP, HEAD - 38), "layer", fill=INK, font=font)
    draw.text((LEFT, HEAD - 38), "time (noise grows to the right)", fill=INK, font=font)


def _frames(draw: ImageDraw.ImageDraw, looked: Looked, cells: Cells) -> None:
    """A line around the maps that the strategy takes: around each group of neighbours one."""
    picked = {(looked.layers.index(layer), looked.times.index(time)) for layer, time in looked.picked}
    for row, column in picked:
        left, top, right, low = cells.box(row, column)
        sides = {
            (row, column - 1): (left - LINE, top - LINE, left - 1, low + LINE - 2),
            (row, column + 1): (right - 1, top - LINE, right + LINE - 2, low + LINE - 2),
            (row - 1, column): (left - 1, top - LINE, right - 1, top - 1),
            (row + 1, column): (left - 1, low - 1, right - 1, low + LINE - 2),
        }
        for beside, line in sides.items():
            if beside not in picked:
                draw.rectangle(line, fill=MARK)
