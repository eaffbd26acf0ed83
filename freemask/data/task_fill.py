"""What a row of a task list leaves out: `kind` and `words` are read off edits or prompts, and then an id is made."""

import re
from collections.abc import Sequence
from dataclasses import replace

from freemask.data import task_edits
from freemask.data.kinds import completed
from freemask.data.names import same_name
from freemask.data.task_rows import Row

READ = ("source", "target", "words", "kind")
ENDING = re.compile(r"\.(mp4|mov|mkv|webm|avi|m4v|gif|png|jpe?g)$", re.IGNORECASE)


def filled(row: Row) -> Row:
    """With `kind` and `words`, and which of them were guessed. Without prompts there is nothing to read them off."""
    if row.values.get("edits"):
        more, guessed = task_edits.filled(row.values)
        return replace(row, values=row.values | more, guessed={**row.guessed, **guessed})
    said = {name: row.values[name] for name in READ if name in row.values}
    if len(said) == len(READ) or not all(isinstance(said.get(name), str) for name in READ[:2]):
        return row
    fields, guessed = completed(said)
    more = {name: fields[name] for name in guessed}
    return replace(row, values=row.values | more, guessed={**row.guessed, **guessed})


def named(rows: Sequence[Row]) -> list[Row]:
    """Ids for rows that have none: clip-kind, clip-kind-2, ..."""
    taken = {same_name(str(row.values["id"])) for row in rows if "id" in row.values}
    found = []
    for row in rows:
        if "id" in row.values:
            found.append(row)
            continue
        stem = f"{slug(str(row.values.get('clip', '')))}-{slug(str(row.values.get('kind', '')))}"
        id, number = stem, 1
        while same_name(id) in taken:
            number += 1
            id = f"{stem}-{number}"
        taken.add(same_name(id))
        found.append(replace(row, values=row.values | {"id": id}))
    return found


def slug(name: str) -> str:
    """A name for a folder, made of a clip's path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", ENDING.sub("", name)).strip("-.")[:80] or "clip"
