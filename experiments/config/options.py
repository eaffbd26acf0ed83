"""The plain keys of a verb's configuration as fields: one dataclass for each verb."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.config.fits import check_arguments


@dataclass(frozen=True)
class Keys:
    """A field's annotation says what its key may be (`Literal["all", "none"]` names the words to choose from); what
    is wrong beyond that a verb says in `__post_init__`."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        given = {each.name: config[each.name] for each in fields(cls)}
        check_arguments(cls, given)
        return cls(**given)


def every(overrides: Sequence[str], key: str) -> list[str]:
    """What was said for a key that may be said several times; the configuration itself knows only the last of them."""
    parser = OverridesParser.create()
    said = [parser.parse_override(each) for each in overrides if re.match(rf"{re.escape(key)}=", each)]
    return list(dict.fromkeys(str(each.value()) for each in said if each.value() is not None))
