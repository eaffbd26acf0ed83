"""The measurements of `freemask bench what=fusion` as Markdown that can be read on a terminal too."""

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
KEPT = ("features", "word heat", "latents")


def markdown(name: str, data: Record) -> str:
    parts = [f"# What fusion costs: {name}", _setting(data), _table(data)]
    if data["summary"]["growth"]["per_frame"] or data["summary"]["growth"]["per_step"]:
        parts += [_grid(data), _growth(data)]
    parts += [_official(data), _notes(data)]
    return "\n\n".join(parts)


def headline(name: str, data: Record) -> str:
    """Model, clip and machine on one line."""
    options, about = data["parts"]["options"], data["about"]
    height, width = about["size"]
    clip = f"{options['at_frames']} frames of {width} x {height}, {options['at_steps']} steps"
    return f"{name}, {clip}, {about['dtype']}, on {machine(about)}"


def machine(about: Record) -> str:
    threads = f"{about['torch_threads']} thread" + ("" if about["torch_threads"] == 1 else "s")
    return about["device"] if about["gpu"] else f"{about['device']}, {threads}"


def mb(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.3g}"


def _setting(data: Record) -> str:
    options, about = data["parts"]["options"], data["about"]
    fusion = ", ".join(f"{part} {mode}" for part, mode in about["fusion"].items())
    weights, dirty = data["about"]["model"], " with changes"
    lines = [
        f"- {headline(weights, data)}; {about['cpu_count']} processors ({about['cpu']}), "
        f"torch {about['versions']['torch']}, commit {about['commit'][:12]}{dirty if about['dirty'] else ''}.",
        f"- An edit of kind {options['kind']} of a moving pattern: '{options['source']}' to '{options['target']}'.",
        f"- Fusion: {fusion}. Masks: {about['masks']}. Guidance {about['guidance']}.",
        "- `plain` is the same inversion and edit without fusion. `recompute` runs the source beside the edit; "
        "`cache_*` keep its queries and keys.",
    ]
    return "\n".join(lines)


def _table(data: Record) -> str:
    gpu = data["about"]["gpu"]
    head = ["mode", "seconds", "/ plain", "CPU s", "/ plain", "peak RSS MB", "/ plain"]
    head += ["peak GPU MB", "/ plain"] if gpu else []
    head += [f"{name} MB" for name in KEPT] + ["off recompute by"]
    lines = []
    for line in data["summary"]["table"]:
        cells = [line["mode"]]
        for key in ("seconds", "cpu_seconds", "rss_mb", *(("gpu_mb",) if gpu else ())):
            ratio = line["ratios"].get(key)
            cells += [_amount(key, line.get(key)), "-" if ratio is None else f"{ratio:.2f}"]
        kept = line.get("kept_mb", {})
        cells += [mb(kept.get(name)) for name in KEPT]
        cells.append("-" if "difference" not in line else f"{line['difference']:.1e}")
        lines.append(cells)
    return "## One edit\n\n" + _piped(head, lines) + failures(data)


def _amount(key: str, value: float | None) -> str:
    return mb(value) if key.endswith("mb") or value is None else f"{value:.2f}"


def failures(data: Record) -> str:
    failed = [each for each in data["cells"].values() if "failed" in each]
    lines = [
        f"- not measured: {each['what']} of {each['mode']}, {each['frames']} frames, {each['steps']} steps: "
        + " ".join(each["failed"].split())
        for each in failed
    ]
    return "\n\n" + "\n".join(lines) if lines else ""


def _grid(data: Record) -> str:
    options, key = data["parts"]["options"], data["summary"]["memory"]
    steps = sorted(set(options["steps"]))
    known = {
        (each["mode"], each["frames"], each["steps"]): each.get(key)
        for each in data["cells"].values()
        if each["what"] == "memory"
    }
    lines = [
        [mode, str(frames), *(mb(known.get((mode, frames, n))) for n in steps)]
        for mode in dict.fromkeys(options["grid_modes"])
        for frames in sorted(set(options["frames"]))
    ]
    head = ["mode", "frames", *(f"{n} steps" for n in steps)]
    return f"## {_which(data)} above the loaded model, MB\n\n" + _piped(head, lines)


