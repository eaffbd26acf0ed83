"""Published numbers: every file is whole, every number stands in the paper that it names, word for word."""

import re

import pytest

from evaluation.tables.paper import written
from evaluation.tables.papers import FOLDER, PaperTable, description, names, read, table_of
from freemask.errors import UserError

TABLES = {name: read(name) for name in names()}
# name -> file below shared/papers, and the words of the table's caption
PAPERS = {
    "freemask/1": ("freemask.md", "Table 1: Comparison with different video editing methods"),
    "freemask/2": ("freemask.md", "Table 2: Quantitative comparison and user study results"),
    "fatezero/1": ("fatezero.md", "Table 1. **Quantitative evaluation against baselines"),
    "st-modulator/1": ("st-modulator.md", "Table 1: Quantitative comparison of automatic metrics"),
    "st-modulator/2": ("st-modulator.md", "Table 2: Efficiency comparison"),
    "st-modulator/3": ("st-modulator.md", "Table 3: Quantitative ablation of cross- and self-modulation"),
}


def test_the_tables_are_all_here():
    assert set(TABLES) == set(PAPERS)
    with pytest.raises(UserError, match="did you mean 'freemask/2'"):
        read("freemask2")


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_every_table_names_its_source_and_is_whole(table: PaperTable):
    assert description(table.name) and table.source["paper"] and isinstance(table.source["table"], int)
    assert table.source["table"] == int(table.name.rpartition("/")[2])
    for line in table.lines:
        assert None not in line.values and line.method
    keys = [line.key for line in table.lines] + [column.key for column in table.columns]
    assert all(re.fullmatch(r"[a-z0-9_]+", key) for key in keys)
    if table.kind == "numbers":
        assert table.reference in {line.key for line in table.lines}
        assert all(
            column.better and (column.family or column.ratio or column.study) for column in table.columns
        )
        assert not any(column.study and column.family for column in table.columns)
        assert all(type(value) in (int, float) for line in table.lines for value in line.values)


@pytest.mark.parametrize("name", PAPERS)
def test_every_number_is_the_papers(name, shared):
    """The line as printed: its name, and its values in their order, between the caption before and its own."""
    file, caption = PAPERS[name]
    text = (shared / "papers" / file).read_text(encoding="utf-8")
    text = re.sub(r"\*\*|</?b>", "", text)
    end = text.index(caption.replace("**", ""))
    block = [line.split("\t") for line in text[max(0, end - 3000) : end + 1500].splitlines() if "\t" in line]
    rows = {re.sub(r" \[.*?\]|</?b>", "", cells[0]).strip(): cells[1:] for cells in block}
    table = TABLES[name]
    for line in table.lines:
        printed = rows[line.printed or line.title]
        wanted = [written(v, c) for v, c in zip(line.values, table.columns, strict=True)]
        assert [cell.strip() for cell in printed[: len(wanted)] if cell.strip()] == wanted, line.key


def test_the_transcription_check_can_fail(shared):
    text = (shared / "papers" / "freemask.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("FateZero\t0.937"))
    (line,) = [line for line in TABLES["freemask/2"].lines if line.key == "fatezero"]
    wrong = ["0.938", *row.split("\t")[2:]]
    columns = TABLES["freemask/2"].columns
    assert wrong != [written(value, c) for value, c in zip(line.values, columns, strict=True)]


def test_the_papers_own_marks_are_the_best_of_their_columns():
    """The directions are right: what the papers say of themselves holds under them."""
    for name, key, least in (("freemask/2", "freemask", 5), ("st-modulator/1", "st_modulator", 7)):
        table = TABLES[name]
        best = 0
        for place, column in enumerate(table.columns):
            values = {line.key: line.values[place] for line in table.lines}
            best += values[key] == (max if column.higher else min)(values.values())
        assert best >= least
    fatezero = TABLES["fatezero/1"]
    for place, column in enumerate(fatezero.columns):
        values = [line.values[place] for line in fatezero.lines]
        wanted = 0.958 if column.key == "frame_acc" else fatezero.lines[-1].values[place]
        assert wanted == (max if column.higher else min)(values)


def test_q_edit_is_clip_t_over_warp_err():
    """A check of the paper's arithmetic, and so of the transcription."""
    for name in ("st-modulator/1", "st-modulator/3"):
        for line in TABLES[name].lines:
            _, clip_t, warp_err, q_edit = line.values[:4]
            assert clip_t / warp_err == pytest.approx(q_edit, rel=0.005)


BROKEN = [
    ({"source": {"paper": "x"}}, "no paper and table"),
    ({"source": {}}, "no paper and table"),
    ({"lines": {"a": {"title": "A", "values": [1]}}}, "1 values for 2 columns"),
    ({"columns": {"a": {"title": "A", "beter": "higher"}}}, "knows no beter"),
    ({"columns": {"a": {"title": "A", "better": "up"}}}, "higher or lower"),
    ({"columns": {"a": {"title": "A"}, "b": {"title": "B", "ratio": ["a", "c"]}}}, "no ratio of two columns"),
    ({"experment": "x"}, "knows no experment"),
]


@pytest.mark.parametrize(("change", "said"), BROKEN, ids=[said for _, said in BROKEN])
def test_a_broken_file_is_refused(change, said):
    whole = {
        "title": "T",
        "about": "",
        "source": {"paper": "P", "table": 1},
        "columns": {"a": {"title": "A"}, "b": {"title": "B"}},
        "lines": {"a": {"title": "A", "values": [1, 2]}},
    }
    table_of("t/1", whole)
    with pytest.raises(ValueError, match=said):
        table_of("t/1", whole | change)


def test_files_and_names_agree():
    figures = {name.replace("/", "-fig") for name in names("figure")}
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {
        name.replace("/", "-") for name in TABLES
    } | figures


@pytest.mark.parametrize(
    ("choices", "variant", "line"),
    [
        ({"method": "fatezero", "mask": "fatezero"}, None, "fatezero"),
        ({"method": "fatezero", "mask": "mmc"}, None, "fatezero_mmc"),
        ({"method": "fatezero", "mask": "fatezero"}, "freemask", "fatezero"),
        ({"method": "freemask", "mask": "mmc"}, "fatezero", "freemask"),
        ({"method": "freemask", "mask": "mmc"}, "of my own", "freemask"),
        ({"method": "sdedit", "mask": None}, "freemask", None),
    ],
)
def test_a_line_takes_rows_by_what_they_were_made_with_and_never_by_a_name(choices, variant, line):
    row = {"choices": choices, "method": choices["method"]} | ({"variant": variant} if variant else {})
    found = read("freemask/2").line_of(row)
    assert (found and found.key) == line
