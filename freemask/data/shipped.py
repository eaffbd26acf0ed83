"""Task lists that come along: `davis20` is a name, `davis20.yaml` or `lists/davis20.yaml` would be a path."""

from pathlib import Path

from freemask.data.paths import existing
from freemask.errors import UserError, nearest

FOLDER = Path(__file__).parent / "lists"


def shipped_lists() -> dict[str, Path]:
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def list_path(name: str | Path) -> Path:
    """The file of a list that comes along, or the path that `name` is."""
    text, known = str(name), shipped_lists()
    if text in known:
        return known[text]
    if not text or "/" in text or "\\" in text or Path(text).suffix or Path(text).exists():
        return existing(name)
    raise UserError(
        f"there is no task list '{text}'",
        expected=nearest(text, known),
        todo="give the name of a list that comes along, or the path of a .yaml or .csv file",
    )
