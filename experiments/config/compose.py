"""Compose a verb's configuration, and turn everything that can be wrong with it into one clear message."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config import choices, from_hydra
from experiments.config.explained import no_key
from experiments.config.from_hydra import first_line, parse
from freemask.errors import UserError

# Groups that a method may look at or pass over.
OPTIONAL = ("mask", "fusion", "flow", "first_frame", "interpolation")


@dataclass(frozen=True)
class Composed:
    """A configuration, and the option that was chosen in each group; None: none, or a list of several."""

    cfg: DictConfig
    choices: Mapping[str, str | None]


def composed(verb: str, overrides: Sequence[str]) -> Composed:
    read = [parse(each) for each in overrides]
    _refuse_sweeps(read, verb)
    known = choices.defaults(verb)
    choosing = [str(each.input_line) for each in read if _is_choice(each, known)]
    try:
        made = from_hydra.made(verb, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        _check_keys(verb, read, choosing)
        _check_names(read, first_line(error))
        todo = f"freemask {verb} --help, or --debug for the whole story"
        raise UserError(
            "the configuration does not fit together", came=first_line(error), todo=todo
        ) from error
    chosen = dict.fromkeys(choices.defaults(verb)) | _ours(made.chosen)
    _refuse_strange_model(chosen)
    return Composed(made.cfg, chosen)


def passed_over(cfg: DictConfig, group: str) -> bool:
    """Whether this is a group at which a method may look, and this one does not."""
    refers = "method" in cfg and f"${{{group}" in str(OmegaConf.to_container(cfg.method, resolve=False))
    return group in OPTIONAL and not refers


def config_of(verb: str, overrides: Sequence[str]) -> DictConfig:
    return composed(verb, overrides).cfg


def sweep_params(verb: str, overrides: Sequence[str]) -> dict[str, Any]:
    """What an experiment sweeps over by itself with -m; composing it tells what is wrong with it."""
    with suppress(HydraException, OmegaConfBaseException):
        return from_hydra.swept(verb, overrides)
    return {}


def plain(cfg: DictConfig, *, lacking: bool = False) -> dict:
    """Plain Python values, every reference followed. With `lacking`, what is needed and not there stays `???`."""
    try:
        values = OmegaConf.to_container(cfg, resolve=True)
        if not lacking and _has_gap(values):
            _refuse_gaps(cfg)
    except OmegaConfBaseException as error:
        with suppress(OmegaConfBaseException):
            if not lacking:
                _refuse_gaps(cfg)
        wrong = "the configuration refers to something that is not there"
        key = getattr(error, "full_key", None)
        came = f"{key}: {first_line(error)}" if key else first_line(error)
        raise UserError(wrong, came=came) from error
    assert isinstance(values, dict)
    return values


def _has_gap(values: object) -> bool:
    """Whether there is a key without its value; to ask the configuration itself takes as long as to read it."""
    if isinstance(values, dict | list):
        return any(map(_has_gap, values.values() if isinstance(values, dict) else values))
    return isinstance(values, str) and values == "???"


def _refuse_gaps(cfg: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        wrong = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} needed"
        words = [" ".join(f"{key}={value}" for key in missing) for value in ("VALUE", "...")]
        raise UserError(wrong, expected=words[0], todo=f"add {words[1]} to the command")


def typed(overrides: Sequence[str], texts: Sequence[str]) -> str:
    """Overrides as one would type them in a shell. `texts`: keys whose values travel as plain text."""
    return shlex.join(_typed(each, texts) for each in overrides)


def _typed(override: str, texts: Sequence[str]) -> str:
    read = parse(override)
    plain_text = read.key_or_group in texts and not read.is_sweep_override()
    return f"{read.key_or_group}={_unescaped(str(read.value()))}" if plain_text else override


def _unescaped(text: str) -> str:
    """`${` as it was typed: the command line doubles the backslashes before it and adds one."""
    return re.sub(r"(\\(?:\\\\)*)\$\{", lambda found: found.group(1)[: len(found.group(1)) // 2] + "${", text)


def _ours(chosen: Mapping[str, Any]) -> dict[str, str | None]:
    """Without choices within another one, such as the model of `first_frame`."""
    return {
        group: each for group, each in chosen.items() if not group.startswith("hydra/") and "@" not in group
    }


def _flat(node: object, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _flat(value, f"{prefix}{key}.")


def _refuse_sweeps(read: Sequence[Override], verb: str) -> None:
    for each in read:
        if each.is_sweep_override():
            wrong, hint = (
                f"{each.key_or_group} has several values",
                f"one value, or freemask {verb} -m for all",
            )
            raise UserError(wrong, came=each.input_line, expected=hint, todo="for a list write key=[a,b]")


def _refuse_strange_model(chosen: Mapping[str, str | None]) -> None:
    """A method that sets up its model wants one that has these settings."""
    method, model = chosen.get("method"), chosen.get("model")
    wanted = set() if method is None else set(choices.content("method", method).get("model") or ())
    if not wanted or model is None:
        return
    fit = [each.name for each in choices.group("model") if wanted <= set(choices.content("model", each.name))]
    if model not in fit:
        wrong, came = f"method={method} is made for another kind of model", f"model={model}"
        raise UserError(wrong, came=came, expected=f"one of: {', '.join(fit)}", todo="freemask list model")


def _check_keys(verb: str, read: Sequence[Override], choosing: Sequence[str]) -> None:
    """Hydra takes no key that is not there; which one that was, and what was meant, is told here."""
    with suppress(HydraException, OmegaConfBaseException):
        known = set(_flat(OmegaConf.to_container(from_hydra.made(verb, choosing).cfg, resolve=False), ""))
        for each in read:
            _check_key(each, known, choices.defaults(verb), verb)


def _check_names(read: Sequence[Override], said: str) -> None:
    """Hydra adds no names to a mapping that has some, such as an experiment's variants."""
    for each in read:
        key = each.key_or_group
        if isinstance(each.value(), dict) and said.startswith(f"Could not override '{key}'"):
            raise UserError(
                f"'{key}' has names of its own here, to which this would add others",
                came=each.input_line,
                expected=f"+{key}.NAME=..., which adds one",
                todo=f"~{key} beside +{key}=... puts others in their place",
            )


def _is_choice(each: Override, chosen: dict[str, str | None]) -> bool:
    """Whether an override chooses from a group; a choice that is not there is refused."""
    key = each.key_or_group
    if key.startswith("hydra/"):
        return True
    if key not in choices.groups() or (key not in chosen and not each.is_add()):
        return False
    value, text = each.value(), each.input_line
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
    within = {name for name in known if name.startswith(top + ".")} if top in known and "." in key else set()
    raise no_key(key, verb, within or {*known, *chosen}, came=each.input_line)
