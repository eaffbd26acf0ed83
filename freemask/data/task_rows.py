"""Task lists as rows with line numbers: only the file's syntax is judged here, not what the fields say."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from freemask.errors import UserError

Complaint = tuple[int, str]


@dataclass(frozen=True)
class Row:
    """One task as written: values by field, and the line of each field (of the row where it has none), also of what a
    field lists (`edits[1]`). `header`: of a CSV file, its line and the columns that it names."""

    line: int
    values: dict[str, object]
    lines: dict[str, int] = field(default_factory=dict)
    guessed: Mapping[str, str] = field(default_factory=dict)  # of its values, those that were not written
    header: tuple[int, Sequence[str]] | None = None

    def at(self, name: str) -> int:
        return self.lines.get(name, self.lines.get(name.partition("[")[0], self.line))


def read_rows(path: Path) -> tuple[list[Row], list[Complaint]]:
    text, complaints = decoded(path)
    if complaints:
        return [], complaints
    if path.suffix.lower() in (".yaml", ".yml"):
        return _yaml_rows(text)
    if path.suffix.lower() == ".csv":
        return _csv_rows(text)
    raise UserError(
        f"{path}: not a task list by its name", came=path.suffix or "no ending", expected=".yaml or .csv"
    )


def decoded(path: Path) -> tuple[str, list[Complaint]]:
    """The text of a UTF-8 file, or what is wrong with it."""
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "", [(1, "the file is UTF-16; save it as UTF-8")]
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        return "", [(line, f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8")]
    if "\0" in text:
        return "", [(text[: text.index("\0")].count("\n") + 1, "a zero byte: this is not a text file")]
    return text, []


def _csv_rows(text: str) -> tuple[list[Row], list[Complaint]]:
    complaints: list[Complaint] = []
    rows: list[Row] = []
    first, header = 1, []
    for line, cells in csv_lines(text, complaints):
        if not header:
            first, header = line, [cell.strip() for cell in cells]
            complaints += [(line, f"column '{name}' is there twice") for name in _repeated(header)]
            if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
                return [], [(line, "the columns must be separated by commas")]
        elif len(cells) != len(header):
            hint = '; a prompt with a comma needs "quotes"' if len(cells) > len(header) else ""
            complaints.append(
                (line, f"{len(cells)} values where the header names {len(header)} columns{hint}")
            )
        else:
            filled = {name: cell for name, cell in zip(header, cells, strict=True) if cell != ""}
            rows.append(Row(line, dict(filled), header=(first, header)))
    return rows, complaints


def csv_lines(text: str, complaints: list[Complaint]) -> Iterator[tuple[int, list[str]]]:
    """Every line with something in it, and its number; what is not CSV goes to the complaints."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            complaints.append((line, f"broken quotes: {error}"))
            return
        if any(cell.strip() for cell in cells):
            yield line, cells


def _yaml_rows(text: str) -> tuple[list[Row], list[Complaint]]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; indent with blanks, not with tabs" if "\\t" in str(error.problem) else ""
        return [], [(mark.line + 1 if mark else 1, f"not YAML: {error.problem}{hint}")]
    except yaml.reader.ReaderError as error:
        return [], [(text[: error.position].count("\n") + 1, f"not YAML: {error.reason}")]
    complaints: list[Complaint] = []
    if isinstance(root, SequenceNode):
        rows = [_row(node, complaints) for node in root.value]
        return [row for row in rows if row], complaints
    if isinstance(root, MappingNode):
        return [row for clip, node in root.value for row in _clip_rows(clip, node, complaints)], complaints
    if root is not None:
        complaints.append((1, "expected a list of tasks, or clips with their prompts"))
    return [], complaints


def _row(node: Node, complaints: list[Complaint]) -> Row | None:
    line = node.start_mark.line + 1
    if not isinstance(node, MappingNode):
        complaints.append((line, "a task must be written as `field: value` pairs"))
        return None
    values, lines = _fields(node, complaints)
    return Row(line, values, lines)


def _clip_rows(clip: Node, node: Node, complaints: list[Complaint]) -> Iterator[Row]:
    """The form `clip: {source: ..., objects: ..., targets: [{kind, target, words}, ...]}`, in which a target may be
    its prompt alone; or the fields of the clip's only task."""
    line = clip.start_mark.line + 1
    if not isinstance(node, MappingNode):
        complaints.append((line, "a clip must have `source:` and `target:`, or `targets:`, a list"))
        return
    named = {str(key.value): value for key, value in node.value}
    if "target" in named and "targets" not in named:
        values, lines = _fields(node, complaints)
        if "clip" in values:
            complaints.append((lines["clip"], "field 'clip' says again what stands before the colon"))
        yield Row(line, values | {"clip": _value(clip, complaints)}, lines | {"clip": line})
        return
    targets = named.get("targets")
    shared = MappingNode(node.tag, [pair for pair in node.value if pair[1] is not targets], node.start_mark)
    values, lines = _fields(shared, complaints)
    for name in sorted(set(values) - {"source", "objects"}):
        complaints.append(
            (lines[name], f"field '{name}' does not belong to a clip (source, objects, targets)")
        )
    if not isinstance(targets, SequenceNode) or not targets.value:
        complaints.append((line, "a clip needs `target:`, or `targets:`, a list of at least one edit"))
        return
    values = {name: value for name, value in values.items() if name in ("source", "objects")}
    for target in targets.value:
        row = _row(_as_fields(target), complaints)
        if row is None:
            continue
        for name in ("clip", "source", "objects"):
            if name in row.values:
                complaints.append((row.at(name), f"field '{name}' belongs to the clip, not to a target"))
        yield Row(
            row.line,
            row.values | {"clip": _value(clip, complaints)} | values,
            row.lines | {"clip": line} | lines,
        )


def _as_fields(target: Node) -> Node:
    """A target that is its prompt alone, written out."""
    if not isinstance(target, ScalarNode):
        return target
    key = ScalarNode("tag:yaml.org,2002:str", "target", target.start_mark)
    return MappingNode("tag:yaml.org,2002:map", [(key, target)], target.start_mark)


def _fields(node: MappingNode, complaints: list[Complaint]) -> tuple[dict[str, object], dict[str, int]]:
    values: dict[str, object] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        line, name = key.start_mark.line + 1, str(key.value) if isinstance(key, ScalarNode) else "?"
        if name in lines:
            complaints.append((line, f"field '{name}' is there twice"))
        lines[name] = line
        if isinstance(value, SequenceNode):
            lines |= {f"{name}[{n}]": each.start_mark.line + 1 for n, each in enumerate(value.value, 1)}
        read = _value(value, complaints)
        if read is not None:
            values[name] = read
    return values, lines


def _value(node: Node, complaints: list[Complaint]) -> object:
    if isinstance(node, ScalarNode):
        try:
            return yaml.SafeLoader("").construct_object(node)
        except ValueError as error:
            complaints.append((node.start_mark.line + 1, f"'{node.value}': {error}"))
            return None
    if isinstance(node, SequenceNode):
        return [_value(item, complaints) for item in node.value]
    pairs: dict[object, object] = {}
    for key, value in node.value:
        name = _value(key, complaints)
        name = str(name) if isinstance(name, list | dict) else name
        if name in pairs:
            complaints.append((key.start_mark.line + 1, f"'{name}' is there twice"))
        pairs[name] = _value(value, complaints)
    return pairs


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
