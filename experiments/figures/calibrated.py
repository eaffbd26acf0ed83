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
            found[book.model if path.parent == run else path.parent.name] = (book, path.parent)
    return found


def draw_maps(paths: Sequence[Path], book: Codebook, folder: Path) -> bool:
    """Of the first item whose maps were kept; False where none were."""
    for row in latest(folder).values():
        kept = folder / row.get("files", {}).get("maps", "none")
        if kept.is_file():
            for path in paths:
                title = f"'{row.get('word')}' in: {row.get('source')}"
                maps(path, kept, title, (book.best_site, book.best_time))
            return True
    return False
