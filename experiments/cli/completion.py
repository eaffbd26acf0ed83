"""Shell completion: our verbs, and Hydra's own completion of groups, choices and keys behind them."""

import contextlib
import io
import os
import sys

from experiments.cli.verbs import VERBS
from freemask.errors import UserError

SHELLS = ("bash", "fish", "zsh")


def script(request: str) -> str:
    """What `eval "$(freemask -sc install=bash)"` evaluates: Hydra's script, which asks us back."""
    action, _, shell = request.partition("=")
    if action not in ("install", "uninstall") or shell not in SHELLS:
        raise UserError("cannot complete that", came=request, expected="install=bash (fish, zsh; uninstall=)")
    return _hydra(["-sc", request], config="edit")


def complete(line: str) -> int:
    """Answer a query. The verb is taken out of the line; Hydra completes what is left."""
    words = line.split(" ")
    typed = words[1] if len(words) > 1 else ""
    if len(words) <= 2:
        print(" ".join(name for name in VERBS if name.startswith(typed)))
        return 0
    verb = VERBS.get(typed)
    if verb is None:
        return 0
    if verb.config is None:
        from experiments.config.choices import groups

        print(" ".join(name for name in groups() if name.startswith(words[-1])))
        return 0
    os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    query = next((word for word in sys.argv if word.startswith("query=")), "query=bash")
    print(_hydra(["-sc", query], config=verb.config))
    return 0


def _hydra(words: list[str], config: str) -> str:
    from experiments.cli.hydra_app import hydras_main

    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        hydras_main(config, words, lambda cfg: None)
    return said.getvalue().strip()
