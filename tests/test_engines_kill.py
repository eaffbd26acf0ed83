"""The kill test in short: real processes get SIGKILL, and the rows are those of a run that nobody disturbed.

The processes are forks of this one, so that none of them loads torch again; `make kill` starts the user's commands."""

import os
import random
import sys
import time
import traceback
from pathlib import Path

import lightning.fabric  # noqa: F401 -- loaded before the forks, which need it
import pytest

from experiments.cli.app import main
from experiments.runs.claims import present
from tests.kill.check import differing, faults, rows_of
from tests.kill.hunt import Hunt

EDITS = 8
RUN = [
    *(
        "run",
        "model=random",
        "metric=pixels",
        "method=sdedit",
        "method.steps=2",
        "keep=none",
        "paths.runs=out",
    ),
    *("data.size=16", "data.frames=2", f"data.clips={EDITS}"),
]


class Forked:
    """A command as a process of its own, with what hunts ask of a process."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._live(words, environment)

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def _live(self, words: list[str], environment: dict[str, str]) -> None:
        code = 70
        try:
            os.environ.update(environment)
            sys.stdout = sys.stderr = Path(f"output-{os.getpid()}.txt").open("w")  # noqa: SIM115 -- ends with the process
            code = main(words)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)


class Ranks:
    """Two ranks as torchrun starts them, seen as one process: the first is the user's."""

    def __init__(self, words: list[str]) -> None:
        kept = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
        self._ranks = [Forked(words, {**kept, "RANK": str(k), "LOCAL_RANK": str(k)}) for k in range(2)]
        self.pid = self._ranks[0].pid

    def poll(self) -> int | None:
        codes = [each.poll() for each in self._ranks]
        return None if None in codes else max(codes, key=abs)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    before, here = Path.cwd(), tmp_path_factory.mktemp("kill")
    os.chdir(here)
    yield here
    os.chdir(before)


@pytest.fixture(scope="module")
def undisturbed(home):
    assert main([*RUN, "name=undisturbed"]) == 0
    return Path("out/undisturbed")


STARTS = {
    "local": lambda: Forked([*RUN, "name=local"], {}),
    "fabric": lambda: Ranks([*RUN, "name=fabric", "runner=fabric"]),
}


@pytest.mark.parametrize("runner", ["local", pytest.param("fabric", marks=pytest.mark.long)])
def test_killed_processes_lose_and_repeat_nothing(undisturbed, runner):
    hunt = Hunt(STARTS[runner], Path("out") / runner, EDITS, kills=2, rng=random.Random(1), longest=0.1)
    hunt.go()
    assert len(hunt.log) == 2 and hunt.launches >= 2
    assert faults(undisturbed, Path("out") / runner) == []


def test_two_launches_at_once_share_the_work(undisturbed):
    both = [Forked([*RUN, "name=both"], {}) for _ in range(2)]
    while None in [each.poll() for each in both]:
        time.sleep(0.05)
    assert [each.code for each in both] == [0, 0]
    assert faults(undisturbed, Path("out/both")) == []
    assert not list(present(Path("out/both"))) and not list(Path("out/both/claims").iterdir())


def test_the_comparison_sees_what_it_must(undisturbed, tmp_path):
    one = rows_of(undisturbed)[0]
    assert differing(one, one | {"finished": "later", "seconds": {}}) == []
    assert differing(one, one | {"seed": 1}) == ["seed: 0 and 1"]
    moved = one | {"metrics": {**one["metrics"], "oracle_psnr": one["metrics"]["oracle_psnr"] + 1e-9}}
    assert len(differing(one, moved)) == 1
    assert len(faults(undisturbed, tmp_path / "nothing")) == EDITS + 1
