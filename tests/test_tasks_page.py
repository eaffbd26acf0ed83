"""docs/tasks.md: every list on the page is read, and every output on it is what the command says."""

import re
from pathlib import Path

import pytest

from experiments.cli.app import main
from freemask.data.tasks import read_tasks
from freemask.errors import UserError

PAGE = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(csv|yaml|console)( bad)?\n(.*?)```", PAGE, re.S)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("two-cars", "left"):
        Path("masks", name).mkdir(parents=True)


@pytest.mark.parametrize(("language", "bad", "text"), [each for each in BLOCKS if each[0] != "console"])
def test_lists_of_the_page_are_read(language: str, bad: str, text: str) -> None:
    path = Path(f"tasks.{language}")
    path.write_text(text, encoding="utf-8")
    if bad:
        with pytest.raises(UserError, match=f"{len(text.splitlines()) - 1} bad lines"):
            read_tasks(path)
    else:
        assert read_tasks(path)


def test_outputs_of_the_page_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    shown = 0
    for (language, _, text), (kind, _, session) in zip(BLOCKS, BLOCKS[1:], strict=False):
        if kind != "console":
            continue
        Path(f"tasks.{language}").write_text(text, encoding="utf-8")
        command, _, output = session.partition("\n")
        main(command.removeprefix("$ freemask ").split())
        said = capsys.readouterr()
        assert said.out + said.err == output
        shown += 1
    assert shown == 3
