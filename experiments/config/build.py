"""Make objects from configuration: the constructor is the schema, and says what it does not take."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object

from experiments.config.fits import check_arguments
from freemask.errors import UserError

MARKS = ("_target_", "_partial_")


def build(value: Any, key: str) -> Any:
    """Call every `_target_` in a plain configuration, inner ones first. `key` is where `value` stands. With `_partial_`
    it is made ready to be called."""
    if isinstance(value, Mapping):
        made = {name: build(each, f"{key}.{name}") for name, each in value.items() if name not in MARKS}
        if "_target_" not in value:
            return made
        maker = _maker(value["_target_"], made, key)
        return partial(maker, **made) if value.get("_partial_") else maker(**made)
    if isinstance(value, list):
        return [build(each, f"{key}[{index}]") for index, each in enumerate(value)]
    return value


def _maker(target: str, arguments: Mapping[str, Any], key: str) -> Callable[..., Any]:
    try:
        maker = get_object(target)
    except (HydraException, ImportError, AttributeError, ValueError) as error:
        wrong = f"{key} names something that cannot be imported"
        raise UserError(wrong, came=target, expected=error) from error
    check_arguments(maker, arguments, key)
    return maker
