"""Pieces of the page that are made of what was typed, dropped or measured; all texts are escaped here."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from experiments.app.editing import Edited
from experiments.app.looked import Looked, Map
from experiments.app.pictures import BOOK, MARK, SHOWN
from freemask.data.write import to_bytes
from freemask.errors import UserError
from freemask.masks.heat import short

LOSSLESS = 200  # pixels of the shorter side: larger frames are sent as JPEG


def player(clips: Mapping[str, Float[Tensor, "f 3 h w"]], fps: float | int, tall: int = 360) -> str:
    """One clip, or two in step with a line to drag between them, under their names."""
    shown = list(clips.values())[:2]
    count, _, high, wide = shown[0].shape
    sources = " ".join(f'{key}="{_strip(each)}"' for key, each in zip(("one", "other"), shown, strict=False))
    names = "".join(f"<span>{escape(name)}</span>" for name in clips)
    about = f'frames="{count}" fps="{float(fps):g}" high="{high}" wide="{wide}"'
    inner = f'<div class="clip-names">{names}</div><clip-player {about} {sources}></clip-player>'
    return f'<div style="max-width: {tall * wide // high}px">{inner}</div>'


def status(text: str, notes: Sequence[str] = ()) -> str:
    more = "".join(f"<br><small>note: {_lines(each)}</small>" for each in notes)
    return f'<div class="status">{_lines(text)}{more}</div>'


def legend(looked: Looked) -> str:
    """What the marks in the sheet mean, and what the mask strategy takes."""
    taken = f"{_key(MARK)} what mask={escape(looked.name)} takes"
    taken += "" if looked.picked else ": none of these maps"
    parts = [taken, f"{_key(SHOWN)} the map shown below"]
    if looked.book is not None:
        star = f'<b style="color:{_colour(BOOK)}">★</b>'
        parts.insert(1, f"{star} best layer and best time of the codebook ({escape(looked.book.about)})")
    marks = " ".join(f'<span class="mark">{each}</span>' for each in parts)
    return f"<p>{marks}</p><p>{'<br>'.join(map(_lines, looked.lines()))}</p>"


def about(looked: Looked, found: Map, layer: int, time: int) -> str:
    """The map shown, in words."""
    said = f"layer {short(looked.layers[layer])}, time {looked.times[time]:g}"
    said += f": covers {float(found.mask.mean()):.1%} of the clip"
    scored = "" if found.score is None else f", IoU {found.score:.3f} with the clip's annotation"
    return f"<p>{_lines(said + scored)}</p>"


def numbers(made: Edited) -> str:
    """What was measured, seconds, and what the edit was."""
    rows = [_row(f"{name} {arrow}", value, about) for name, value, arrow, about in made.numbers()]
    stages = ", ".join(f"{name} {each:.1f}" for name, each in made.stages().items())
    rows.append(_row("seconds", f"{made.seconds:.1f}", stages))
    facts = "".join(_row(name, "", text) for name, text in made.facts().items())
    kept = f"<p>All files: {escape(str(made.folder))}</p>"
    more = f'<details><summary>What this edit was</summary><table class="numbers">{facts}</table></details>'
    return f'<table class="numbers">{"".join(rows)}</table>{more}{kept}'


def told(error: UserError) -> str:
    """What was wrong, what came, what was expected, what to do next."""
    return _lines(str(error))


def _row(name: str, value: str, about: str) -> str:
    cells = f'<td>{escape(name)}</td><td class="value">{escape(value)}</td><td>{escape(about)}</td>'
    return f"<tr>{cells}</tr>"


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _key(colour: tuple[int, int, int]) -> str:
    return f'<span class="key" style="border-color:{_colour(colour)}"></span>'


def _colour(rgb: tuple[int, int, int]) -> str:
    return f"rgb{rgb}"


def _strip(frames: Float[Tensor, "f 3 h w"]) -> str:
    """All frames below each other, as an address that holds the picture itself."""
    picture = Image.fromarray(np.concatenate(list(to_bytes(frames.detach().float().cpu()))))
    kind, data = ("png" if min(frames.shape[-2:]) <= LOSSLESS else "jpeg"), BytesIO()
    picture.save(data, kind, **({} if kind == "png" else {"quality": 90}))
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
