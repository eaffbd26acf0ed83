"""Make objects from configuration: the constructor is the schema, and says what it does not take."""

from collections.abc import Mapping
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object

from experiments.config.fits import check_arguments
from freemask.errors import UserError


def build(value: Any, key: str) -> Any:
    """Call every `_target_` in a plain configuration, inner ones first. `key` is where `value` stands."""
    if isinstance(value, Mapping):
        made = {name: build(each, f"{key}.{name}") for name, each in value.items() if name != "_target_"}
        return _call(value["_target_"], made, key) if "_target_" in value else made
    if isinstance(value, list):
        return [build(each, f"{key}[{index}]") for index, each in enumerate(value)]
    return value


def _call(target: str, arguments: dict[str, Any], key: str) -> Any:
    try:
        maker = get_object(target)
    except (HydraException, ImportError, AttributeError, ValueError) as error:
        wrong = f"{key} names something that cannot be imported"
        raise UserError(wrong, came=target, expected=error) from error
    check_arguments(maker, arguments, key)
    return maker(**arguments)
