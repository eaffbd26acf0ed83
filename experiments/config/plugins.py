"""Packages that bring options: an entry point of the group `freemask.conf` names a package with folders like conf's."""

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable

OWN = "conf"
GROUP = "freemask.conf"


@cache
def places() -> Mapping[str, Traversable]:
    """The folders of options by the names of their packages, our own first. One that cannot be imported is left out
    with a note."""
    found = {OWN: files(OWN)}
    for each in sorted(entry_points(group=GROUP), key=lambda each: (each.name, each.value)):
        try:
            found[each.value] = files(each.value)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            print(f"note: the plug-in '{each.name}' is left out, {each.value}: {why}", file=sys.stderr)
    return found
