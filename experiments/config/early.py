"""What a command names is looked at before the libraries are loaded that would work on it: files, prompts. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from freemask.data.paths import existing, existing_folder
from freemask.data.shipped import list_path
from freemask.errors import UserError

AUTO = "auto"
LISTED = ("davis", "folder")  # data whose task list is a file, or the name of one that comes along
NAMED = ("world", "world_train")  # data whose clips have names that no file has


def refuse_missing(cfg: DictConfig, choices: Mapping[str, str | None]) -> None:
    """A setting that the method or the data does not look at is not looked at here."""
    data = choices.get("data")
    for key in ("source", "target"):
        prompt = _text(cfg, key)
        if prompt is not None and not prompt.strip():
            todo = f'--{key} "..."'
            raise UserError(
                f"the {key} prompt is empty", came=f"{key}='{prompt}'", expected="words", todo=todo
            )
    clip, root, tasks = _text(cfg, "clip"), _text(cfg, "data.root"), _text(cfg, "data.tasks")
    if clip is not None and data in NAMED and (Path(clip).suffix or "/" in clip):
        existing(clip)
    if clip is None or not Path(clip).expanduser().exists():
        if root is not None:
            existing_folder(root)
        if tasks is not None and data in LISTED:
            list_path(tasks)
    for key in ("codebook", "folder"):
        path = _text(cfg, f"method.mask.{key}")
        if path is not None and path != AUTO:
            existing(path)


def _text(cfg: DictConfig, key: str) -> str | None:
    """None where it says nothing, or refers to something that is not there: building it tells more."""
    try:
        found: Any = OmegaConf.select(cfg, key)
    except Exception:
        return None
    return found if isinstance(found, str) else None
