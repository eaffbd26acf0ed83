"""The files of a data set in DAVIS layout: its clips, their frames and their checked annotations."""

from functools import lru_cache
from pathlib import Path

from freemask.data.folder import list_images
from freemask.data.images import read_ids, values_in
from freemask.data.names import within
from freemask.data.paths import existing, existing_folder
from freemask.errors import UserError, nearest


class DavisLayout:
    def __init__(self, root: str | Path, resolution: str = "480p") -> None:
        self.root = existing_folder(root)
        self.pictures = self._branch("JPEGImages", resolution)
        self.drawings = self._branch("Annotations", resolution)
        self.objects = lru_cache(maxsize=None)(self._objects)

    def _branch(self, kind: str, resolution: str) -> Path:
        folder = self.root / kind
        if not folder.is_dir():
            raise UserError(
                f"{self.root}: not in DAVIS layout",
                came=", ".join(sorted(path.name for path in self.root.iterdir())[:8]) or "an empty folder",
                expected="folders JPEGImages and Annotations",
            )
        return existing_folder(folder / resolution)

    def clips(self) -> list[str]:
        return sorted(path.name for path in self.pictures.iterdir() if path.is_dir())

    def has_set(self, name: str) -> bool:
        return (self.root / "ImageSets" / f"{name}.txt").is_file()

    def image_set(self, name: str) -> list[str]:
        """Clips of ImageSets/<name>.txt: each line a name (2017) or a picture and its mask (2016)."""
        path = existing(self.root / "ImageSets" / f"{name}.txt")
        words = [line.split()[0] for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
        named = [Path(word).parent.name if "/" in word else word for word in words]
        clips = list(dict.fromkeys(named))
        known = set(self.clips())
        missing = [clip for clip in clips if clip not in known]
        if missing or not clips:
            raise UserError(
                f"{path}: the set names clips that are not there" if missing else f"{path}: the set is empty",
                came=_few(missing),
                expected=f"folders of {self.pictures}",
            )
        return clips

    def frames(self, clip: str) -> list[Path]:
        folder = within(self.pictures, clip)
        if not folder.is_dir():
            raise UserError(
                f"there is no clip '{clip}' in {self.pictures}", expected=nearest(clip, self.clips())
            )
        return list_images(folder)

    def annotations(self, clip: str) -> list[Path]:
        """One for each frame, in the same order and under the same names."""
        frames, folder = self.frames(clip), within(self.drawings, clip)
        drawn = {path.stem: path for path in list_images(folder)} if folder.is_dir() else {}
        lacking = [path.name for path in frames if path.stem not in drawn]
        surplus = sorted(set(drawn) - {path.stem for path in frames})
        if lacking or surplus:
            raise UserError(
                f"clip '{clip}': annotations and frames do not match",
                came=f"{len(drawn)} annotations; missing for {_few(lacking)}; too many: {_few(surplus)}",
                expected=f"one for each of the {len(frames)} frames, under the same name",
                todo="clips without annotations can be used as plain folders of frames (data=folder)",
            )
        return [drawn[path.stem] for path in frames]

    def _objects(self, clip: str) -> tuple[int, ...]:
        """Numbers of all objects annotated anywhere in the clip; sizes and palettes are checked too."""
        found: set[int] = set()
        size = None
        for path in self.annotations(clip):
            ids = read_ids(path)
            size = size or ids.shape
            if ids.shape != size:
                raise UserError(
                    f"{path}: annotations differ in size",
                    came=f"{ids.shape[1]}x{ids.shape[0]}",
                    expected=f"{size[1]}x{size[0]}, as the first one",
                )
            found |= set(values_in(ids)) - {0}
        if not found:
            raise UserError(
                f"clip '{clip}': its annotations show no object at all", came=str(self.drawings / clip)
            )
        return tuple(sorted(found))


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
