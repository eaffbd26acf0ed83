"""The `freemask` command: read the words, check them, call the verb, end with an exit code."""

import errno
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.cli import words as dispatch
from experiments.cli.verbs import ROOM, main_of
from freemask.errors import UserError

if TYPE_CHECKING:
    from experiments.config.compose import Composed

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
# New objects between two looks for cycles, of which rows have none: looking took half of the time of a large table.
SELDOM = 100_000
# How long a thread of torch looks for its next work before it sleeps (GNU's OpenMP). By itself it looks on and on:
# beside one busy program on the same cores, an edit of three seconds took minutes.
LOOKS = {"GOMP_SPINCOUNT": "5000"}
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if "OMP_WAIT_POLICY" not in os.environ:  # read by torch when it is loaded, and by workers
        os.environ.update(LOOKS | {name: os.environ[name] for name in LOOKS if name in os.environ})
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (head, less) has gone: give the interpreter somewhere harmless to flush its last buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KeyboardInterrupt, Exception) as error:
        if "--debug" in words:
            raise
        text, code = _told(error)
        print(text, file=sys.stderr)
        return code


def _told(error: BaseException) -> tuple[str, int]:
    if isinstance(error, KeyboardInterrupt):
        return "\nfreemask: stopped", INTERRUPTED
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        place = "a folder with space left in it, that may be written to"
        todo = "make room, then the same command goes on: all earlier rows are whole"
        error = UserError("cannot write", came=error, expected=place, todo=todo)
    if isinstance(error, UserError):
        return f"freemask: {error}", MISUSED
    wrong = f"something went wrong that should not: {type(error).__name__}: {error}"
    return f"freemask: {UserError(wrong, todo='the same command with --debug shows where')}", FAILED


def _run(words: list[str]) -> int:
    if "COMP_LINE" in os.environ and {"-sc", "--shell-completion"} & set(words):
        from experiments.cli.completion import complete

        return complete(os.environ["COMP_LINE"])
    command = dispatch.read(words)
    flags = command.flags
    if flags.get("version"):
        from experiments.runs.environment import version

        return _show(f"freemask {version()}")
    if "shell-completion" in flags:
        from experiments.cli.completion import script

        return _show(script(str(flags["shell-completion"])))
    if flags.get("help") or command.verb is None:
        from experiments.cli.usage import usage

        return _show(usage(command.verb, command.overrides))
    before = gc.get_threshold()
    if command.spec.reads_rows:
        gc.set_threshold(SELDOM, *before[1:])
    try:
        return _call(command)
    finally:
        gc.set_threshold(*before)


def _call(command: dispatch.Command) -> int:
    verb, config = command.verb or "", command.spec.config
    if config is None:
        return main_of(verb)(command.overrides, command.flags)
    if {"cfg", "info", "hydra-help"} & set(command.flags):
        from experiments.cli.hydra_app import hand_over

        return hand_over(command)
    if command.flags.get("multirun"):
        from experiments.cli.sweep import every

        return every(command, partial(_begin, command))
    from experiments.config.compose import composed

    return _begin(command, composed(config, command.overrides), command.flags)


def _begin(command: dispatch.Command, made: "Composed", flags: Mapping[str, Any]) -> int:
    """What can be known to be wrong is told before the libraries of the verb are loaded."""
    from experiments.config.compose import plain
    from experiments.config.early import refuse_idle_controls, refuse_misfits, refuse_missing
    from experiments.runs.run import find
    from freemask.data.shipped import list_path

    values = plain(made.cfg, lacking=command.spec.lacking)
    refuse_misfits(values, f"{ROOM}.{command.verb}.Options")
    if isinstance(values.get("model"), Mapping) and not values.get("variants"):
        refuse_idle_controls(values["model"], command.overrides)
    if command.spec.works_on_files:
        refuse_missing(made.cfg, made.choices)
    if "tasks" in command.spec.paths and made.cfg.tasks is not None:
        list_path(str(made.cfg.tasks))
    if "run" in command.spec.names and made.cfg.run is not None:
        find(str(made.cfg.run), made.cfg.paths.runs)
    return main_of(command.verb or "")(made.cfg, {**flags, "choices": made.choices})


def _show(text: str) -> int:
    print(text)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
