"""Shell completion: what may stand where the line ends. Our own tables know it; nothing is composed, no torch."""

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments.cli.verb import Verb
from experiments.cli.verbs import ROOM, VERBS
from experiments.cli.words import CHOICES, SWITCHES, VALUED
from experiments.config import choices
from experiments.config.declared import declared
from experiments.config.explained import keys_of
from experiments.config.fits import words_of
from freemask.errors import UserError

# A shell replaces what follows the last = or : of the word at the end, so what stands before is taken off.
BASH = """
_freemask() {
    local word="${COMP_LINE:0:COMP_POINT}" breaks="" IFS=$'\\n'
    COMPREPLY=($(COMP_LINE="$word" freemask -sc query=bash 2>/dev/null))
    word="${word##* }"
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+="="
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=":"
    [[ -n $breaks && $word == *[$breaks]* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*[$breaks]}"}"}")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *[=./] && $word != *"["* ]] && COMPREPLY[0]+=" "
}
complete -o nospace -o default -F _freemask freemask
"""
SCRIPTS = {
    "bash": BASH,
    "zsh": f"autoload -U +X bashcompinit && bashcompinit\n{BASH}",
    "fish": """
function _freemask
    set -lx COMP_LINE (commandline -cp)
    freemask -sc query=fish 2>/dev/null
end
complete -c freemask -a '(_freemask)'
""",
}
FORGET = {"bash": "complete -r freemask", "zsh": "complete -r freemask", "fish": "complete -e -c freemask"}


def script(request: str) -> str:
    """What `eval "$(freemask -sc install=bash)"` evaluates: it asks us back at each TAB."""
    action, _, shell = request.partition("=")
    if action not in ("install", "uninstall") or shell not in SCRIPTS:
        raise UserError("cannot complete that", came=request, expected="install=bash (fish, zsh; uninstall=)")
    return SCRIPTS[shell] if action == "install" else FORGET[shell]


def complete(line: str) -> int:
    """Never an error: it would be printed into the prompt."""
    try:
        print("\n".join(candidates(line)))
    except (UserError, OSError):
        print()
    return 0


def candidates(line: str) -> list[str]:
    """Whole words that begin as the last one of the line does. Inside of quotes there is none."""
    try:
        before = shlex.split(line)[1:]
    except ValueError:
        return []
    typed = before.pop() if before and not line.endswith(" ") else ""
    while before[:1] == ["help"] or before[:1] == ["--help"]:
        del before[0]
    if not before:
        return _like(typed, ["--help", "--version"] if typed.startswith("-") else [*VERBS, "help"])
    verb = VERBS.get(before[0])
    if verb is None:
        return []
    return list(dict.fromkeys(_of_verb(verb, before[0], before[1:], typed)))


def _like(typed: str, words: Iterable[str]) -> list[str]:
    return [each for each in words if each.startswith(typed)]


def _of_verb(verb: Verb, name: str, before: list[str], typed: str) -> list[str]:
    last = before[-1] if before else ""
    if last in VALUED:
        return _like(typed, CHOICES.get(VALUED[last], ()))
    if last.startswith("--") and last[2:] in (*verb.prompts, *verb.paths):
        return []  # a text of one's own, or a path, which the shell completes itself
    if typed.startswith("-"):
        return _like(typed, _flags(verb))
    said = {key: value for key, equals, value in (each.partition("=") for each in before) if equals}
    key, equals, value = typed.partition("=")
    if equals:
        head = typed[: len(typed) - len(value) + max(value.rfind("["), value.rfind(",")) + 1]
        return _like(typed, (head + each for each in _values(verb, name, key, said)))
    if name == "list":
        groups = [each for each in before if each in choices.groups()]
        named = [each.name for each in choices.group(groups[-1])] if groups else []
        return _like(typed, [*named, *choices.groups()])
    deeds = [] if before else verb.actions
    return _like(
        typed, [*deeds, *_values(verb, name, verb.positional or "", said), *_keys(verb, typed, said)]
    )


def _flags(verb: Verb) -> list[str]:
    never = {"version", "hydra-help", "shell-completion"}
    never |= {name for name in ("json", "multirun") if not getattr(verb, name)}
    able = SWITCHES | (VALUED if verb.config else {})
    flags = [flag for flag, name in able.items() if flag.startswith("--") and name not in never]
    return [*(f"--{key}" for key in (*verb.prompts, *verb.paths)), *flags]


def _keys(verb: Verb, typed: str, said: Mapping[str, str]) -> list[str]:
    """Of a group by itself, both `method=` and `method.`; the keys inside once the dot stands there."""
    if verb.config is None:
        return [f"{key}=" for key in (*verb.names, *verb.paths)]
    known = [f"{each.name}=" for each in keys_of(verb.config, said) if each.value]
    if "." in typed:
        return known
    groups = [f"{each}=" for each in choices.defaults(verb.config) if choices.offered(verb.config, each)]
    inside = [f"{typed}."] if any(each.startswith(f"{typed}.") for each in known) else []
    return [*(each for each in known if "." not in each), *groups, *inside]


def _values(verb: Verb, name: str, key: str, said: Mapping[str, str]) -> list[str]:
    kind, config = verb.names.get(key, key), verb.config or ""
    if kind == "runs":
        return _runs(said)
    if kind in ("tables", "figures"):
        from evaluation.tables.papers import names

        return list(names(kind.removesuffix("s")))
    if key in verb.names or (config and key in choices.defaults(config)):
        listed = [each.name for each in choices.offered(config, kind)]
        return ["all", *listed] if key == "masks" else listed
    known = next((each for each in keys_of(config, said) if each.name == key), None) if config else None
    if known is None or known.value in ("true", "false"):
        return ["true", "false"] if known else []
    fields = declared(known.home or f"{ROOM}.{name}.Options")
    return list(dict.fromkeys(words_of(fields.get(key.rpartition(".")[2]))))


def _runs(said: Mapping[str, str]) -> list[str]:
    """Names below paths.runs: of runs, and of the folders of sweeps, which hold several."""
    from experiments.runs.run import below

    place = Path(said.get("paths.runs") or os.environ.get("FREEMASK_RUNS") or "runs").expanduser()
    found = [each.relative_to(place) for each in below(place)] if place.is_dir() else []
    return sorted({str(path) for each in found for path in (each, *each.parents) if str(path) != "."})
