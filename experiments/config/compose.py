"""Compose a verb's configuration, and turn everything that can be wrong with it into one clear message."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments.config import choices, plugins
from freemask.errors import UserError, nearest


@dataclass(frozen=True)
class Composed:
    """A configuration, and the option that was chosen in each group; None: none, or a list of several."""

    cfg: DictConfig
    choices: Mapping[str, str | None]


def composed(verb: str, overrides: Sequence[str], sweep: bool = False) -> Composed:
    """Of the first job, for a sweep, after a look at every job."""
    parsed = [_parse(each) for each in overrides]
    if not sweep:
        _refuse_sweeps(parsed, verb)
    return [_checked(verb, parsed, job) for job in _jobs(parsed)][0]


def config_of(verb: str, overrides: Sequence[str], *, sweep: bool = False) -> DictConfig:
    return composed(verb, overrides, sweep).cfg


def choices_of(chosen: Mapping[str, Any], verb: str) -> dict[str, str | None]:
    """Of Hydra's `runtime.choices`, those of our own groups."""
    return dict.fromkeys(groups_of(verb)) | _ours(chosen)


def plain(cfg: DictConfig) -> dict:
    """Plain Python values, every reference followed."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        key = missing[0]
        raise UserError(f"{key} is needed", expected=f"{key}=VALUE", todo=f"add {key}=... to the command")
    try:
        values = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        wrong = "the configuration refers to something that is not there"
        raise UserError(wrong, came=_first_line(error)) from error
    assert isinstance(values, dict)
    return values


def typed(overrides: Sequence[str], texts: Sequence[str]) -> str:
    """Overrides as one would type them in a shell. `texts`: keys whose values travel as plain text."""
    return shlex.join(_typed(each, texts) for each in overrides)


def _typed(override: str, texts: Sequence[str]) -> str:
    parsed = _parse(override)
    plain_text = parsed.key_or_group in texts and not parsed.is_sweep_override()
    return f"{parsed.key_or_group}={parsed.value()}" if plain_text else override


@cache
def groups_of(verb: str) -> dict[str, str | None]:
    """The groups in a verb's defaults, and what is chosen there."""
    return _ours(_compose(verb, []).hydra.runtime.choices)


def _ours(chosen: Mapping[str, Any]) -> dict[str, str | None]:
    return {group: each for group, each in chosen.items() if not group.startswith("hydra/")}


def _flat(node: object, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _flat(value, f"{prefix}{key}.")


def _compose(verb: str, overrides: Sequence[str]) -> DictConfig:
    """With Hydra's own part beside ours."""
    plugins.register()
    with initialize_config_module("conf", version_base="1.3"):
        return compose(verb, overrides=list(overrides), return_hydra_config=True)


def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        hint = "key=value, with two kinds of quotes around a value that holds commas or brackets"
        todo = f"write '{text.partition('=')[0]}=\"...\"'"
        raise UserError(f"cannot read '{text}'", came=_first_line(error), expected=hint, todo=todo) from error


def _refuse_sweeps(parsed: Sequence[Override], verb: str) -> None:
    for each in parsed:
        if each.is_sweep_override():
            wrong, hint = (
                f"{each.key_or_group} has several values",
                f"one value, or freemask {verb} -m for all",
            )
            raise UserError(wrong, came=each.input_line, expected=hint, todo="for a list write key=[a,b]")


def _jobs(parsed: Sequence[Override]) -> Iterator[list[str]]:
    spread = []
    for each in parsed:
        if each.is_sweep_override() and each.is_discrete_sweep():
            spread.append([f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()])
        elif each.is_sweep_override():
            wrong, hint = "has a range without steps", "values to choose from: a,b,c or range(1,5)"
            raise UserError(f"{each.key_or_group} {wrong}", came=each.input_line, expected=hint)
        else:
            spread.append([each.input_line or ""])
    yield from (list(job) for job in product(*spread))


def _checked(verb: str, parsed: Sequence[Override], job: list[str]) -> Composed:
    known = groups_of(verb)
    choosing = [text for each, text in zip(parsed, job, strict=True) if _is_choice(each, text, known)]
    try:
        cfg = _compose(verb, job)
    except (HydraException, OmegaConfBaseException) as error:
        _check_keys(verb, parsed, tuple(choosing))
        todo = f"freemask {verb} --help, or --debug for the whole story"
        raise UserError(
            "the configuration does not fit together", came=_first_line(error), todo=todo
        ) from error
    chosen = choices_of(cfg.hydra.runtime.choices, verb)
    with open_dict(cfg):
        del cfg["hydra"]
    return Composed(cfg, chosen)


def _check_keys(verb: str, parsed: Sequence[Override], choosing: tuple[str, ...]) -> None:
    """Hydra takes no key that is not there; which one that was, and what was meant, is told here."""
    with suppress(HydraException, OmegaConfBaseException):
        cfg = OmegaConf.to_container(_compose(verb, choosing), resolve=False)
        known = {key for key in _flat(cfg, "") if key.split(".")[0] != "hydra"}
        for each in parsed:
            _check_key(each, known, groups_of(verb), verb)


def _is_choice(each: Override, text: str, chosen: dict[str, str | None]) -> bool:
    """Whether an override chooses from a group; a choice that is not there is refused."""
    key = each.key_or_group
    if key.startswith("hydra/"):
        return True
    if key not in choices.groups() or (key not in chosen and not each.is_add()):
        return False
    value = _parse(text).value() if each.is_sweep_override() else each.value()
    for name in value if isinstance(value, list) else [value]:
        if isinstance(name, dict | ChoiceSweep):
            todo = f"freemask list {key}"
            raise UserError(f"'{text}' chooses no {key}", came=text, expected=f"{key}=NAME", todo=todo)
        if name is not None and not each.is_delete():
            choices.option(key, str(name))
    return True


def _check_key(each: Override, known: set[str], chosen: dict[str, str | None], verb: str) -> None:
    key = each.key_or_group
    added = each.is_add() or each.is_force_add()
    if added or key in known or key in chosen or key.startswith(("hydra.", "hydra/")):
        return
    top = key.split(".")[0]
    near = {name for name in known if name.startswith(top + ".")} if top in known and "." in key else set()
    wrong, hint = f"there is no key '{key}' in '{verb}'", nearest(key, near or {*known, *chosen})
    todo = f"freemask {verb} --cfg job shows every key"
    raise UserError(wrong, came=each.input_line, expected=hint, todo=todo)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
