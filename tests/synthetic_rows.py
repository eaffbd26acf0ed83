"""Made-up rows as runs leave them: `python tests/synthetic_rows.py FOLDER 100000` makes a run of four variants."""

import json
import re
import sys
from pathlib import Path

import numpy as np

from experiments.runs.record import RECORD, Record
from experiments.runs.rows import keep_columns

COLUMNS = {
    "clip_text[embedded]": (80.0, 8.0, True),
    "clip_frame[embedded]": (0.97, 0.01, True),
    "masked_psnr": (25.0, 3.0, True),
    "lpips[random-alex]": (0.2, 0.05, False),
    "oracle_psnr": (20.0, 3.0, True),
}
MASKED = ("freemask", "fatezero_mmc")
VARIANTS = ("fatezero", "fatezero_mmc", "freemask", "sdedit")


def row(variant, task, metrics, **more):
    """With everything a real row has, so that its size is a real row's."""
    facts = {
        name: {
            "name": name,
            "unit": "",
            "higher_is_better": up,
            "description": "what it is " * 6,
            "needs": "",
        }
        for name, (_, _, up) in COLUMNS.items()
    }
    base = {"task": task, "clip": f"world-{10_000_000 + hash_of(task)}", "kind": "shape", "variant": variant}
    base |= {"source": "a red car moving left on grass", "target": "a red truck moving left on grass"}
    base |= {
        "words": {"car": "truck"},
        "method": str(variant).removesuffix("_mmc"),
        "steps": 10,
        "model": "8f4cb88c",
    }
    base |= {"run": f"id-{variant}", "status": "done", "message": "", "metrics": metrics, "seed": 0}
    base |= {"commit": "c0ffee" * 6, "dirty": False, "versions": {"torch": "2.15.0", "numpy": "2.4.6"}}
    base |= {"device": "cpu", "dtype": "float32", "frames": [8, 3, 64, 64], "columns": facts, "facts": {}}
    base |= {"seconds": {"inversion": 2.0, "sampling": 3.0}, "peak_rss_gb": 1.3, "peak_gpu_gb": None}
    chosen = {
        "method": more.get("method", base["method"]),
        "mask": "mmc" if variant in MASKED else "fatezero",
    }
    base |= {"choices": chosen}
    return base | {"warnings": [], "files": {}, "finished": "2026-01-01T00:00:00.000000+00:00"} | more


def hash_of(task):
    return int(re.search(r"\d+", task)[0]) % 10_000_000


def write(folder, rows):
    """Rows with their columns, and a record where there is none."""
    path, columns = Path(folder) / "rows" / "w.jsonl", {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for each in rows:
            columns |= each.get("columns", {})
            told = {key: value for key, value in each.items() if key != "columns"}
            file.write(f"\n{json.dumps(told)}\n")
    keep_columns(Path(folder), columns)
    if not (Path(folder) / RECORD).exists():
        Record(told={"parts": {}}).write(Path(folder))


def run_of(folder, count, *, variants=VARIANTS, seed=0, tasks=None):
    """`count` rows over all variants; each is a little better than the one before, task by task."""
    rng = np.random.default_rng(seed)
    each = count // len(variants)
    tasks = tasks or [f"task-{task}" for task in range(each)]
    Path(folder).mkdir(parents=True, exist_ok=True)
    if not (Path(folder) / RECORD).exists():
        Record(variants=dict.fromkeys(variants, ()), reference=variants[0]).write(Path(folder))
    base = {name: rng.normal(mean, spread, each) for name, (mean, spread, _) in COLUMNS.items()}
    for place, variant in enumerate(variants):
        shift = {
            name: (0.1 * place * spread * (1 if up else -1)) for name, (_, spread, up) in COLUMNS.items()
        }
        noise = {name: rng.normal(0, spread / 4, each) for name, (_, spread, _) in COLUMNS.items()}
        write(
            Path(folder) / variant,
            (
                row(
                    variant,
                    tasks[task],
                    {name: float(base[name][task] + noise[name][task] + shift[name]) for name in COLUMNS},
                )
                for task in range(each)
            ),
        )


if __name__ == "__main__":
    run_of(Path(sys.argv[1]), int(sys.argv[2]))
