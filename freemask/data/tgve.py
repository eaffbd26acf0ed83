"""LOVEU-TGVE-2023: 76 videos with four captions each, from the sheet and the folders as its archive holds them.

    root/LOVEU-TGVE-2023_Dataset.csv
    root/{DAVIS,youtube,videvo}_480p/480p_frames/<video name>/*.jpg     32 or 128 frames of 480x480
    root/{DAVIS,youtube,videvo}_480p/480p_videos/<video name>.mp4       taken where there are no frames

Columns of the sheet: Video name, Our GT caption, Style / Object / Background Change Caption, Multiple Changes
Caption; others are passed over. Rows such as `DAVIS Videos:` say to which folder the rows below belong.
Checked against the organisers' own scripts and file lists (repository showlab/loveu-tgve-2023: create_configs.py,
run_eval.py, its 76 configurations) and a reader by other authors, which agree; the archive itself was not at hand.

Kinds: style, object -> shape, background; multiple -> style, for it may change everything. Words are read off the
captions (`changed.py`). There are no masks, so that no region is known.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from freemask.data.changed import edited_words
from freemask.data.files import Files
from freemask.data.frames import FrameRange
from freemask.data.geometry import Geometry
from freemask.data.names import fault
from freemask.data.paths import existing, existing_folder
from freemask.data.task_fill import slug
from freemask.data.task_rows import Row, csv_lines, decoded
from freemask.data.tasks import collect
from freemask.errors import UserError, nearest
from freemask.settings import Effect
from freemask.types import EditTask

SHEET = "LOVEU-TGVE-2023_Dataset.csv"
FOLDERS = {"davis": "DAVIS_480p", "youtube": "youtube_480p", "videvo": "videvo_480p"}
SECTION = re.compile(rf"({'|'.join(FOLDERS)}) videos?:?", re.IGNORECASE)
NAME, SOURCE = "video name", "our gt caption"
COLUMNS = {
    "style": "style change caption",
    "object": "object change caption",
    "background": "background change caption",
    "multiple": "multiple changes caption",
}
KIND_OF = {"style": "style", "object": "shape", "background": "background", "multiple": "style"}


class Tgve(Files):
    """`edits` keeps some of the four captions of a video: style, object, background, multiple."""

    def __init__(  # noqa: PLR0913 - the list is the schema of a YAML file
        self,
        root: Annotated[str | Path, Effect.PLACE],
        sheet: Annotated[str | Path | None, Effect.PLACE] = None,
        *,
        edits: Sequence[str] = tuple(COLUMNS),
        clips: Sequence[str] | None = None,
        geometry: Geometry | None = None,
        frames: FrameRange | None = None,
    ) -> None:
        for name in edits:
            if name not in COLUMNS:
                raise UserError(f"TGVE has no edit '{name}'", came=name, expected=nearest(name, COLUMNS))
        if not edits:
            raise UserError("no edit is chosen", came="edits=[]", expected=f"some of {', '.join(COLUMNS)}")
        self._edits, self._home = tuple(edits), existing_folder(root)
        super().__init__(root, find_sheet(self._home, sheet), clips=clips, geometry=geometry, frames=frames)

    def _read(self, tasks: str | Path) -> list[EditTask]:
        return read_sheet(Path(tasks), self._home, self._edits)


def find_sheet(root: Path, sheet: str | Path | None) -> Path:
    path = existing(sheet) if sheet else root / SHEET
    excel = path if path.suffix.lower() == ".xlsx" else next(iter(sorted(root.glob("*.xlsx"))), None)
    if excel is not None and (excel == path or not path.is_file()):
        raise UserError(
            f"{excel}: the captions as an Excel sheet cannot be read",
            expected=SHEET,
            todo=f"save it as CSV in UTF-8, as {root / SHEET}",
        )
    return existing(path)


def read_sheet(path: Path, root: Path, edits: Sequence[str] = tuple(COLUMNS)) -> list[EditTask]:
    """Tasks of the sheet; every bad line is named in one error."""
    text, complaints = decoded(path)
    lines = list(csv_lines(text, complaints)) if not complaints else []
    rows: list[Row] = []
    if lines:
        columns, folder = _columns(path, lines[0][1]), None
        for line, cells in lines[1:]:
            filled = {name: _cell(cells, place) for name, place in columns.items()}
            section = SECTION.fullmatch(filled[NAME])
            if section:
                folder = FOLDERS[section[1].lower()]
            elif filled[NAME]:
                rows += _rows(line, filled, _clip(root, folder, filled[NAME]), edits)
    return list(collect(path, rows, complaints).tasks)


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    found = {" ".join(cell.split()).lower(): place for place, cell in reversed(list(enumerate(header)))}
    wanted = [NAME, SOURCE, *COLUMNS.values()]
    lacking = [name for name in wanted if name not in found]
    if lacking:
        raise UserError(
            f"{path}: not the sheet of LOVEU-TGVE-2023",
            came=f"no column {', '.join(map(repr, lacking))} among {', '.join(map(repr, header))[:300]}",
            expected=", ".join(wanted),
        )
    return {name: found[name] for name in wanted}


def _cell(cells: Sequence[str], place: int) -> str:
    return " ".join(cells[place].split()) if place < len(cells) else ""


def _clip(root: Path, folder: str | None, name: str) -> str:
    """The video's frames, else its file, else where its frames should be."""
    folders = [folder] if folder else list(FOLDERS.values())
    places = [f"{each}/480p_frames/{name}" for each in folders]
    places += [f"{each}/480p_videos/{name}.mp4" for each in folders]
    if fault(name):
        return name
    return next((place for place in places if (root / place).exists()), places[0])


def _rows(line: int, filled: dict[str, str], clip: str, edits: Sequence[str]) -> Iterator[Row]:
    for edit in edits:
        kind, source, target = KIND_OF[edit], filled[SOURCE], filled[COLUMNS[edit]]
        words = {} if kind == "style" else edited_words(source, target)
        values: dict[str, object] = {
            "id": f"{slug(filled[NAME])}-{edit}",
            "clip": clip,
            "kind": kind,
            "words": words,
        }
        yield Row(
            line, values | {name: text for name, text in (("source", source), ("target", target)) if text}
        )
