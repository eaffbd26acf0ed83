"""What all tests share: one thread (two fight on a busy machine), axes that are checked, the folder of real clips where
it is given, and what is the same in hundreds of tests and need not be made anew: composed configurations and tiny
random models."""

import copy
import os
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import install_import_hook

from experiments.config import compose
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D

torch.set_num_threads(1)

# freemask and evaluation are checked as a whole (pyproject.toml), of experiments each module that names axes: others
# may name types whose modules they do not import, for an engine needs no torch.
ROOT = Path(__file__).parent.parent
SHAPED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "experiments").rglob("*.py")
    if "from jaxtyping import" in path.read_text(encoding="utf-8")
]
install_import_hook(SHAPED, "beartype.beartype")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real clips and the authors' numbers, named by FREEMASK_SHARED; the test is skipped where there are none."""
    place = os.environ.get("FREEMASK_SHARED")
    if not place or not Path(place).is_dir():
        pytest.skip("FREEMASK_SHARED names no folder: real clips and stored numbers are not tested")
    return Path(place)


@pytest.fixture(scope="session", autouse=True)
def made_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "_compose", _kept(compose._compose, copy.deepcopy))
        for kind in (UNet3D, Inflated2D):
            patch.setattr(kind, "random", classmethod(_kept(kind.random.__func__, lambda made: made)))
        yield


def _kept(make: Callable[..., Any], hand_out: Callable[[Any], Any]) -> Callable[..., Any]:
    """The first result of each call that looks alike; `hand_out` is what a caller gets of it."""
    known: dict[str, Any] = {}

    @wraps(make)
    def kept(*given: Any, **named: Any) -> Any:
        key = repr((given, named, sorted(os.environ.items())))
        if key not in known:
            known[key] = make(*given, **named)
        return hand_out(known[key])

    return kept
