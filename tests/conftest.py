"""What all tests share: one thread (two fight on a busy machine), axes that are checked, the folder of real clips where
it is given, and what is the same in hundreds of tests and need not be made anew: YAML that was read, composed
configurations and tiny random models. The process that only hands tests out to others loads no heavy library."""

import atexit
import gc
import io
import os
import pickle
from collections.abc import Callable, Iterator
from functools import cache, wraps
from pathlib import Path
from typing import Any

import pytest
from checked import install
from jaxtyping import install_import_hook

# freemask and evaluation are checked as a whole (pyproject.toml), of experiments each module that names axes: others
# may name types whose modules they do not import, for an engine needs no torch.
ROOT = Path(__file__).parent.parent
SHAPED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "experiments").rglob("*.py")
    if "from jaxtyping import" in path.read_text(encoding="utf-8")
]
install()
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
    import torch
    from omegaconf import OmegaConf

    from freemask.backbones.i2vgen import I2VGen
    from freemask.backbones.inflated2d import Inflated2D
    from freemask.backbones.unet3d import UNet3D

    torch.set_num_threads(1)
    atexit.register(gc.unfreeze)
    gc.freeze()  # the libraries need not be searched for garbage time and again
    gc.set_threshold(20_000, 10, 20)
    load, handed_out = OmegaConf.load, []
    parsed = cache(lambda text: pickle.dumps(load(io.StringIO(text))))

    def read(file: Any) -> Any:
        return pickle.loads(parsed(file.read())) if hasattr(file, "read") else load(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", read)
        for kind in (UNet3D, Inflated2D, I2VGen):
            make = _remembered(kind.random.__func__, handed_out)
            patch.setattr(kind, "random", classmethod(_kept(make)))
            read_in = kind.load.__func__
            shipped = _shipped(read_in, _kept(_remembered(read_in, handed_out)))
            patch.setattr(kind, "load", classmethod(shipped))
        yield
    changed = [told for told, model, before in handed_out if _state(model) != before]
    assert not changed, f"a test left a network that all share in another state: {changed}"


def _shipped(load: Callable[..., Any], kept: Callable[..., Any]) -> Any:
    """A model that ships is read once, another from its files each time."""

    @wraps(load)
    def loaded(cls: type, *given: Any, **named: Any) -> Any:
        path = given[0] if given else named.get("path", "embedded")  # those that ship are also the defaults
        return (kept if str(path).startswith("embedded") else load)(cls, *given, **named)

    return loaded


def _kept(make: Callable[..., Any], pack: Any = lambda made: made, unpack: Any = lambda made: made) -> Any:
    """The first result of each call that looks alike; packed, so that a caller gets one of its own."""
    known: dict[str, Any] = {}

    @wraps(make)
    def kept(*given: Any, **named: Any) -> Any:
        around = {**os.environ, "PYTEST_CURRENT_TEST": ""}  # the name of the test, which changes nothing
        key = repr((given, named, sorted(around.items())))
        if key not in known:
            known[key] = pack(make(*given, **named))
        return unpack(known[key])

    return kept


def _remembered(make: Callable[..., Any], models: list[tuple]) -> Callable[..., Any]:
    """Notes each model, and the state in which all tests should find it."""

    @wraps(make)
    def made(*given: Any, **named: Any) -> Any:
        model = make(*given, **named)
        models.append(((given, named), model, _state(model)))
        gc.freeze()  # nor what stays as long as they do
        return model

    return made


def _state(model: Any) -> tuple:
    from freemask.backbones.identity import of_modules

    return of_modules({"network": model.network}, {}), model.attention_slicing, model.codec.batch
