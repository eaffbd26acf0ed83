"""A folder of video files with a manifest (YAML or CSV: file, source, target, ...), as made from
stock-footage sites such as Pexels. The manifest's form is described in tasks.py; lists/pexels20.yaml is an example
with 20 entries, whose file names are placeholders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from freemask.data.captions import Captions
from freemask.data.files import Files
from freemask.data.frames import FrameRange
from freemask.data.geometry import Geometry
from freemask.data.paths import existing_folder
from freemask.data.shipped import FOLDER, list_path
from freemask.data.tasks import read_list
from freemask.data.video import SUFFIXES
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import EditTask

MANIFESTS = ("manifest.yaml", "manifest.yml", "manifest.csv")


class Pexels(Files):
    """Without `manifest`, the file of that name in the root is taken; it may also name a list that comes along."""

    def __init__(
        self,
        root: Annotated[str | Path, Effect.PLACE],
        manifest: Annotated[str | Path | None, Effect.PLACE] = None,
        *,
        clips: Sequence[str] | None = None,
        geometry: Geometry | None = None,
        frames: FrameRange | None = None,
        captions: Annotated[Captions | None, Effect.NONE] = None,
    ) -> None:
        path = list_path(manifest) if manifest else find_manifest(existing_folder(root))
        super().__init__(root, path, clips=clips, geometry=geometry, frames=frames, captions=captions)
        for task in self.tasks():
            if Path(task.clip).suffix.lower() not in SUFFIXES:
                raise UserError(f"{path}: not a video file", came=task.clip, expected=" ".join(SUFFIXES))

    def _read(self, tasks: str | Path) -> list[EditTask]:
        return list(read_list(tasks, manifest=True, told=self.told).tasks)


def find_manifest(root: Path) -> Path:
    found = [root / name for name in MANIFESTS if (root / name).is_file()]
    if len(found) != 1:
        raise UserError(
            f"{root}: {'more than one manifest' if found else 'there is no manifest'}",
            came=", ".join(path.name for path in found) or None,
            expected=f"one of {', '.join(MANIFESTS)}",
            todo=f"copy {FOLDER / 'pexels20.yaml'} there as manifest.yaml and write your files into it"
            if not found
            else "name the one that counts with `manifest`",
        )
    return found[0]
