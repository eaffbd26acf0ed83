"""Errors that a user can mend. Every message says what was wrong, what came, what was expected, what to do next."""

import difflib
from collections.abc import Iterable

MOST = 40  # names in one message


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
    """'Did you mean ...?' for the nearest of `choices`, or their list where none is near."""
    known = sorted(choices)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    shown, more = known[:MOST], len(known) - MOST
    rest = f" and {more} more" if more > 0 else ""
    return f"choose one of: {', '.join(shown)}{rest}" if known else "there is nothing to choose from"
