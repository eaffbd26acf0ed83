"""Errors that a user can mend. Every message says what was wrong, what came, what was expected, what to do next."""

import difflib
from collections.abc import Iterable, Sequence

MOST = 9  # names in one message


class UserError(Exception):
    """Bad input. The command line prints it without a traceback and ends with exit code 2."""

    def __init__(self, wrong: str, *, came: object = None, expected: object = None, todo: str = "") -> None:
        self.wrong, self.came, self.expected, self.todo = wrong, came, expected, todo
        parts = [wrong]
        if came is not None:
            parts.append(f"  came:     {came}")
        if expected is not None:
            parts.append(f"  expected: {expected}")
        if todo:
            parts.append(f"  do next:  {todo}")
        super().__init__("\n".join(parts))


def nearest(word: str, choices: Iterable[str]) -> str:
    """'Did you mean ...?' for the nearest of `choices`, or their list where none is near; of a long one the nearest."""
    known = sorted(choices)
    if close := near(word, known):
        return close
    few = known if len(known) <= MOST else sorted(difflib.get_close_matches(word, known, n=MOST, cutoff=0))
    rest = f" and {len(known) - MOST} more" if len(known) > MOST else ""
    return f"choose one of: {', '.join(few)}{rest}" if known else "there is nothing to choose from"


def beside(name: str, names: Iterable[str]) -> str:
    """The same of what lies in a folder, which may hold anything: only what is near is named."""
    known = sorted(names)
    some = f"one of the {len(known)} names there" if known else "that folder is empty"
    return near(name, known) or some


def near(word: str, known: Sequence[str]) -> str:
    """'Did you mean ...?', or nothing where none is near."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else ""
