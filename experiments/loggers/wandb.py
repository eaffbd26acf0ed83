"""Weights & Biases as a mirror: metrics, the table of rows and preview videos, online or offline."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.loggers.base import Logger, flat


class Wandb(Logger):
    """One W&B run per run folder, its id taken from the identity. `videos` limits the previews."""

    def __init__(self, project: str = "freemask", entity: str | None = None, videos: int = 8) -> None:
        self._project, self._entity, self._videos = project, entity, videos
        self._run: Any = None

    def start(self, folder: Path, record: Mapping[str, Any]) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        if mode == "offline":
            print("wandb: no key, so offline; `wandb sync` sends it later")
        self._run = wandb.init(
            project=self._project,
            entity=self._entity,
            dir=str(folder),
            name=folder.name,
            id=f"{folder.name}-{record['identity']}"[:64],
            resume="allow" if mode == "online" else None,
            mode=mode,  # pyright: ignore[reportArgumentType]
            config=dict(record["parts"]),
            settings=wandb.Settings(silent=True, init_timeout=30),
        )

    def row(self, row: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        import wandb

        values = {
            name: value for name, value in flat(row).items() if name.startswith(("metrics/", "seconds/"))
        }
        if "video" in files and self._videos > 0:
            self._videos -= 1
            values["video"] = wandb.Video(str(files["video"]), caption=row["task"], format="mp4")
        self._run.log(values)

    def end(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        table = [flat(row) for row in rows]
        columns = list(dict.fromkeys(key for row in table for key in row))
        cells = [[_cell(row.get(column)) for column in columns] for row in table]
        self._run.log({"rows": wandb.Table(columns=list[Any](columns), data=list[Any](cells))})
        self._run.finish()


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float) else str(value)


def _has_key() -> bool:
    import netrc

    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
