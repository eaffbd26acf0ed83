"""A case of an image network that was tuned on a clip: the network as a user names it, and what comparing needs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from experiments.cli.quoting import quoted
from experiments.config.build import build
from experiments.config.compose import config_of, plain
from freemask.diffusion.noise_paths import CLEAN
from freemask.diffusion.null_text import Place
from freemask.errors import UserError
from freemask.types import Given, Text, Time
from tests.official.case import Case
from tests.official.ledger import FORCED, Ledger, relative


@dataclass(frozen=True)
class Scene:
    case: Case
    backbone: Any
    ledger: Ledger

    @property
    def steps(self) -> int:
        return int(self.case.about["steps"])

    @property
    def guidance(self) -> float:
        return float(self.case.about["guidance_scale"])

    @property
    def times(self) -> list[Time]:
        return list(self.backbone.noise_path.times(self.steps))

    @property
    def source(self) -> Text:
        return self.backbone.embed(self.case.about["source_prompt"])

    @property
    def target(self) -> Text:
        return self.backbone.embed(self.case.about["target_prompt"])

    def place(self, i: int) -> Place:
        times = self.times[::-1]
        return Place(i, times[i], times[i + 1] if i + 1 < len(times) else CLEAN)

    def null(self, i: int) -> Given:
        """What guidance of the source starts from at step i."""
        empty = self.backbone.embed("").given
        return empty if self.case.about["fast"] else empty.plus(text=self.case["null/embeddings"][i])

    def judge(
        self, group: str, where: str, ours: Tensor, theirs: Tensor, limit: str = "teacher_forced"
    ) -> None:
        self.ledger.note(group, FORCED, where, relative(ours, theirs), self.case.number(limit, 1e-4))

    def exactly(self, group: str, where: str, error: float) -> None:
        self.ledger.note(group, FORCED, where, error, 0.0)


@contextmanager
def loaded(case: Case, look: str = "first", *, temporal: bool = True) -> Iterator[Any]:
    """The model with the case's configuration and tuned weights, as a user would name them; `look`: whom frames look
    at. `temporal` False: as it is before any tuning."""
    with TemporaryDirectory() as folder:
        lines = [
            "model=sd14",
            quoted("model.path", str(with_config(case, Path(folder) / "model"))),
            *([quoted("model.temporal", str(tuned(case, Path(folder))))] if temporal else []),
            "model.device=cpu",
            f"model.dtype={case.about.get('dtype', 'float32')}",
            f"model.attention=[{look}]",
            "model.least_channels=0",
        ]
        print("freemask edit " + " ".join(lines))
        yield build(plain(config_of("edit", lines))["model"], "model")


def with_config(case: Case, folder: Path) -> Path:
    """The model's folder, with another configuration of the network."""
    folder.mkdir()
    for part in case.model.iterdir():
        if part.name != "unet":
            (folder / part.name).symlink_to(part)
    (folder / "unet").mkdir()
    for file in (case.model / "unet").iterdir():
        if file.name != "config.json":
            (folder / "unet" / file.name).symlink_to(file)
    config = json.loads((case.model / "unet" / "config.json").read_text(encoding="utf-8"))
    config |= case.about.get("unet_config_override") or {}
    (folder / "unet" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def tuned(case: Case, folder: Path) -> Path:
    """The temporal layers before tuning, and over them what tuning left, under the names that the network has."""
    stored, file = stored_weights(case), folder / "tuned.safetensors"
    save_file(stored["init"] | stored["tuned"], file)
    return file


def stored_weights(case: Case) -> dict[str, dict[str, Tensor]]:
    """`init`: temporal layers before tuning; `tuned`: what tuning left. By the names that the authors' network has."""
    path = case.folder / case.about["unet3d_weights"]
    if not path.is_file():
        raise UserError("the case's tuned weights are not there", came=path)
    found: dict[str, dict[str, Tensor]] = {"init": {}, "tuned": {}}
    for name, each in load_file(path).items():
        stage, _, inner = name.partition("/")
        found[stage][inner] = each
    return found
