"""The parts that Hydra does itself: --cfg and --info."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from omegaconf import DictConfig

from experiments.cli.words import Command
from experiments.config import plugins
from experiments.config.compose import config_of


def hand_over(command: Command) -> int:
    """Check in process first, so that mistakes get our messages; then let Hydra's own main show what it has."""
    if "hydra-help" not in command.flags:
        config_of(command.spec.config or "", command.overrides)
    words = [*_hydra_words(command), *command.overrides]
    try:
        with warnings.catch_warnings(), _own_logging():
            warnings.simplefilter("ignore")
            hydras_main(command.spec.config, words, lambda cfg: None)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


def hydras_main(config: str | None, words: list[str], job: Callable[[DictConfig], Any]) -> None:
    """As if it had been called with these words."""
    plugins.register()
    before, sys.argv = sys.argv, ["freemask", *words]
    try:
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name=config)(job)()
    finally:
        sys.argv = before


@contextmanager
def _own_logging() -> Iterator[None]:
    """Hydra sets up logging for the whole process; what calls us from a notebook finds its own again."""
    loggers = [logging.getLogger(name) for name in (None, "hydra")]
    before = [(each, each.level, [*each.handlers]) for each in loggers]
    try:
        yield
    finally:
        for each, level, handlers in before:
            each.setLevel(level)
            each.handlers[:] = handlers


def _hydra_words(command: Command) -> list[str]:
    words = []
    for flag in ("cfg", "info", "package"):
        if flag in command.flags:
            words += [f"--{flag}", str(command.flags[flag])]
    return words + [f"--{flag}" for flag in ("resolve", "hydra-help") if flag in command.flags]
