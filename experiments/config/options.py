"""The plain keys of a verb's configuration as fields: one dataclass for each verb."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from experiments.config.build import check_arguments


@dataclass(frozen=True)
class Keys:
    """What is wrong with a value beyond its kind a verb says in `__post_init__`."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        given = {each.name: config[each.name] for each in fields(cls)}
        check_arguments(cls, given)
        return cls(**given)
