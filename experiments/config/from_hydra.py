"""What Hydra composes: the files once for each choice of options, and the values that one types over a copy. To read
and merge the files takes ten times as long as all the rest, and many variants differ in values alone."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict

from experiments.config import choices, plugins
from freemask.errors import UserError


@dataclass(frozen=True)
class Made:
    """A configuration without Hydra's own part, of which two things are kept: the option chosen in each group, and
    what an experiment sweeps over."""

    cfg: DictConfig
    chosen: dict[str, Any]
    swept: dict[str, Any]


def made(verb: str, overrides: Sequence[str]) -> Made:
    """It may be changed by whoever asked for it."""
    read = [parse(each) for each in overrides]
    values = [each for each in read if _is_value(each)]
    if any(isinstance(each.value(), dict) for each in read if each not in values):
        values = []  # such keys are set among the values, in the order in which they were typed
    first = tuple(str(each.input_line) for each in read if each not in values)
    begun = _begun(verb, first)
    ConfigLoaderImpl._apply_overrides_to_config(values, begun.cfg)
    return begun


def swept(verb: str, overrides: Sequence[str]) -> dict[str, Any]:
    """What an experiment sweeps over; it may refer to any value."""
    return _begun(verb, tuple(overrides)).swept


@cache
def parse(text: str) -> Override:
    return read(text)


def parsed(text: str) -> Override:
    """One that may be swept, over the options of a group too: mask=glob(mmc*)."""
    return read(text, _loader()) if "glob(" in text else parse(text)


def read(text: str, loader: ConfigLoader | None = None) -> Override:
    try:
        parser = OverridesParser.create(loader)
        return parser.parse_override(text) if loader is None else parser.parse_overrides([text])[0]
    except HydraException as error:
        hint = "key=value, with two kinds of quotes around a value that holds commas or brackets"
        todo = f"write '{text.partition('=')[0]}=\"...\"'"
        raise UserError(f"cannot read '{text}'", came=first_line(error), expected=hint, todo=todo) from error


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _is_value(each: Override) -> bool:
    """Hydra sets it after all files are read; options, packages and Hydra's own keys may decide which are."""
    key = each.key_or_group
    strange = each.is_sweep_override() or each.package is not None or "/" in key
    return not strange and key.split(".")[0] != "hydra" and key not in choices.groups()


def _begun(verb: str, overrides: tuple[str, ...]) -> Made:
    return pickle.loads(_packed(tuple(map(str, plugins.places().values())), verb, overrides))


@cache
def _packed(places: tuple[str, ...], verb: str, overrides: tuple[str, ...]) -> bytes:
    """`places`: where the files lie, which may change in a process that tests us."""
    plugins.register()
    try:
        with initialize_config_module("conf", version_base="1.3"):
            cfg = compose(verb, overrides=list(overrides), return_hydra_config=True)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        for group, options in choices.groups().items():
            for each in options:
                choices.source(group, each.name)  # tells of the file that cannot be read
        raise choices.broken(error) from error
    chosen, params = cfg.hydra.runtime.choices, cfg.hydra.sweeper.get("params") or {}
    with open_dict(cfg):
        del cfg["hydra"]
    return pickle.dumps(Made(cfg, dict(chosen), dict(params)))


@cache
def _loader() -> ConfigLoader:
    plugins.register()
    with initialize_config_module("conf", version_base="1.3"):
        return GlobalHydra.instance().config_loader()
