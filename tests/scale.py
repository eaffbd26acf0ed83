"""How the laboratory bears a hundred thousand edits: `python -m tests.scale`.

The plan is a real one, frozen by the user's own command; the rows are made up. Each command is a process of its own;
figures go to reports/scale.json and .md."""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.runs.status import RunStatus
from tests.synthetic_rows import VARIANTS, run_of

ROOT = Path(__file__).parent.parent
SMALL = ["model=random", "metric=pixels", "method=sdedit", "data.size=16", "data.frames=2"]
MOST_SECONDS, MOST_GB = 30.0, 2.0
AGAIN = "the finished run again"  # plan, rows, table and page in one: shown, without a bar on its time


def commands(edits: int) -> dict[str, list[str]]:
    listed = ",".join(f"{name}:['method.steps={steps}']" for steps, name in enumerate(VARIANTS, start=2))
    run = [
        "run",
        *SMALL,
        f"data.clips={edits // len(VARIANTS)}",
        f"variants={{{listed}}}",
        "paths.runs=runs",
        "name=big",
    ]
    return {
        "plan": [*run, "start=false"],
        "status": ["status", "big", "paths.runs=runs"],
        "table": ["table", "freemask/2", "runs=[big]", "paths.runs=runs"],
        "report": ["report", "big", "paths.runs=runs"],
        AGAIN: run,
    }


def measured(words: Sequence[str], folder: Path) -> dict[str, Any]:
    """Seconds by the clock and the most memory of the process, as the system counts them."""
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execv(sys.executable, [sys.executable, "-m", "experiments.cli.app", *words])
    _, status, used = os.wait4(pid, 0)
    return {
        "command": " ".join(["freemask", *(f'"{word}"' if "[" in word else word for word in words)]),
        "code": os.waitstatus_to_exitcode(status),
        "seconds": round(time.monotonic() - begun, 1),
        "gb": round(used.ru_maxrss / 2**20, 2),
    }


def fault(name: str, found: dict[str, Any]) -> str:
    if found["code"] != 0:
        return f"exit code {found['code']}"
    slow = name != AGAIN and found["seconds"] >= MOST_SECONDS
    return "too much" if slow or found["gb"] >= MOST_GB else ""


def markdown(edits: int, found: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"# {edits:,} edits on paper",
        "",
        f"{len(VARIANTS)} variants over {edits // len(VARIANTS):,} tasks; the plan is frozen by the command itself,",
        "the rows are made up (`tests/synthetic_rows.py`). Each command below is a process of its own, its time taken",
        f"by the clock. The bars are {MOST_SECONDS:.0f} s and {MOST_GB:.0f} GB. `python -m tests.scale` does it again.",
        "",
        "| what | seconds | peak GB | |",
        "|---|---|---|---|",
        *(
            f"| {name} | {each['seconds']} | {each['gb']} | {fault(name, each) or ('' if name == AGAIN else 'met')} |"
            for name, each in found.items()
        ),
        "",
        *(f"- {name}: `{each['command']}`" for name, each in found.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--edits", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/scale"), help="emptied first")
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    folder = given.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = {}
    for name, words in commands(given.edits).items():
        found[name] = measured(words, folder)
        print(name, {key: each for key, each in found[name].items() if key != "command"}, flush=True)
        if name == "plan":
            run = folder / "runs" / "big"
            asked = next(iter(RunStatus.read(run).variants.values())).asked
            run_of(run, given.edits, tasks=list(asked or ()))
    given.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"edits": given.edits, "found": found}, indent=1) + "\n"
    (given.out / "scale.json").write_text(text, encoding="utf-8")
    (given.out / "scale.md").write_text(markdown(given.edits, found), encoding="utf-8")
    return 1 if any(fault(name, each) for name, each in found.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
