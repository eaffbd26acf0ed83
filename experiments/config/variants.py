"""A run of several variants: each is the run's own command with a few overrides more, in a folder of its own."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.config.build import build
from experiments.config.compose import config_of, plain
from experiments.config.identity import Identity
from experiments.runs.store import RECORD, RunStore, write_text
from freemask.errors import UserError, nearest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,59}")
# What all variants of a run have in common; everything else a variant may change.
SHARED = ("data", "metric", "runner", "logger", "paths", "kind", "limit", "keep", "start", "retry", "name")
OPTIONAL = ("mask", "fusion")


@dataclass(frozen=True)
class Variant:
    """One configuration of a run. The only one of a plain run has no name, and the run's folder is its own."""

    name: str | None
    overrides: Sequence[str]
    cfg: DictConfig
    config: Mapping[str, Any]

    def folder(self, run: Path) -> Path:
        return run if self.name is None else run / self.name


def variants_of(cfg: DictConfig, overrides: Sequence[str]) -> list[Variant]:
    """Every variant composed, resolved, its method tried: what does not fit is refused before anything runs."""
    config = plain(cfg)
    listed = _listed(config)
    if not listed:
        for key in ("reference", "only"):
            if config.get(key) is not None:
                raise UserError(
                    f"{key} is for a run of several variants",
                    came=f"{key}={config[key]}",
                    todo=f"leave out {key}",
                )
        build(config["method"], "method")
        return [Variant(None, (), cfg, config)]
    return [_composed(name, each, overrides, config) for name, each in listed.items()]


def reference_of(config: Mapping[str, Any], variants: Sequence[Variant]) -> str | None:
    """The variant that all others are compared with: the one asked for, otherwise the first."""
    names = [each.name for each in variants if each.name is not None]
    asked = config.get("reference")
    if not names:
        return None
    if asked is not None and asked not in names:
        raise UserError(
            "the reference is none of the variants",
            came=f"reference={asked}",
            expected=nearest(str(asked), names),
        )
    return asked or names[0]


def record_of(variants: Sequence[Variant], identities: Sequence[Identity]) -> dict[str, Any]:
    """What the whole run is: one configuration, or several by name, the same in whatever order they are listed."""
    if variants[0].name is None:
        return identities[0].record()
    named = {str(each.name): own for each, own in zip(variants, identities, strict=True)}
    hashes = json.dumps({name: own.hash for name, own in named.items()}, sort_keys=True)
    identity = hashlib.sha256(hashes.encode()).hexdigest()[:16]
    return {"identity": identity, "parts": {name: own.parts for name, own in named.items()}}


def refuse_others(folder: Path, variants: Sequence[Variant], identities: Sequence[Identity]) -> None:
    """A folder that holds something else is refused before anything is written into it."""
    _same_form(folder, variants)
    for each, own in zip(variants, identities, strict=True):
        if (each.folder(folder) / RECORD).exists():
            RunStore.open(each.folder(folder), own)


def _same_form(folder: Path, variants: Sequence[Variant]) -> None:
    """A plain run and a run of variants never share a folder."""
    known, plain_run = _record(folder / RECORD), variants[0].name is None
    if known is not None and plain_run is ("variants" in known):
        there, here = (
            ("one configuration", "variants") if not plain_run else ("variants", "one configuration")
        )
        raise UserError(
            f"{folder} holds a run of {there}", came=f"a run of {here}", todo="choose another name=..."
        )


def keep_record(folder: Path, variants: Sequence[Variant], reference: str | None) -> None:
    """Notes in the run's folder what lies in it."""
    _same_form(folder, variants)
    path = folder / RECORD
    known = _record(path)
    if variants[0].name is None:
        return
    listed = (known or {}).get("variants", {}) | {str(each.name): list(each.overrides) for each in variants}
    try:
        write_text(
            path, json.dumps({"variants": listed, "reference": reference}, indent=2, ensure_ascii=False)
        )
    except OSError as error:
        raise UserError(
            "cannot write the run", came=f"{folder}: {error.strerror}", todo="paths.runs=FOLDER"
        ) from error


def unused(variants: Sequence[Variant], overrides: Sequence[str]) -> list[str]:
    """A line for each group that was chosen although the method does not look at it."""
    lines = []
    for group in OPTIONAL:
        if _typed(group, overrides) and not any(_refers(each.cfg, group) for each in variants):
            lines.append(f"note: the method has no {group}: {_typed(group, overrides)[0]} changes nothing")
        for each in variants:
            if _typed(group, each.overrides) and not _refers(each.cfg, group):
                said = f"{_typed(group, each.overrides)[0]} changes nothing"
                lines.append(f"note: the method of variant '{each.name}' has no {group}: {said}")
    return lines


def _typed(group: str, overrides: Iterable[str]) -> list[str]:
    return [each for each in overrides if re.match(rf"\+*{group}[.=]", each)]


def _refers(cfg: DictConfig, group: str) -> bool:
    return f"${{{group}" in str(OmegaConf.to_container(cfg.method, resolve=False))


def _listed(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names and overrides as given, checked; cut down to those that `only` names."""
    given, only = config.get("variants"), config.get("only")
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise _unreadable("variants", given)
    for name, each in given.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(
                "a variant's name becomes a folder",
                came=name,
                expected="up to 60 letters, digits, - _ or +, the first a letter or a digit",
            )
        if not isinstance(each, list) or not all(isinstance(part, str) for part in each):
            raise _unreadable(f"variants.{name}", each)
    wanted = [only] if isinstance(only, str) else only
    for name in wanted or ():
        if name not in given:
            raise UserError(
                f"there is no variant '{name}'", came=f"only={only}", expected=nearest(str(name), given)
            )
    return {name: each for name, each in given.items() if wanted is None or name in wanted}


def _unreadable(key: str, came: object) -> UserError:
    return UserError(
        f"{key} cannot be read",
        came=came,
        expected="a list of overrides by name: variants: {ten: [method=ddim, method.steps=10]}",
        todo='on a command line in quotes: "variants={ten: [method=ddim, method.steps=10]}"',
    )


def _composed(name: str, own: Sequence[str], overrides: Sequence[str], run: Mapping[str, Any]) -> Variant:
    try:
        cfg = config_of("run", [*overrides, *own])
        config = plain(cfg)
        build(config["method"], "method")
    except UserError as error:
        raise UserError(
            f"variant '{name}': {error.wrong}", came=error.came, expected=error.expected, todo=error.todo
        ) from error
    for key in SHARED:
        if config[key] != run[key]:
            raise UserError(
                f"variant '{name}' changes {key}, which all variants of a run have in common",
                came=", ".join(own),
                expected=f"overrides of anything but {', '.join(SHARED)}",
                todo="give it to the whole run, or make two runs",
            )
    return Variant(name, tuple(own), cfg, config)


def _record(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
