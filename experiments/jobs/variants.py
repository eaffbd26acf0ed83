"""The variants of a run: each is the run's own command with a few overrides more, in a folder of its own."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from experiments.config.build import build
from experiments.config.compose import OPTIONAL, composed, passed_over, plain
from experiments.config.early import idle_controls, refuse_idle_controls
from experiments.config.identity import Identity
from experiments.config.sweep import SHARED
from experiments.runs import books
from experiments.runs.plan import Variant
from freemask.errors import UserError, nearest

# A point stands in numbers alone: no variant's folder may be called as a file of the run.
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_+-]|(?<=\d)\.(?=\d)){0,99}")
# What rows say of the choices, and what work needs of a resolved configuration. Engines, loggers and what is kept
# belong to a launch, not to a variant.
CHOSEN = ("method", "model", *OPTIONAL, "tuning", "data", "metric")
NEEDED = (*CHOSEN, "seed")
Identify = Callable[[Mapping[str, Any], Mapping[str, str | None]], Identity]


@dataclass(frozen=True)
class Composition:
    """A command as it was composed."""

    cfg: DictConfig
    choices: Mapping[str, str | None]
    overrides: Sequence[str]

    @property
    def made_with(self) -> dict[str, str | None]:
        """The options that a row is made with; None for a mask or a fusion that the method does not look at."""
        known = {group: each for group, each in self.choices.items() if group in CHOSEN}
        return {group: None if self.passes_over(group) else each for group, each in known.items()}

    @property
    def draws(self) -> bool:
        """Whether the method draws noise, as far as it says so."""
        return getattr(get_object(self.cfg.method._target_), "draws", True)

    def passes_over(self, group: str) -> bool:
        return passed_over(self.cfg, group)

    def variant(
        self, name: str | None, own: Sequence[str], identify: Identify, place: Path | None = None
    ) -> Variant:
        """`place`: its folder, where that is known before its identity."""
        config = plain(self.cfg)
        for part in ("method", "tuning"):
            if part in config:
                _refuse_nothing(part, config[part], self.choices.get(part))
                build(config[part], part)  # a mistake in it shows before anything is looked up or loaded
        refuse_idle_controls(config["model"], self.overrides)
        books.refuse_strangers(config)
        config = config if place is None else books.looking_in(config, place)
        kept = {key: config[key] for key in NEEDED if key in config}
        return Variant(name, tuple(own), self.made_with, kept, identify(config, self.choices))


def _refuse_nothing(part: str, value: object, name: str | None) -> None:
    if not isinstance(value, Mapping) or "_target_" not in value:
        raise UserError(
            f"{part}={name} does not say what is to be made",
            came="a YAML without _target_",
            expected="_target_: package.module.Class, and its arguments (docs/method.md)",
        )


def variants_of(
    command: Composition,
    identify: Identify,
    folder: Path | None = None,
    swept: Mapping[str, Sequence[str]] | None = None,
) -> tuple[list[Variant], list[str]]:
    """Every variant composed, resolved, its method tried: what does not fit is refused before anything runs. And
    lines: for each group that was chosen although a method does not look at it, and where a run in that `folder` goes
    on with a codebook of its own. `swept`: combinations of values, each a variant, or one of each that is listed."""
    config = plain(command.cfg)
    listed = _listed(config, swept or {})
    if not listed:
        for key in ("reference", "only"):
            if config.get(key) is not None:
                wrong = f"{key} is for a run of several variants"
                raise UserError(wrong, came=f"{key}={config[key]}", todo=f"leave out {key}")
        only = command.variant(None, command.overrides, identify, folder)
        seeded = seeds_unused(command.overrides, {"the method": command})
        return [only], [*unused(command.overrides, [command]), *seeded, *_books(only, folder)]
    made = {name: _composed(name, own, command, config) for name, own in listed.items()}
    places = {name: None if folder is None else folder / name for name in made}
    variants = [each.variant(name, listed[name], identify, places[name]) for name, each in made.items()]
    notes = unused(command.overrides, list(made.values()))
    for name, each in made.items():
        notes += unused(listed[name], [each], f" of variant '{name}'")
    notes += seeds_unused(command.overrides, made)
    notes += seeds_unused([each for own in listed.values() for each in own], made)
    kept = [line for each in variants for line in _books(each, places[str(each.name)])]
    return variants, list(dict.fromkeys([*notes, *kept]))


def _books(variant: Variant, place: Path | None) -> list[str]:
    return [] if place is None else books.notes(variant.config, place)


def unused(typed: Sequence[str], made: Sequence[Composition], of: str = "") -> list[str]:
    """A line for each group that was typed although none of these looks at it."""
    passed = [group for group in OPTIONAL if all(each.passes_over(group) for each in made)]
    found = {group: [each for each in typed if re.match(rf"\+*{group}[.=]", each)] for group in passed}
    idle = [idle_controls(each.cfg.model, typed) for each in made if "model" in each.cfg]
    alone = idle[0] if idle and all(idle) else []
    return [
        *(
            f"note: the method{of} has no {group}: {words[0]} changes nothing"
            for group, words in found.items()
            if words
        ),
        *(f"note: the model{of} has no ControlNet: {word} changes nothing" for word in alone),
    ]


def seeds_unused(typed: Sequence[str], made: Mapping[str, Composition]) -> list[str]:
    """A line where seeds were typed, and some of these draw nothing: their results are the same, not as many again."""
    still = [name for name, each in made.items() if not each.draws]
    if not still or not any(re.match(r"\+*seed=", each) for each in typed):
        return []
    named = ", ".join(still[:4]) + (f" and {len(still) - 4} more" if len(still) > 4 else "")
    return [f"note: a seed changes nothing in what draws no noise: {named}"]


def reference_of(config: Mapping[str, Any], variants: Sequence[Variant]) -> str | None:
    """The variant that all others are compared with: the one asked for, although this start may leave it out
    (`only`); otherwise the first."""
    names = [each.name for each in variants if each.name is not None]
    asked = config.get("reference")
    if not names:
        return None
    if asked is not None and asked not in names:
        swept = [each for each in names if each.startswith(f"{asked}+")]
        if swept:
            return swept[0]
        if asked not in (config.get("variants") or ()):
            wrong = "the reference is none of the variants"
            raise UserError(wrong, came=f"reference={asked}", expected=nearest(str(asked), names))
    return asked or names[0]


def _listed(config: Mapping[str, Any], swept: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """Names and overrides as given, checked; cut down to those that `only` names."""
    given, only = config.get("variants"), config.get("only")
    if given is None:
        return _only(swept, only)
    if not isinstance(given, Mapping):
        raise _unreadable("variants", given)
    for name, each in given.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            expected = "up to 100 letters, digits, - _ or +, the first a letter or a digit"
            raise UserError("a variant's name becomes a folder", came=name, expected=expected)
        if not isinstance(each, list) or not all(isinstance(part, str) for part in each):
            raise _unreadable(f"variants.{name}", each)
    kept = _only(given, only)
    if not swept:
        return kept
    return {
        f"{name}+{more}": [*with_it, *own] for name, own in kept.items() for more, with_it in swept.items()
    }


def _only(given: Mapping[str, Sequence[str]], only: Any) -> Mapping[str, Sequence[str]]:
    wanted = [only] if isinstance(only, str) else only
    if not given:
        return given
    for name in wanted or ():
        if name not in given:
            raise UserError(
                f"there is no variant '{name}'", came=f"only={only}", expected=nearest(str(name), given)
            )
    return {name: each for name, each in given.items() if wanted is None or name in wanted}


def _unreadable(key: str, came: object) -> UserError:
    expected = "a list of overrides by name: variants: {ten: [method=ddim, method.steps=10]}"
    todo = 'on a command line in quotes: "variants={ten: [method=ddim, method.steps=10]}"'
    return UserError(f"{key} cannot be read", came=came, expected=expected, todo=todo)


def _composed(name: str, own: Sequence[str], command: Composition, run: Mapping[str, Any]) -> Composition:
    overrides = [*command.overrides, *own]
    try:
        made = composed("run", overrides)
        config = plain(made.cfg)
        for part in ("method", "tuning"):
            build(config[part], part)
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
    return Composition(made.cfg, made.choices, overrides)
