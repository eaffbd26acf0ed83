"""Packages that bring options: an entry point of the group `freemask.conf` names a package with folders like conf's.
Hydra looks there after our own."""

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


def register() -> None:
    """Before Hydra composes anything; again is as good as once."""
    from hydra.core.plugins import Plugins

    Plugins.instance().register(_plugin())


@cache
def _plugin() -> type:
    """Made when it is needed: help and completion know the places without waiting for Hydra."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class PlugIns(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for package in places():
                if package != OWN:
                    search_path.append(provider=package, path=f"pkg://{package}")

    return PlugIns
