"""What calibrations have left for a figure: their codebooks, and the maps that they kept of single words."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.figures.mmc import maps
from experiments.runs.rows import latest
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
    for row in latest(folder).values():
        kept = folder / row.get("files", {}).get("maps", "none")
        if kept.is_file():
            said = f"'{row.get('word')}' in: {row.get('source')}"
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
                maps(path, kept, said, (book.best_site, book.best_time))
            return True
    return False
