"""The parts that Hydra does itself: --cfg, --info, and -m over every combination of choices."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from omegaconf import DictConfig

from experiments.cli.verbs import main_of
from experiments.cli.words import Command
from experiments.config import plugins
from experiments.config.compose import choices_of, config_of
from experiments.config.early import refuse_missing
from freemask.errors import UserError


def hand_over(command: Command) -> int:
    """Check in process first, so that mistakes get our messages; then let Hydra's own main do the work."""
    multirun = bool(command.flags.get("multirun")) and not ({"cfg", "info"} & set(command.flags))
    if "hydra-help" not in command.flags:
        config_of(command.spec.config or "", command.overrides, sweep=multirun)
    codes: list[int] = []
    folders: set[Path] = set()
    words = [*_hydra_words(command, multirun), *command.overrides]
    try:
        with warnings.catch_warnings(), _own_logging():
            warnings.simplefilter("ignore")
            hydras_main(command.spec.config, words, _job(command, codes, folders))
    except SystemExit as ended:
        codes.append(ended.code if isinstance(ended.code, int) else 1)
    if multirun and len(codes) > 1 and command.verb == "run":
        for folder in sorted(folders):
            print(f"all of them on one page: freemask report {folder}")
    return max(codes, default=0)


def hydras_main(config: str | None, words: list[str], job: Callable[[DictConfig], Any]) -> None:
    """As if it had been called with these words."""
    plugins.register()
    before, sys.argv = sys.argv, ["freemask", *words]
    try:
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name=config)(job)()
    finally:
        sys.argv = before


def _job(command: Command, codes: list[int], folders: set[Path]):
    def job(cfg: DictConfig) -> int:
        # Hydra lets every library tell what it does; only its own lines, which name the jobs, are for the user.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("hydra").setLevel(logging.INFO)
        sweep = HydraConfig.get()
        chosen = choices_of(sweep.runtime.choices, command.spec.config or "")
        own = {"multirun": True, "overrides": tuple(sweep.overrides.task), "choices": chosen}
        if cfg.get("name"):
            folders.add(Path(cfg.paths.runs) / cfg.name)
        hydras = get_gh_backup()
        GlobalHydra.instance().clear()  # a run of variants composes each of them, which Hydra allows no one but itself
        try:
            if command.spec.works_on_files:
                refuse_missing(cfg, chosen)
            codes.append(main_of(command.verb or "")(cfg, {**command.flags, **own}))
        except UserError as error:
            if command.flags.get("debug"):
                raise
            print(f"freemask: {error}", file=sys.stderr)
            codes.append(2)
        finally:
            restore_gh_from_backup(hydras)
        return codes[-1]

    return job


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


def _hydra_words(command: Command, multirun: bool) -> list[str]:
    words = ["--multirun"] if multirun else []
    for flag in ("cfg", "info", "package"):
        if flag in command.flags:
            words += [f"--{flag}", str(command.flags[flag])]
    return words + [f"--{flag}" for flag in ("resolve", "hydra-help") if flag in command.flags]
