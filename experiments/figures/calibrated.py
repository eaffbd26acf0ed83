"""What calibrations have left for a figure: their codebooks, and the maps that they kept of single words."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.figures.mmc import maps
from experiments.runs.rows import ROWS, file_name, row_files, row_of
from freemask.masks.codebook import Codebook

BOOK = "codebook.json"


def books(runs: Iterable[Path]) -> dict[str, tuple[Codebook, Path]]:
    """By model: of a run of several models, or of a single one."""
    found = {}
    for run in runs:
        for path in [*run.glob(BOOK), *sorted(run.glob(f"*/{BOOK}"))]:
            book = Codebook.read(path)
            name = path.parent.name if path.parent != run else book.model
            found[name] = (book, path.parent)
    return found


def picture_of_maps(paths: Sequence[Path], book: Codebook, folder: Path) -> bool:
    """Of the first item whose maps were kept; False where none were."""
    for file in row_files(folder / ROWS):
        with file.open("rb") as lines:
            for row in filter(None, map(row_of, lines)):
                kept = folder / "maps" / f"{file_name(row['task'])}.npz"
                if row.get("maps") and kept.is_file():
                    for path in paths:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        maps(
                            path,
                            kept,
                            f"'{row['word']}' in: {row['source']}",
                            (book.best_site, book.best_time),
                        )
                    return True
    return False
