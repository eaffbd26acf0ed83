"""The long form: `python -m tests.kill --kills 20 --edits 200`. For each runner the user's own command, killed and
started again until it is finished, then compared with an undisturbed run; figures to reports/kill.json and kill.md."""

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.kill.check import faults, rows_of
from tests.kill.hunt import Hunt, command

ROOT = Path(__file__).parent.parent.parent
SMALL = ["model=random", "metric=pixels", "method=sdedit", "method.steps=2", "data.size=16", "data.frames=2"]
RUNNERS = {
    "local": ["runner=local"],
    "fabric": ["runner=fabric", "runner.devices=2"],
    "slurm": ["runner=slurm", "runner.cluster=local", "runner.array=2", "runner.gpus=0", "runner.wait=true"],
    "ray": ["runner=ray", "runner.workers=2"],
}


def words(runner: str, edits: int) -> list[str]:
    beside = Path(sys.executable).with_name("freemask")
    called = [str(beside)] if beside.exists() else [sys.executable, "-m", "experiments.cli.app"]
    own = [*SMALL, f"data.clips={edits}", "keep=none", "paths.runs=out", f"name={runner}"]
    return [*called, "run", *own, *RUNNERS.get(runner, [])]


def undisturbed(folder: Path, edits: int) -> None:
    if len(rows_of(folder / "out" / "undisturbed")) == edits:
        return
    started = command(words("undisturbed", edits), folder)()
    if started.wait() != 0:
        sys.exit(f"the undisturbed run failed: {folder / 'output.txt'}")


def hunted(runner: str, folder: Path, edits: int, kills: int, seed: int) -> dict[str, Any]:
    run, begun = folder / "out" / runner, time.monotonic()
    hunt = Hunt(command(words(runner, edits), folder), run, edits, kills, random.Random(f"{seed} {runner}"))
    hunt.go()
    wrong = faults(folder / "out" / "undisturbed", run)
    return {
        "runner": runner,
        "command": " ".join(["freemask", *words(runner, edits)[words(runner, edits).index("run") :]]),
        "edits": edits,
        "kills": len(hunt.log),
        "of_the_command": sum(each["whom"] == "the command" for each in hunt.log),
        "of_workers": sum(each["whom"] == "a worker" for each in hunt.log),
        "with_an_edit_in_hand": sum(bool(each["in_hand"]) for each in hunt.log),
        "launches": hunt.launches,
        "rows": len(rows_of(run)),
        "faults": wrong,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "log": hunt.log,
    }


def markdown(found: Sequence[dict[str, Any]]) -> str:
    lines = [
        "# Killed and started again",
        "",
        "For each runner the command below, on tiny random edits. Real processes get SIGKILL from outside at random",
        "points (the command itself, or one of its workers); whenever the command has ended it is started again, until",
        "nothing is left. Then every row is compared, field by field, with the run of one process that nobody",
        "disturbed; times, memory, commit and dirty flag aside. `make kill` does it again.",
        "",
        "| runner | edits | kills | of the command | of workers | edit in hand | launches | rows | faults | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    keys = (
        "runner",
        "edits",
        "kills",
        "of_the_command",
        "of_workers",
        "with_an_edit_in_hand",
        "launches",
        "rows",
    )
    for each in found:
        cells = [*(each[key] for key in keys), len(each["faults"]), each["minutes"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    total = sum(each["kills"] for each in found)
    lines += ["", f"{total} kills in all. A fault is a task without a row, with two, or with another number."]
    lines += ["", *(f"- `{each['command']}`" for each in found)]
    lines += [f"- {each['runner']}: {fault}" for each in found for fault in each["faults"]]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20, help="in all, spread over the runners")
    parser.add_argument("--runners", default=",".join(RUNNERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/kill"), help="the runners' runs in it are emptied first"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    runners = given.runners.split(",")
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    undisturbed(folder, given.edits)
    report, wrong = given.out / "kill.json", False
    for place, runner in enumerate(runners):
        kills = len(range(place, given.kills, len(runners)))
        shutil.rmtree(folder / "out" / runner, ignore_errors=True)
        made = hunted(runner, folder, given.edits, kills, given.seed)
        print({key: value for key, value in made.items() if key != "log"}, flush=True)
        known = json.loads(report.read_text())["runs"] if report.exists() else []
        found = [made if each["runner"] == runner else each for each in known]
        found += [] if made in found else [made]
        report.write_text(json.dumps({"runs": found}, indent=1) + "\n")
        (given.out / "kill.md").write_text(markdown(found))
        wrong = wrong or bool(made["faults"])
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
