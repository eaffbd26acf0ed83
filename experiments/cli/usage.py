"""What --help prints: for the command, for a verb with its keys and choices, and for a group, an option or a key."""

from collections.abc import Sequence
from pathlib import Path

from experiments.cli.verb import Verb
from experiments.cli.verbs import VERBS
from experiments.config import shown
from experiments.config.choices import defaults, offered
from experiments.config.explained import below, keys_of, keys_of_verb, no_key

FLAGS = """flags
  --help         this text; --help GROUP, GROUP=CHOICE or KEY explains that alone
  --debug        the traceback of an error
  --cfg job      the composed configuration, nothing is run (--resolve follows references)
  --info TOPIC   how Hydra found it (defaults, defaults-tree, searchpath, ...)"""


def usage(verb: str | None, asked: Sequence[str] = ()) -> str:
    """`asked`: words of the command line that are to be explained; without any, the verb is."""
    if verb is None:
        return _all()
    told = [_asked(verb, each, asked) for each in asked] if VERBS[verb].config else []
    return "\n\n".join(filter(None, told)) or _verb(verb)


def _all() -> str:
    width = max(map(len, VERBS))
    lines = [
        "freemask: edit a video by changing words in its description",
        "",
        "usage: freemask VERB [key=value ...] [group=choice ...] [--flags]",
        "",
        "verbs",
        *(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()),
        "",
        "examples",
        *(f"  {verb.examples[-1 if name == 'edit' else 0]}" for name, verb in VERBS.items()),
        "",
        "freemask VERB --help says more (or freemask help VERB); freemask list shows every choice.",
        'Shell completion: eval "$(freemask -sc install=bash)"',
    ]
    return "\n".join(lines)


def _verb(name: str) -> str:
    verb = VERBS[name]
    usage_words = f"usage: freemask {name}" + (f" [{'|'.join(verb.actions)}]" if verb.actions else "")
    usage_words += f" [{verb.positional.upper()}]" if verb.positional else ""
    if verb.config:
        usage_words += " [key=value ...] [group=choice ...] [--flags]"
    parts = [f"freemask {name}: {verb.summary}\n\n{usage_words}"]
    parts.append("\n".join(["examples", *(f"  {each}" for each in verb.examples)]))
    found = shown.keys(keys_of_verb(verb.config)) if verb.config else []
    if found:
        parts.append("\n".join(["keys (as they are unless you say otherwise)", *found]))
    if verb.notes:
        parts.append("\n".join(["notes" if found else "keys", *(f"  {each}" for each in verb.notes)]))
    if verb.config:
        parts.append(_groups(verb.config))
        parts.append(FLAGS + _more_flags(verb))
    elif verb.json:
        parts.append("flags\n  --json   for programs")
    return "\n\n".join(parts)


def _more_flags(verb: Verb) -> str:
    lines = ""
    if verb.json:
        lines += "\n  --json         for programs"
    if verb.multirun:
        lines += "\n  -m             every combination of values separated by commas: method=ddim,sdedit"
    texts = " ".join(f"--{key}" for key in verb.prompts if "." not in key)
    if texts:
        lines += f"\n  {texts:<13}  plain text, the same as key=text; every character arrives unchanged"
    return lines


def _groups(config: str) -> str:
    lines = ["choices (the default is marked by *; --help GROUP=CHOICE shows its keys)"]
    for group, default in sorted(defaults(config).items()):
        if found := offered(config, group):
            lines += [f"  {group}=", *shown.options(found, default, indent=4, short=True)]
    return "\n".join(lines)


def _asked(verb: str, word: str, asked: Sequence[str]) -> str:
    """A group, a choice or a key. A word that is none of them may be a path or a name, which says nothing here."""
    config = VERBS[verb].config or ""
    group, equals, name = word.partition("=")
    if group in defaults(config) and equals:
        return "\n".join(shown.one(group, name))
    if group in defaults(config):
        found = shown.options(offered(config, group), defaults(config)[group])
        return "\n".join([f"{group}=", *(found or [f"  there is none for '{verb}'"])])
    chosen = dict(each.split("=", 1) for each in asked if each.partition("=")[0] in defaults(config))
    keys = below(keys_of(config, chosen), group)
    if not keys and (equals or not _may_be_named(VERBS[verb], word)):
        raise no_key(group, verb, {*(each.name for each in keys_of(config, chosen)), *defaults(config)}, word)
    return "\n".join(shown.keys(keys))


def _may_be_named(verb: Verb, word: str) -> bool:
    """Whether a bare word may be what the verb works on."""
    if verb.positional is None:
        return False
    return verb.positional in verb.names or Path(word).exists() or "/" in word or bool(Path(word).suffix)
