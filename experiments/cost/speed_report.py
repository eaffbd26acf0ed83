"""What the measurements of `freemask bench what=speed` say: a table for each size of picture, and a figure."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.tables import render
from evaluation.tables.grid import DASH, Block, Grid, Part, Shown
from experiments.cost import speed_plot
from experiments.cost.machine import numbers_of
from experiments.cost.report import WIDTH, number, told
from experiments.cost.speed import BY_STEPS
from experiments.runs.plan import Item
from experiments.runs.rows import Row, write_text

Record = Mapping[str, Any]
STAGES = ("encode", "inversion", "masks", "sampling", "decoding")
OTHER = "other"
OUT_OF_MEMORY = "out of memory"
TERA, GIGA = 1e12, 1e9
LEAST = 5e-4  # a second that is shown


def data_of(items: Sequence[Item], rows: Sequence[Row], parts: Record) -> dict[str, Any]:
    about, found = told(items, rows)
    steps = parts["options"]["at_steps"]
    table = [_line(name, each, found, steps) for name, each in found.items()]
    return {"parts": dict(parts), "about": about, "rungs": found, "summary": {"table": table}}


def write(path: Path, name: str, data: Record) -> str:
    """Numbers, tables and figure beside each other; what the screen shows of them."""
    table, picture, shown = path.with_suffix(".md"), path.with_suffix(".png"), list(grids(name, data))
    write_text(path, json.dumps(data, indent=1) + "\n")
    tables = [render.markdown(grid, min(place + 1, 2)) for place, grid in enumerate(shown)]
    write_text(table, "\n\n".join([*tables, f"![Seconds and memory]({picture.name})"]) + "\n")
    speed_plot.draw(picture, data, headline(name, data))
    return "\n\n".join([*(render.text(grid, WIDTH) for grid in shown), f"files: {path}, {table}, {picture}"])


def _line(name: str, rung: Record, every: Record, steps: int) -> dict[str, Any]:
    """What is said of a rung: of a whole edit, and of one of its steps."""
    line = {key: rung.get(key) for key in ("mode", "frames", "height", "width")} | {"name": name}
    if "failed" in rung:
        return line | {"state": OUT_OF_MEMORY if rung.get("out_of_memory") else "failed"}
    if "left_out" in rung:
        return line | {"state": "no time left", "expected_step": rung["left_out"]}
    stages, counts = rung["stages"], rung["counts"]
    inside = [counts[stage] for stage in BY_STEPS if stage in counts]
    seconds = sum(stages.get(stage, 0.0) for stage in BY_STEPS)
    per_step = {key: _sum(each.get(key) for each in inside) for key in ("calls", "copies", "launches")}
    plain = next((each for each in every.values() if _is_plain(each) and _same(each, rung)), {})
    return line | {
        "state": "measured",
        "measured_steps": rung["steps"],
        "seconds": rung["seconds"],
        "cpu_seconds": rung["cpu_seconds"],
        "ratios": {key: rung[key] / plain[key] for key in ("seconds", "cpu_seconds") if key in plain},
        "stages": {**{each: stages.get(each) for each in STAGES}, OTHER: _others(stages)},
        "flops": sum(each["flops"] for each in counts.values()),
        "flops_per_second": sum(each["flops"] for each in inside) / seconds if seconds else None,
        "per_step": {key: None if each is None else each / steps for key, each in per_step.items()},
        "peak_gb": rung["gpu_gb"] or rung["rss_gb"],
    }


def _is_plain(rung: Record) -> bool:
    return rung["mode"] == "plain" and "seconds" in rung


def _same(one: Record, other: Record) -> bool:
    return all(one[key] == other[key] for key in ("frames", "height", "width"))


def _others(stages: Record) -> float | None:
    return _sum(seconds for name, seconds in stages.items() if name not in STAGES)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return sum(known) if known else None


def _seconds(value: float | None) -> str:
    return "0" if value is not None and value < LEAST else number(value)


def grids(name: str, data: Record) -> Iterator[Grid]:
    table = data["summary"]["table"]
    sizes = list(dict.fromkeys((line["height"], line["width"]) for line in table))
    for place, (height, width) in enumerate(sizes):
        mine = [line for line in table if (line["height"], line["width"]) == (height, width)]
        size = f"{width} x {height}"
        title = f"{headline(name, data)}: {size}" if place == 0 else size
        notes = list(_notes(data)) if place == len(sizes) - 1 else []
        failed = [
            f"{line['name']}: {' '.join(data['rungs'][line['name']]['failed'].split())}"
            for line in mine
            if "failed" in data["rungs"][line["name"]]
        ]
        yield Grid(title, _head(data, mine), _blocks(data, mine), notes, failed, corner="frames")


def _head(data: Record, lines: Sequence[Record]) -> list[str]:
    gpu = data["about"]["gpu"]
    asked = ["launches"] if gpu else ["calls", "copies"]
    return [
        *(f"{stage} s" for stage in _stages(lines)),
        "edit s",
        *([] if gpu else ["CPU s"]),
        "TFLOP/s" if gpu else "GFLOP/s",
        *(f"{each}/step" for each in asked),
        "peak GB",
        "timed",
    ]


def _stages(lines: Sequence[Record]) -> list[str]:
    """Those that some edit has."""
    seen = [line["stages"] for line in lines if "stages" in line]
    return [each for each in (*STAGES, OTHER) if any(stages.get(each) is not None for stages in seen)]


def _blocks(data: Record, lines: Sequence[Record]) -> list[Block]:
    frames = dict.fromkeys(line["frames"] for line in lines)
    return [
        Block(
            f"{count} frames",
            [
                Part(line["mode"], _cells(data, line, _stages(lines)))
                for line in lines
                if line["frames"] == count
            ],
        )
        for count in frames
    ]


def _cells(data: Record, line: Record, stages: Sequence[str]) -> list[Shown]:
    about, steps = data["about"], data["parts"]["options"]["at_steps"]
    counted = ("launches",) if about["gpu"] else ("calls", "copies")
    if line["state"] != "measured":
        return (
            [Shown(DASH)] * len(stages) + [Shown(line["state"])] + [Shown(DASH)] * (len(_head(data, ())) - 1)
        )
    rate = line["flops_per_second"]
    cells = [
        *(_seconds(line["stages"].get(stage)) for stage in stages),
        number(line["seconds"], line["ratios"].get("seconds")),
        *([] if about["gpu"] else [number(line["cpu_seconds"], line["ratios"].get("cpu_seconds"))]),
        number(None if rate is None else rate / (TERA if about["gpu"] else GIGA)),
        *(number(line["per_step"][each]) for each in counted),
        number(line["peak_gb"]),
        "all" if line["measured_steps"] == steps else f"{line['measured_steps']} of {steps}",
    ]
    return [Shown(cell) for cell in cells]


def _notes(data: Record) -> Iterator[str]:
    about, options = data["about"], data["parts"]["options"]
    weights = ", random weights: the pictures mean nothing" if about["random"] else ""
    yield (
        f"{about['model']}{weights}; {about['parameters'] / 1e6:,.0f} million parameters in the network; loaded in "
        f"{number(about['load_seconds'])} s; {about['cpu']}, {about['cpu_count']} processors, "
        f"torch {about['versions']['torch']}, "
        f"commit {about['commit'][:12]}{' with changes' if about['dirty'] else ''}."
    )
    fusion = ", ".join(f"{part} {mode}" for part, mode in about["fusion"].items())
    yield (
        f"A moving pattern, edited from '{options['source']}' to '{options['target']}'. Method: {about['method']}. "
        f"{f'Fusion: {fusion}. ' if fusion else ''}Masks: {about['masks']}. Guidance {about['guidance']}."
    )
    yield "plain: DDIM, as many steps and the same guidance. In brackets: divided by plain."
    yield (
        f"Timed: where steps are fewer than {options['at_steps']}, an edit of so few was run, and inversion and "
        "sampling are its seconds times what is lacking."
    )
    yield (
        "Operations (two for a multiplication and an addition) are counted over two steps, without compiled parts, and "
        "divided by the seconds of inversion and sampling."
    )
    if about["gpu"]:
        yield "Launches are counted in the shortest clips."
    else:
        yield "Calls are those of operators that are no views; copies are among them."
    where = "on the card" if about["gpu"] else "resident, libraries included"
    yield f"Peak: memory {where}, with the model; of edits that keep features, of the steps that were timed."
    yield from about["limits"]


def headline(name: str, data: Record) -> str:
    options, about = data["parts"]["options"], data["about"]
    count = about["torch_threads"]
    threads = "" if about["gpu"] else f", {count} thread{'s' * (count != 1)}"
    what = f"{name}{' (random weights)' if about['random'] else ''}, {about['method']}, {options['at_steps']} steps"
    return f"Speed of {what}, {numbers_of(about)}, on {about['device']}{threads}"
