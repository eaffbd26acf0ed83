"""What MkDocs adds to the pages in this folder: a reference made of the YAMLs' own words, reports, and how we work."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from experiments.config import choices
from experiments.config.explained import Key, chosen_by, keys_of_option

ROOT = Path(__file__).parent.parent
REPORTS = ROOT / "reports"
SHOWN = (".md", ".png", ".html")  # of reports; the rest is data
# A page for each choice; of the other groups one page for all.
ONE_BY_ONE = ("method",)
TITLES = {
    "method": "Methods",
    "model": "Models",
    "mask": "Masks",
    "fusion": "Fusion",
    "task": "Kinds of edits",
    "tuning": "Tuning",
    "speed": "Speed",
    "data": "Data",
    "metric": "Metrics",
    "flow": "Optical flow",
    "first_frame": "First frames and other pictures",
    "interpolation": "Frames between frames",
    "experiment": "Experiments",
    "design": "Designs of studies",
    "runner": "Runners",
    "logger": "Loggers",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path in sorted(REPORTS.iterdir()):
        if path.suffix in SHOWN:
            files.append(File.generated(config, f"reports/{path.name}", abs_src_path=str(path)))
    how = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "contributing.md", content=how))
    for name, text in reference().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """In the repository these lie beside this folder, on the site in it."""
    return markdown.replace("](../reports/", "](reports/").replace(
        "](../CONTRIBUTING.md", "](contributing.md"
    )


def reference() -> dict[str, str]:
    """Pages by their names."""
    made: dict[str, str] = {}
    for group, title in TITLES.items():
        listed = choices.group(group)
        if group not in ONE_BY_ONE:
            parts = [f"## {group}={each.name}\n\n{_about(group, each)}" for each in listed]
            made[group] = "\n\n".join([f"# {title}", *parts])
            continue
        rows = [f"| [`{each.name}`]({group}/{each.name}.md) | {_cell(each.description)} |" for each in listed]
        made[group] = "\n".join([f"# {title}", "", f"| `{group}=` | what it does |", "|---|---|", *rows])
        for each in listed:
            made[f"{group}/{each.name}"] = f"# {each.name}\n\n{_about(group, each)}\n\n{_used(each.name)}"
    return made


def _about(group: str, option: choices.Option) -> str:
    lines = [option.description[:1].upper() + option.description[1:] + "."]
    facts = {name: value for name, value in option.facts.items() if name in ("licence", "get", "size")}
    lines += [f"- {name}: {_code(value) if name == 'get' else value}" for name, value in facts.items()]
    along = " ".join(f"{name}={value}" for name, value in chosen_by(group, option.name).items())
    parts = ["\n".join(lines), f"It also chooses `{along}`." if along else ""]
    parts.append(_table(keys_of_option(group, option.name)) if group != "experiment" else "")
    if group == "experiment":
        verb = option.facts.get("verb", "run")
        parts.append(f"    freemask {verb} experiment={option.name}")
    return "\n\n".join(part for part in parts if part)


def _table(keys: tuple[Key, ...]) -> str:
    if not keys:
        return ""
    rows = [f"| {_code(key.name)} | {_code(key.value)} | {_cell(key.about)} |" for key in keys]
    return "\n".join(["| key | default | |", "|---|---|---|", *rows])


def _used(method: str) -> str:
    """Experiments that have a variant of it."""
    names = [each.name for each in choices.group("experiment") if method in _methods(each.name)]
    said = ", ".join(f"`{name}`" for name in names)
    command = f"    freemask edit method={method}"
    return "\n\n".join(
        ["## Try it", command, f"Experiments with it: {said}." if said else "No experiment names it."]
    )


def _methods(experiment: str) -> set[str]:
    along = chosen_by("experiment", experiment).get("method")
    return {*_named(choices.content("experiment", experiment)), *([along] if along else [])}


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _named(each)
    elif isinstance(value, str):
        yield from re.findall(r"^method=(\w+)$", value)


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
