"""Read a command line: the verb, its flags, and the rest as overrides that Hydra cannot misread."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.cli.quoting import listed, quoted
from experiments.cli.verb import Verb
from experiments.cli.verbs import VERBS
from experiments.config.choices import groups
from freemask.errors import UserError, nearest

# flag -> the name it is kept under; Hydra's own (cfg, info, ...) are handed on with their values
SWITCHES = {"-h": "help", "-m": "multirun"} | {
    f"--{name}": name for name in ("json", "debug", "help", "version", "multirun", "resolve", "hydra-help")
}
VALUED = {"-c": "cfg", "-i": "info", "-p": "package", "-sc": "shell-completion"} | {
    f"--{name}": name for name in ("cfg", "info", "package", "shell-completion")
}
CHOICES = {
    "cfg": ("job", "hydra", "all"),
    "info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}

MADE_FOR = {
    "experiment": "experiment",
    "what": "choice",
}  # groups whose options are for one verb, as they are called


@dataclass
class Command:
    """`flags` is what a verb is told besides its configuration; `overrides` are among them (to be composed again)
    and, once composed, `choices`: the option chosen in each group. Where help is asked for, `overrides` are the words
    as they were typed."""

    verb: str | None = None
    flags: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)

    @property
    def spec(self) -> Verb:
        return VERBS[self.verb or ""]


def read(argv: Sequence[str]) -> Command:
    command, rest = Command(), []
    words = ["--help", *argv[1:]] if argv[:1] == ["help"] else list(argv)
    while words:
        word = words.pop(0)
        if word in SWITCHES:
            command.flags[SWITCHES[word]] = True
        elif word.partition("=")[0] in VALUED:
            command.flags[VALUED[word.partition("=")[0]]] = _value(word, words)
        elif command.verb is None and not word.startswith("-"):
            command.verb = _verb(word)
        elif word.startswith("-"):
            rest.append(_text_flag(word, words, command.verb))
        else:
            rest.append(word)
    _check_flags(command)
    if command.verb and command.flags.get("help"):
        command.overrides = [each for each in rest if isinstance(each, str)]
    elif command.verb:
        rest = [command.spec.actions.get(str(each), each) for each in rest[:1]] + rest[1:]
        _check_bare(rest, command)
        command.overrides = [_override(each, command) for each in rest]
        if command.spec.config:
            _check_choices(command)
            command.flags["overrides"] = tuple(command.overrides)
    elif rest:
        came, known = " ".join(argv), ", ".join(VERBS)
        raise UserError("a verb is needed first", came=came, expected=known, todo="freemask --help")
    return command


def _verb(word: str) -> str:
    if word not in VERBS:
        wrong, hint = f"there is no verb '{word}'", nearest(word, VERBS)
        raise UserError(wrong, came=f"freemask {word}", expected=hint, todo="freemask --help")
    return word


def _value(word: str, words: list[str]) -> str:
    flag, equals, value = word.partition("=")
    if equals:
        return value
    if not words:
        raise UserError(f"{flag} needs a value", came=flag, expected=f"{flag} VALUE", todo="freemask --help")
    return words.pop(0)


def _text_flag(word: str, words: list[str], verb: str | None) -> str | tuple[str, str]:
    key = word.partition("=")[0]
    texts = [f"--{each}" for each in _texts(verb)]
    if key not in texts:
        wrong = f"there is no option '{key}'" + (f" for '{verb}'" if verb else "")
        known = [each for each in (*texts, *SWITCHES, *VALUED) if each.startswith("--")]
        todo = f"freemask {verb} --help" if verb else "freemask --help"
        raise UserError(wrong, came=word, expected=nearest(key, known), todo=todo)
    return key[2:], _value(word, words)


def _texts(verb: str | None) -> tuple[str, ...]:
    return (*VERBS[verb].prompts, *VERBS[verb].paths) if verb else ()


def _override(word: str | tuple[str, str], command: Command) -> str:
    spec = command.spec
    if isinstance(word, tuple):
        return quoted(*word) if spec.config else "=".join(word)
    if "=" not in word and not word.startswith("~"):
        if spec.positional is None:
            todo = f"freemask {command.verb} --help"
            raise UserError(f"'{word}' is not key=value", came=word, expected=_guess(word), todo=todo)
        word = f"{spec.positional}={word}"
    key, _, value = word.partition("=")
    if not spec.config:
        return word
    sweepable = key in spec.paths and (command.flags.get("multirun") or value == "null")
    if key in _texts(command.verb) and not sweepable:
        return quoted(key, value)
    return listed(key, value) if key == "variants" else word


def _check_bare(rest: Sequence[str | tuple[str, str]], command: Command) -> None:
    """A word without a key is one clip, or one run: of two, one would be lost. Often it is a prompt without quotes."""
    bare = [each for each in rest if isinstance(each, str) and "=" not in each and not each.startswith("~")]
    key = command.spec.positional
    if key is not None and len(bare) > 1 and not command.spec.several:
        wrong, came = f"'{command.verb}' takes one {key}, and there are {len(bare)}", " ".join(bare)
        todo = "a text with blanks stands in quotes"
        raise UserError(wrong, came=came, expected=f"one word without a key: the {key}", todo=todo)


def _check_choices(command: Command) -> None:
    """An experiment, and what is done, may say which verb it is made for (`# verb: calibrate`)."""
    for word in command.overrides:
        group, _, value = word.partition("=")
        known = {each.name: each.facts.get("verb") for each in groups().get(group, ()) if group in MADE_FOR}
        for name in value.split(","):
            verb = known.get(name)
            if verb not in (None, command.verb):
                wrong = f"this {MADE_FOR[group]} is made for another verb than '{command.verb}'"
                came, todo = f"freemask {command.verb} {word}", f"freemask {verb} {group}={name}"
                raise UserError(wrong, came=came, expected=f"the verb {verb}", todo=todo)


def _guess(word: str) -> str:
    homes = [name for name, options in groups().items() if word in [each.name for each in options]]
    return f"did you mean '{homes[-1]}={word}'?" if homes else "key=value"


def _check_flags(command: Command) -> None:
    for flag, choices in CHOICES.items():
        came = command.flags.get(flag)
        if isinstance(came, str) and came not in choices:
            raise UserError(f"--{flag} cannot show '{came}'", came=came, expected=nearest(came, choices))
    for flag, refused, spelt in (("json", "has no --json", "--json"), ("multirun", "cannot be swept", "-m")):
        if command.verb and command.flags.get(flag) and not getattr(command.spec, flag):
            able = ", ".join(name for name, each in VERBS.items() if getattr(each, flag))
            raise UserError(f"'{command.verb}' {refused}", expected=f"a verb with {spelt}: {able}")
