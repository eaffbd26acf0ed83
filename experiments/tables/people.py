"""The study of a run whose questions are a paper's, and what was answered: for the study columns of its table."""

from collections.abc import Sequence
from pathlib import Path

from evaluation.tables.cells import Cell
from evaluation.tables.papers import PaperTable
from evaluation.tables.people import People
from experiments.runs.run import edits
from experiments.study.folder import Study, studies_of
from experiments.study.results import Results, results_of
from experiments.study.told import many


def people_of(table: PaperTable, runs: Sequence[Path]) -> People | None:
    """None where nobody's answers count. Of several studies the one with most raters: their people are not mixed."""
    places = [each for place in runs for each in (place, *(run.folder for run in edits(place)))]
    folders = {study.resolve(): study for place in places for study in studies_of(place)}
    asked = [study for study in map(Study.read, folders.values()) if study.design.table == table.name]
    found = [each for each in map(results_of, asked) if each.raters]
    if not found:
        return None
    best = max(found, key=lambda each: each.raters)
    others = [each.study.name for each in found if each is not best]
    more = [f"Other studies of these edits are not shown: {', '.join(others)}."] if others else []
    return People(_cells(best), [_said(best), *more])


def _cells(found: Results) -> dict[tuple[str, str], dict[str, Cell]]:
    cells: dict[tuple[str, str], dict[str, Cell]] = {}
    for (method, key), one in found.means.items():
        named = found.study.methods[method]
        tasks = {each.task for each in found.said if each.criterion == key and method in each.values}
        cell = Cell(one.value, one.low, one.high, len(tasks), one.clips, raters=one.people)
        cells.setdefault((named["variant"], named["run"]), {})[key] = cell
    return cells


def _said(found: Results) -> str:
    tasks = {each.task for each in found.said}
    left_out = f" ({many(len(found.heard.left_out), 'file')} left out)" if found.heard.left_out else ""
    clips = many(len({each.clip for each in found.said}), "clip")
    agree = ", ".join(f"{found.study.design.title(key)} {value:.2f}" for key, value in found.agree.items())
    return (
        f"{many(found.raters, 'rater')}{left_out} about {many(len(tasks), 'task')} on {clips}, "
        f"in the study '{found.study.name}' of these edits. Their intervals take both raters and clips as drawn from "
        "many. "
        f"Agreement (Krippendorff's alpha): {agree}."
    )
