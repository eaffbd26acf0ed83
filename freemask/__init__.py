"""Text-driven video editing with frozen diffusion models: clips, backbones, methods and the masks they trust.

    import freemask

    result = freemask.edit("my.mp4", "a red car on a road", "a blue car on a road")
    result.save("out")                              # edited.mp4, side by side, contact sheet, frames, masks

    model = freemask.load_model("zeroscope")        # once, for any number of edits
    clip = freemask.load_clip("my.mp4", model, frames=24)
    found = freemask.masks(clip, "a red car on a road", "car", model=model)     # found.heat, found.mask

All has the defaults of the command; `evaluation.metric(name)` measures what came out.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.front import Result, edit, load_clip, load_model, masks
    from freemask.errors import UserError
    from freemask.types import Clip

# Handed out when they are asked for, so that `import freemask` waits for no torch.
_HOMES = {"Clip": "freemask.types", "UserError": "freemask.errors"} | dict.fromkeys(
    ("Result", "edit", "load_clip", "load_model"), "experiments.front"
)
__all__ = ["Clip", "Result", "UserError", "edit", "load_clip", "load_model", "masks"]


def __getattr__(name: str) -> Any:
    if name == "masks":  # the package of that name, which can be called
        return import_module("freemask.masks")
    if name not in _HOMES:
        raise AttributeError(f"module 'freemask' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
