"""Models and clips to keep and use again."""

from pathlib import Path
from typing import Any

from experiments.front.clips import ClipLike, clip_or_name
from experiments.front.said import Said
from experiments.jobs.edit import model_of
from experiments.jobs.one_clip import reach
from freemask.data.held import taken
from freemask.data.open import open_clip
from freemask.errors import UserError, nearest
from freemask.types import Backbone, Clip

CUT = ("frames", "start", "stride", "size", "crop")


def load_model(name: str = "embedded", *overrides: str, **settings: Any) -> Backbone:
    """A frozen network by its name (`freemask list model`), for any number of edits.

    Settings are those of the command without "model.", such as `load_model("zeroscope", dtype="float16")`.

    >>> model = freemask.load_model("embedded", device="cpu")
    """
    own = {f"model.{key}": value for key, value in settings.items()}
    return model_of(Said.of(overrides, own, name).config)


def load_clip(clip: ClipLike, model: Backbone | None = None, **settings: Any) -> Clip:
    """A video, a folder of frames or a picture as a Clip; with a model in the size that it takes.

    `frames`, `start`, `stride`, `size` and `crop` are those of the command: 8 frames of a file unless said otherwise.

    >>> clip = freemask.load_clip("my.mp4", model, frames=16, start=24, stride=2)
    """
    for name in set(settings) - set(CUT):
        raise UserError(f"a clip has no setting '{name}'", came=name, expected=nearest(name, CUT))
    wish, known = Said.of((), settings).options.wish(), clip_or_name(clip)
    geometry = wish.geometry
    if model is not None:
        geometry = geometry.fitted(multiple=model.multiple, native=model.native)
    if isinstance(known, Clip):
        return taken(known, geometry, wish.frames)
    if known is None:
        raise UserError("a clip is needed", came="None", expected="a path, a Clip or a tensor")
    path = Path(known).expanduser()
    return open_clip(path, geometry, reach(wish.frames))
