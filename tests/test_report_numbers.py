"""The numbers of the page of `freemask report`: its scripts, run without a browser, against the tables."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from evaluation.tables.comparison import compare
from experiments.report import page
from experiments.report.numbers import settled
from experiments.report.page import leave_page
from freemask.statistics import mean

COLUMNS = {
    "up": {"unit": "dB", "higher_is_better": True, "description": "the more the better"},
    "down": {"unit": "", "higher_is_better": False, "description": "the less the better"},
}


@pytest.fixture
def node():
    """Runs a script and reads the JSON that it prints."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node: the page's numbers are not compared (Debian: apt-get install nodejs)")

    def run(script):
        done = subprocess.run([found], input=script, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return run


def scripts(*names):
    return "".join(page._asset(f"{name}.js") for name in names)


def clustered(rng, clips):
    clip = np.repeat(np.arange(clips), rng.integers(1, 5, clips))
    return clip.tolist(), rng.normal(size=clips)[clip] + rng.normal(size=len(clip))


def many(count, better, seed):
    """Edits of clips with two tasks each."""
    noise = np.random.default_rng(seed).normal(0, 1, count)
    for k in range(count):
        value = float(20 + better + k % 7 + noise[k])
        row = {
            "task": f"task-{k:05d}",
            "clip": f"clip-{k // 2}",
            "kind": "shape",
            "status": "done",
            "seed": 0,
        }
        yield row | {"metrics": {"up": value, "down": 1 / (1 + value)}, "steps": 5, "commit": "c"}


def test_the_formula_is_pythons(node):
    """The same formula in JavaScript, on random clusters."""
    rng, told = np.random.default_rng(1), []
    for clips in (1, 2, 3, 5, 6, 9, 14, 40, 260):
        for skewed in (False, True):
            groups, values = clustered(rng, clips)
            told.append(((np.exp(values) - 1.6 if skewed else values + 0.4).tolist(), groups))
    told += [([0.0] * 4, list("abcd")), ([0.5] * 7, list("abcdefg"))]
    rules = settled([], 0)["rules"]
    script = (
        scripts("numbers")
        + f"""
const rules = {json.dumps(rules)}, told = {json.dumps(told)};
const found = told.map(([values, clips]) => estimate(values, clips, rules));
console.log(JSON.stringify({{ found, holm: holm([0.01, 0.04, null, 0.03, 0.005]) }}));"""
    )
    shown = node(script)
    for each, (values, groups) in zip(shown["found"], told, strict=True):
        wanted = mean(values, groups)
        assert (each["n"], each["clips"]) == (wanted.n, wanted.clips)
        assert each["mean"] == pytest.approx(wanted.value)
        if wanted.clips < 2:
            assert each["range"] is None and each["p"] is None
        else:
            assert each["range"] == pytest.approx([wanted.low, wanted.high], rel=1e-6)
            assert each["p"] == pytest.approx(wanted.p, rel=1e-6, abs=1e-12)
    assert shown["holm"] == pytest.approx([0.03, 0.06, None, 0.06, 0.02])


def test_the_page_counts_as_the_tables_do(node, tmp_path):
    """Its scripts without a browser: seeds, failures and clips of several tasks; the whole view has Python's numbers, a
    filtered one counts its own."""
    rows = []
    for k, name in enumerate("abc"):
        rows += [each | {"variant": name} for each in many(40, 0.7 * k, ord(name))]
        rows += [each | {"variant": name, "seed": 1} for each in many(5, 3.0, k)]
    rows[45 + 7] |= {"status": "failed", "metrics": {}}
    leave_page(tmp_path, rows, COLUMNS, "a")
    (core,) = re.findall(r'freemask\.give\("core", (.*)\);', (tmp_path / "index.html").read_text())
    script = (
        scripts("numbers", "view", "tables")
        + f"""
take({core});
const told = ["", "task-0000"].map((q) => {{
  state.q = q; filter();
  const values = (index) => ({{ up: perTask(index, "up"), down: perTask(index, "down") }});
  const lines = [0, 1, 2].map((index) => ({{ index, values: values(index) }}));
  const means = lines.map((line) => meanOf(line.index, "up", line.values.up));
  const best = ["up", "down"].map((name) => [...bestOf(lines, name, name === "up")]);
  return {{ means, best, n: lines.map((line) => line.values.up.size), apart: differences([1, 2], ["up", "down"]) }};
}});
console.log(JSON.stringify(told));"""
    )
    for shown, some in zip(
        node(script), (rows, [each for each in rows if "task-0000" in each["task"]]), strict=True
    ):
        wanted = compare(some, "a", columns=COLUMNS)
        for place, name in enumerate("abc"):
            value, each = wanted.summary.value(name, "up"), shown["means"][place]
            expected = [value[key] for key in ("mean", "low", "high")]
            assert [each["mean"], *each["range"]] == pytest.approx(expected, abs=1e-4)
            assert shown["n"][place] == value["n"]
        for name, columns in zip("bc", shown["apart"], strict=True):
            for column, each in columns.items():
                value = wanted.paired.value(name, column)
                found = [each["mean"], *each["range"], each["n"], each["clips"], each["p"]]
                expected = [value.mean, value.low, value.high, value.n, value.clips, value.p_adjusted]
                # the page holds six digits of each value
                assert found == pytest.approx(expected, rel=1e-3, abs=1e-4) and each["clear"] is value.clear
        best = [["abc"[k] for k in each] for each in shown["best"]]
        assert best == [list(wanted.summary.best[column]) for column in ("up", "down")]
