"""The parts that Hydra does itself: --cfg and --info."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import hydra

from experiments.cli.words import Command
from experiments.config import plugins
from experiments.config.compose import config_of


def hand_over(command: Command) -> int:
    """Check in process first, so that mistakes get our messages; then let Hydra's own main show what it has."""
    if "hydra-help" not in command.flags:
        config_of(command.spec.config or "", command.overrides)
    plugins.register()
    show = hydra.main(version_base="1.3", config_path="pkg://conf", config_name=command.spec.config)
    before, sys.argv = sys.argv, ["freemask", *_hydra_words(command), *command.overrides]
    try:
        with warnings.catch_warnings(), _own_logging():
            warnings.simplefilter("ignore")
            show(lambda cfg: None)()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.argv = before
    return 0


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
