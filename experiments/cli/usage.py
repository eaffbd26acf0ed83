"""What --help prints: for the command, and for each verb with its groups, choices and most useful keys."""

from experiments.cli.verb import Verb
from experiments.cli.verbs import VERBS
from experiments.config.choices import groups

FLAGS = """flags
  --help         this text                --debug   the traceback of an error
  --cfg job      the composed configuration, nothing is run (--resolve follows references)
  --info TOPIC   how Hydra found it (defaults, defaults-tree, searchpath, ...)"""


def usage(verb: str | None) -> str:
    return _verb(verb) if verb else _all()


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
        "freemask VERB --help says more; freemask list shows every choice.",
        'Shell completion: eval "$(freemask -sc install=bash)"',
    ]
    return "\n".join(lines)


def _verb(name: str) -> str:
    verb = VERBS[name]
    usage_words = f"usage: freemask {name}" + (f" [{verb.positional.upper()}]" if verb.positional else "")
    if verb.config:
        usage_words += " [key=value ...] [group=choice ...] [--flags]"
    parts = [f"freemask {name}: {verb.summary}\n\n{usage_words}"]
    for title, lines in (("examples", verb.examples), ("keys", verb.keys)):
        if lines:
            parts.append("\n".join([title, *(f"  {each}" for each in lines)]))
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
        lines += f"\n  {texts}   plain text, the same as key=text; every character arrives unchanged"
    return lines


def _groups(config: str) -> str:
    from experiments.config.compose import groups_of

    chosen = groups_of(config)
    width = max(map(len, chosen))
    lines = ["groups (the default is marked by *)"]
    for group in sorted(chosen):
        names = [each.name + ("*" if each.name == chosen[group] else "") for each in groups().get(group, ())]
        lines.append(f"  {group:<{width}}  {' '.join(names)}")
    return "\n".join(lines)
