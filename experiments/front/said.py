"""What somebody says in Python, composed as the verb `edit` composes a command line."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from torch import Tensor

from experiments.cli.quoting import quoted
from experiments.commands.edit import VERB, Options
from experiments.config.compose import composed, plain
from experiments.jobs.one_clip import Wish
from experiments.jobs.variants import Composition
from freemask.errors import UserError
from freemask.types import Backbone

ELSEWHERE = {
    "out": "call .save(folder) on the result",
    "logger": "use the command: freemask edit logger=...",
    "masks": "call freemask.masks(clip, source, words), once for each mask=...",
}


@dataclass(frozen=True)
class Said:
    """A command as it was composed, its configuration in plain values, and the backbone where one was handed in."""

    command: Composition
    config: Mapping[str, Any]
    options: Options
    backbone: Backbone | None = None
    given: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        overrides: Sequence[str],
        settings: Mapping[str, Any],
        model: str | Backbone | None = None,
        own: Mapping[str, Any] | None = None,
    ) -> "Said":
        """`own` is what has an argument of its own: clip and prompts. Texts among it belong to the configuration."""
        own = {key: each for key, each in (own or {}).items() if each is not None}
        texts = {key: str(each) for key, each in own.items() if isinstance(each, str | Path)}
        settings = {**settings, **texts}
        if not (model is None or isinstance(model, str) or callable(getattr(model, "predict", None))):
            came, expected = f"a {type(model).__name__}", "a name, or what freemask.load_model(name) gives"
            raise UserError("this is no model", came=came, expected=expected, todo="freemask list model")
        words = [_override(each) for each in overrides] + [_setting(*each) for each in settings.items()]
        for word in words:
            _refuse(word, model)
        if isinstance(model, str):
            words.append(quoted("model", model))
        with _hydra_to_itself():
            made = composed("edit", words)
        config = plain(made.cfg)
        backbone = None if isinstance(model, str) else model
        given = {key: each for key, each in own.items() if key not in texts}
        command = Composition(made.cfg, made.choices, words)
        return cls(command, config, Options.of(config), backbone, given)

    def wish(self) -> Wish:
        return replace(self.options.wish(), **self.given)


def _override(text: str) -> str:
    if not isinstance(text, str) or ("=" not in text and not text.startswith("~")):
        todo = 'such as "method.steps=20", or as a keyword: method__steps=20'
        raise UserError("an override is a text key=value", came=repr(text), todo=todo)
    key, _, value = text.partition("=")
    return quoted(key, value) if key in (*VERB.prompts, *VERB.paths) else text


def _setting(name: str, value: Any) -> str:
    key = name.replace("__", ".")
    return f"{key}={_value(key, value)}"


def _value(key: str, value: Any) -> str:
    """In Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return quoted("", str(value))[1:]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_value(key, each)}" for name, each in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(_value(key, each) for each in value) + "]"
    kind = "a tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    expected = "a number, a text, true or false, None, or lists and mappings of these"
    raise UserError(f"'{key}' cannot be set to this", came=kind, expected=expected)


def _refuse(word: str, model: str | Backbone | None) -> None:
    """What would change nothing here."""
    key = word.lstrip("+~").partition("=")[0]
    top = key.split(".")[0]
    if top in ELSEWHERE:
        raise UserError(f"'{top}' is for the command line", came=word, todo=ELSEWHERE[top])
    if top == "model" and model is not None and not (isinstance(model, str) and "." in key):
        came = f"{word}, and model=..."
        todo = f"give it to freemask.load_model, or leave out {word.partition('=')[0]}"
        raise UserError("the model is said twice", came=came, todo=todo)


@contextmanager
def _hydra_to_itself() -> Iterator[None]:
    """Hydra composes for one application at a time; a caller that is one finds its own again."""
    before = get_gh_backup()
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        restore_gh_from_backup(before)
