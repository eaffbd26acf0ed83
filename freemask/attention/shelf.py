"""The source's features of the last clip, for the next edit of it by the same network: variants of a sweep, one clip
after another, run over its inversion once."""

from collections.abc import Set
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from freemask.attention.features import Features
from freemask.types import Backbone, Time

Wanted = Set[tuple[str, Time]]  # layers and times


@dataclass
class Shelf:
    """For each network one clip's, as long as the network lives."""

    _last: "WeakKeyDictionary[Backbone, tuple[str, Wanted, Features]]" = field(
        default_factory=WeakKeyDictionary
    )

    def take(self, backbone: Backbone, key: str, wanted: Wanted) -> Features | None:
        """Those of this inversion, where all that is wanted is among them."""
        key_of_last, had, features = self._last.get(backbone, ("", frozenset(), None))
        return features if features is not None and key == key_of_last and wanted <= had else None

    def put(self, backbone: Backbone, key: str, had: Wanted, features: Features) -> None:
        self.clear(backbone)
        features.stays = True
        self._last[backbone] = key, had, features

    def clear(self, backbone: Backbone) -> None:
        """Their memory goes with the last edit that still looks at them."""
        self._last.pop(backbone, None)


SHELF = Shelf()
