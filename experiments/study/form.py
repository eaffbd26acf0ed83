"""What a study's page sends: these fields, each of its kind and size, and nothing else. What comes over the network is
held against it before anything is kept; files that people put into the folder themselves are not."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

TEXT, MOMENT = 2000, 40  # signs of a comment, and of a time
LONG = 10_000_000  # seconds
WHOLE = ("what", "study", "rater", "consent", "started", "finished", "comment", "answers")
EACH = ("item", "again", "order", "values", "seconds")


def strange(found: Mapping[str, Any]) -> str:
    """Why this is not what the page sends; "" where it is. What is asked itself is looked at elsewhere."""
    if why := _other(found, WHOLE):
        return why
    for name, most in (("started", MOMENT), ("finished", MOMENT), ("comment", TEXT)):
        if not isinstance(found[name], str) or len(found[name]) > most:
            return f"'{name}' is no text of up to {most} signs"
    for name in ("started", "finished"):
        if not _is_time(found[name]):
            return f"'{name}' is no time, such as 2027-01-31T12:00:00Z"
    for place, each in enumerate(found["answers"], 1):
        if why := _other(each, EACH):
            return f"answer {place}: {why}"
        seconds = each["seconds"]
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONG:
            return f"answer {place}: 'seconds' is no number of seconds"
    return ""


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _other(found: Mapping[str, Any], names: tuple[str, ...]) -> str:
    more = sorted(set(found) - set(names))
    if more:
        return f"it holds {more[0][:MOMENT]!r}, which the page does not send"
    lacking = [each for each in names if each not in found]
    return f"it lacks '{lacking[0]}'" if lacking else ""
