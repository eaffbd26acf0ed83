"""Where answers come in: held against the study, told apart by their raters, kept each in a file of its own."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

from experiments.runs.rows import file_name
from experiments.study.answers import Fault, believed, parse, read
from experiments.study.drawn import Turn
from experiments.study.folder import Study
from experiments.study.form import strange

Values = Sequence[tuple[Turn, Mapping[str, Any]]]


@dataclass
class Desk:
    """What came while the server was there. `known`: what each rater has answered, by code. `most`: of so many raters
    answers are taken, those that are there already included."""

    study: Study
    most: int = 1000
    known: dict[str, Values] = field(default_factory=dict)
    came: list[str] = field(default_factory=list)
    refused: int = 0
    full: bool = False
    lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        for path in sorted(self.study.answers.glob("*.json")):
            try:
                said = parse(self.study, path.read_bytes())
                self.known.setdefault(said.rater.casefold(), said.values)
            except (OSError, Fault):
                continue

    def take(self, body: bytes) -> tuple[HTTPStatus, str]:
        with self.lock:
            try:
                found = read(body)
                said = believed(self.study, found)
                if why := strange(found):
                    raise Fault(why)
            except Fault as fault:
                self.refused += 1
                return HTTPStatus.BAD_REQUEST, str(fault)
            rater, before = said.rater, self.known.get(said.rater.casefold())
            if before == said.values:  # an answer of ours may have been lost
                return HTTPStatus.OK, "these answers are here already"
            if before is not None:
                self.refused += 1
                return HTTPStatus.CONFLICT, f"there are other answers by '{rater}' already"
            if len(self.known) >= self.most:
                self.refused += 1
                if not self.full:
                    print(
                        f"no answers of more than {self.most} raters are taken: most=N takes more", flush=True
                    )
                self.full = True
                return HTTPStatus.SERVICE_UNAVAILABLE, "this place takes no more answers"
            self._keep(rater, found)
            self.known[rater.casefold()] = said.values
            self.came.append(rater)
            print(f"answers of {rater} came", flush=True)
            return HTTPStatus.CREATED, "kept"

    def _keep(self, rater: str, found: Mapping[str, Any]) -> None:
        """Written anew, so that nothing else that was sent is there: beside, then moved to a name that this has made,
        and no other."""
        folder = self.study.answers
        folder.mkdir(exist_ok=True)
        half = folder / f".{secrets.token_hex(8)}"
        try:
            half.write_text(json.dumps(found, indent=1), encoding="utf-8")
            half.replace(_free(folder, file_name(rater)))
        finally:
            half.unlink(missing_ok=True)


def _free(folder: Path, name: str) -> Path:
    """A file that was not there before."""
    for k in count(1):
        path = folder / (f"{name}.json" if k == 1 else f"{name}-{k}.json")
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            continue
    raise AssertionError("numbers do not end")
