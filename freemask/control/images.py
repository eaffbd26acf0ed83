"""Who makes the images that each of several ControlNets is shown of a clip."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from freemask.control.depth import Depth
from freemask.control.edges import Edges
from freemask.control.files import Files
from freemask.data.names import CLIP
from freemask.errors import UserError, near
from freemask.types import Clip

EDGES, DEPTH = "edges", "depth"
WORDS = (EDGES, DEPTH)
LATENTS = (
    "latents"  # what a network of more input channels may be shown of a clip, beside depth; no ControlNet is
)
# What ControlNets that ship were taught, and are shown where nobody says.
TAUGHT: Mapping[str, str] = MappingProxyType({"embedded_edges": EDGES, "embedded_depth": DEPTH})

Paths = str | Path | Sequence[str | Path] | None


@runtime_checkable
class Images(Protocol):
    """As large as the frames, in 0..1."""

    def check(self, clip: Clip) -> None:
        """Refuses, before any model is there, a clip of which there can be none. Its size is not yet the final one."""
        ...

    def __call__(self, clip: Clip, device: str = "cpu") -> Float[Tensor, "f 3 h w"]: ...


def listed(paths: Paths) -> tuple[str, ...]:
    return (str(paths),) if isinstance(paths, str | Path) else tuple(map(str, paths or ()))


def shown(
    nets: Paths, asked: Paths, edges: Edges | None = None, depth: Depth | None = None
) -> tuple[Images | None, ...]:
    """For each ControlNet: what is `asked` for (edges, depth, or a folder of pictures), one for all or one for each;
    otherwise what it was taught. None: nobody says, so the images have to be given."""
    names, words = listed(nets), listed(asked)
    if isinstance(asked, str | Path):
        words = words * len(names)
    elif asked is None:
        words = tuple(TAUGHT.get(name, "") for name in names)
    if len(words) != len(names):
        raise UserError(
            "It must be said of each ControlNet what it is shown, or once for all.",
            came=f"model.control_images=[{','.join(words)}] for {len(names)} ControlNets",
            expected=f"{', '.join(WORDS)} or a folder of pictures, {len(names)} times",
        )
    own: dict[str, Images | None] = {"": None, EDGES: edges or Edges(), DEPTH: depth or Depth()}
    return tuple(own[word] if word in own else _folder(word) for word in words)


def _folder(named: str) -> Files:
    """A word that was mistyped is told from a folder that is missing."""
    plain = CLIP not in named and not Path(named).expanduser().exists()
    if plain and Path(named).name == named and (close := near(named, WORDS)):
        wrong = "There are no such images for a ControlNet."
        raise UserError(wrong, came=f"model.control_images={named}", expected=close)
    return Files(named)


def check(found: Mapping[str, Images | None], clip: Clip) -> None:
    """Refuse a clip of which a ControlNet could be shown nothing; `found` by the names of the images. Everything that
    is wrong is told at once."""
    wrong: list[UserError] = []
    for name, each in found.items():
        if name in clip.conditions:
            continue
        try:
            if each is None:
                raise UserError(
                    f"it is not known what the ControlNet '{name}' is shown",
                    came="model.control_images=null",
                    expected=f"{', '.join(WORDS)} or a folder of pictures",
                    todo="model.control_images=edges, or what else it was trained for; a list for several",
                )
            each.check(clip)
        except UserError as error:
            wrong.append(error)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        lines = (str(each).replace("\n", "\n  ") for each in wrong)
        raise UserError(f"{len(wrong)} ControlNets have no images:\n  " + "\n  ".join(lines))