def _growth(data: Record) -> str:
    found = data["summary"]["growth"]
    frames = [
        [each["mode"], str(each["steps"]), mb(each["slope_mb"]), mb(each["at_zero_mb"]), mb(each["off_mb"])]
        for each in found["per_frame"]
    ]
    steps = [
        [
            *(each["mode"], str(each["frames"]), f"{each['slope_mb']:.3f}"),
            *("-" if key not in each else f"{each[key]:.3f}" for key in ("kept_mb", "features_mb")),
            mb(each["off_mb"]),
        ]
        for each in found["per_step"]
    ]
    parts = ["## Growth: straight lines through these peaks"]
    if frames:
        parts.append(
            _piped(["mode", "steps", "MB per frame", "MB at no frame", "worst point off by MB"], frames)
        )
    if steps:
        head = [
            "mode",
            "frames",
            "MB per step",
            "latents and word heat",
            "features",
            "worst point off by MB",
        ]
        parts.append(_piped(head, steps))
        parts.append(
            "The fourth and fifth column are what one more step adds to what is kept, from the sizes above."
        )
    return "\n\n".join(parts)


def _official(data: Record) -> str:
    found = data["summary"]["official"]
    lines = [
        [n, mb(sizes["self"]), mb(sizes["cross"]), mb(sum(sizes.values()))]
        for n, sizes in found["mb_by_frames"].items()
    ]
    says = (
        "## Computed, not measured: every attention map, as the official code keeps them\n\n"
        f"MB of the softmax maps of self and cross attention of layers with at most 32 x 32 queries, "
        f"{found['bytes_each']} bytes each, {found['steps']} steps."
    )
    return says + "\n\n" + _piped(["frames", "self", "cross", "together"], lines)


def _notes(data: Record) -> str:
    options, about = data["parts"]["options"], data["about"]
    notes = [
        f"- Times: the best of {options['repeats']}, the modes in turn, after an edit that does not count. "
        f"CPU s is the processor's time, which other programs on the machine hardly change{_load(data)}.",
        "- Peak memory is what an edit takes on top of the loaded model and its clip, after a short edit of the same "
        "size. MB are 10^6 bytes. RSS is resident memory.",
        "- `off recompute by`: the largest difference of a pixel (0 to 1) from the edit of `recompute`.",
    ]
    if about["freed_memory_is_returned"]:
        notes.append(
            "- While memory is measured, glibc returns every freed block of 128 KiB or more at once, so that peaks "
            "count what is in use. Otherwise it keeps freed blocks for later; the peaks of the timed edits hold those "
            f"too, and depend on what ran before: {_left_alone(data)}."
        )
    else:
        notes.append("- This system's allocator keeps freed memory for later: peaks hold some of that too.")
    if not about["peaks_are_reset"]:
        notes.append(
            "- This system cannot reset the mark of the most resident memory: RSS shows only where an edit "
            "went beyond all before it."
        )
    return "## Notes\n\n" + "\n".join(notes)


def _load(data: Record) -> str:
    loads = [each["load"] for each in data["cells"].values() if "load" in each]
    if not loads:
        return ""
    return f" (its load: {min(loads):.1f} to {max(loads):.1f} on {data['about']['cpu_count']} processors)"


def _left_alone(data: Record) -> str:
    peaks: dict[str, list[float]] = {}
    for each in data["cells"].values():
        if each["what"] == "time" and "rss_mb" in each:
            peaks.setdefault(each["mode"], []).append(each["rss_mb"])
    return ", ".join(f"{mode} {'/'.join(mb(each) for each in found)} MB" for mode, found in peaks.items())


def _which(data: Record) -> str:
    return "Peak GPU memory" if data["summary"]["memory"] == "gpu_mb" else "Peak resident memory"


def _piped(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Names to the left, numbers to the right, columns as wide as they need."""
    widths = [max(len(row[i]) for row in (head, *lines)) for i in range(len(head))]

    def row(cells: Sequence[str]) -> str:
        shown = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(shown)} |"

    rule = [f"{'-' * widths[0]}", *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([row(head), f"| {' | '.join(rule)} |", *map(row, lines)])
