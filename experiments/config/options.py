"""The plain keys of a verb's configuration as fields: one dataclass for each verb."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

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
