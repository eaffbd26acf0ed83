"""Hydra looks for options in the packages of plug-ins too, after our own."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from experiments.config.plugins import OWN, places


class PlugIns(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for package in places():
            if package != OWN:
                search_path.append(provider=package, path=f"pkg://{package}")


def register() -> None:
    """Before Hydra composes anything; again is as good as once."""
    Plugins.instance().register(PlugIns)
