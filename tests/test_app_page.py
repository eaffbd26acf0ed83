"""The page to play with, as somebody uses it: served by the command, in a real browser, from opening to the edit."""

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import sleep
from typing import Any
from urllib.request import Request, urlopen

import pytest
import torch
from browser import Browser, browser, found
from PIL import Image

from experiments.cli.app import main
from experiments.runs.store import RunStore
from freemask.data.images import read_image
from freemask.data.write import write_video

pytestmark = pytest.mark.skipif(
    found() is None or find_spec("gradio") is None,
    reason="no Chromium, or no Gradio (freemask[app]): the page is not tested",
)
START = ("method.steps=2", "data.clips=2", "data.frames=2", "metric=masked_psnr")
LONG = 120  # seconds; machines of CI are slow
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Path]:
    """The folder in which the page is served, and the commands run."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("home")
        patch.chdir(place)
        yield place


@dataclass
class Served:
    address: str
    invitation: str  # with the token
    program: subprocess.Popen


@pytest.fixture(scope="module")
def served(home) -> Iterator[Served]:
    words = [sys.executable, "-m", "experiments.cli.app", "app", "port=0", *START]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert program.stdout is not None
    try:
        ready, _, _ = select.select([program.stdout], [], [], LONG)
        said = program.stdout.readline() if ready else ""
        address = re.search(r"(http://127\.0\.0\.1:\d+/)\?token=[\w-]{32}", said)
        assert address and "Ctrl-C" in said, (said, program.poll())
        yield Served(address.group(1), address.group(), program)
    finally:
        program.kill()
        program.communicate()


@pytest.fixture(scope="module")
def page(served, tmp_path_factory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile"), "--enable-unsafe-swiftshader") as one:
        one.visit(served.invitation, wide=1400, high=1600)
        one.wait("document.querySelector('#command textarea')?.value", LONG)
        one.wait("document.querySelector('#preview clip-player')?.dataset.ready !== undefined", LONG)
        yield one


def command(page: Browser) -> str:
    return page.run("document.querySelector('#command textarea').value")


def until_command(page: Browser, holds: str) -> str:
    page.wait(f"document.querySelector('#command textarea').value.includes({holds!r})", LONG)
    return command(page)


def fits(page: Browser) -> None:
    for wide in (900, 1400):
        page.size(wide, 1600)
        sleep(0.2)
        assert page.run("document.documentElement.scrollWidth") <= wide


def frames_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "frames").iterdir()}


def test_from_opening_to_the_edit(page: Browser, home: Path) -> None:
    assert command(page).startswith("freemask edit clip=world-10000000-attribute method.steps=2")
    assert "press Look" in page.text("#status")
    fits(page)
    page.click("#look")
    page.wait("document.querySelector('#sheet img')?.naturalWidth > 300", LONG)
    page.wait("document.querySelector('#about').innerText.includes('IoU')", LONG)
    assert "mmc_by_layer" in page.text("#legend") and "best layer" in page.text("#legend")
    page.drag("#sheet img", (0.95, 0.98))  # the last map of all
    page.wait(
        "document.querySelector('#about').innerText.includes('up_blocks.3.attentions.2, time 501')", LONG
    )
    page.wait("document.querySelector('#layer input').value === '16'", LONG)
    page.type("#threshold input[type=range]", "0.5")
    page.click("#use_map")
    until_command(page, "mask=layer mask.layer=up_blocks.3.attentions.2")
    assert "mask.binarise.threshold=0.5" in until_command(page, "threshold")
    fits(page)
    page.click("#from_map")
    page.wait("document.querySelector('#editor canvas')?.getBoundingClientRect().width > 0", LONG)
    page.click("#use_painting")
    masks, said = painted(page)
    assert len(masks) == 2 and masks[0].shape == (64, 64) and bool(masks[0].any())
    edit_and_compare(page, said, home)
    fits(page)


def painted(page: Browser) -> tuple[list[torch.Tensor], str]:
    """The masks of the command, and the command."""
    said = until_command(page, "mask=segmentation mask.folder=runs/app/masks/")
    folder = Path(said.rpartition("mask.folder=")[2])
    return [read_image(path)[0] for path in sorted(folder.iterdir())], said


@pytest.mark.long  # the editor draws in software here, and sometimes loses a stroke
def test_a_stroke_of_the_brush_becomes_the_mask(page: Browser) -> None:
    page.click("#empty")
    masks = paint(page)
    marked = (masks[0] > 0.5).nonzero()
    assert len(marked) > 30 and int(marked[:, 0].max()) < 20 and not masks[1].any()


def paint(page: Browser) -> list[torch.Tensor]:
    """A stroke near the upper edge; the editor does not say when it is ready for one."""
    masks = []
    for _ in range(10):
        sleep(1)
        page.drag("#editor canvas", (0.45, 0.2), (0.5, 0.2), (0.55, 0.2))
        sleep(0.5)
        page.click("#use_painting")
        masks, _ = painted(page)
        if masks[0].any():
            break
    return masks


def edit_and_compare(page: Browser, said: str, home: Path) -> None:
    """The page's edit is the command's, bit for bit."""
    page.click("#edit")
    page.wait("document.querySelector('#result clip-player')?.dataset.ready !== undefined", LONG)
    assert "masked_psnr" in page.text("#numbers") and "seconds" in page.text("#numbers")
    assert "Edited in" in page.text("#status")
    (left,) = (home / "runs/edits").iterdir()
    ours = frames_of(left)
    (left / "frames").rename(home / "ours")
    assert main(shlex.split(said)[1:]) == 0
    assert len(ours) == 2 and frames_of(left) == ours
    first, second = RunStore(left).rows()
    assert first["metrics"] == second["metrics"] and first["run"] == second["run"]
    assert first["choices"]["mask"] == "segmentation"


def test_a_clip_of_ones_own_and_what_is_wrong_with_it(page: Browser, home: Path) -> None:
    write_video(home / "mine.mp4", torch.rand(3, 3, 32, 48), 8)
    page.choose("#drop input[type=file]", home / "mine.mp4")
    until_command(page, "clip=runs/app/clips/mine-")
    page.wait("document.querySelector('#hint').innerText.includes('what the clip shows')", LONG)
    page.wait("document.querySelector('#preview').innerText.includes('3 frames')", LONG)
    page.click("#edit")
    page.wait("document.querySelector('.toast-body')", LONG)
    said = page.text(".toast-body")
    assert "source prompt is needed" in said and "Traceback" not in said
    page.type("#source input, #source textarea", 'a "red" car $HOME')
    page.type("#target input, #target textarea", "a blue car")
    assert "'source=a \"red\" car $HOME'" in until_command(page, "blue car")


def test_stop_ends_an_edit_between_two_steps(page: Browser, home: Path) -> None:
    before = set((home / "runs/edits").iterdir())
    page.type("#steps input", "500")
    until_command(page, "method.steps=500")
    page.type("#source input, #source textarea", "a red car")
    until_command(page, "source=a red car")
    page.click("#edit")
    page.wait("/\\d+ of 500|%/.test(document.querySelector('#status').innerText)", LONG)
    page.click("#stop")
    page.wait("document.querySelector('#status').innerText.startsWith('Stopped')", LONG)
    assert set((home / "runs/edits").iterdir()) == before
    page.type("#steps input", "1")
    until_command(page, "method.steps=1")
    page.run("document.querySelector('#result').innerHTML = ''")
    page.click("#edit")  # it is free again
    page.wait("document.querySelector('#status').innerText.startsWith('Edited')", LONG)


def test_all_that_was_asked_for_came_from_this_machine_and_nothing_went_wrong(
    page: Browser, served: Served
) -> None:
    asked = page.requested()
    assert len(asked) > 20
    assert not [each for each in asked if not each.startswith((served.address, "data:", "blob:"))]
    assert not page.complaints()


def test_a_picture_of_this_machine_that_nobody_dropped_is_not_read(
    page: Browser, served: Served, home: Path
) -> None:
    """As who knows how the page speaks to its server may ask for it."""
    Image.new("RGB", (32, 32)).save(home / "private.png")

    def ask(path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Cookie": cookie}
        with urlopen(Request(served.address + path, data, headers), timeout=LONG) as answer:
            return answer.read().decode()

    with urlopen(served.invitation, timeout=LONG) as first:
        cookie = first.headers["Set-Cookie"].partition(";")[0]
    config = json.loads(ask("config"))
    parts = {each["props"].get("elem_id"): each["id"] for each in config["components"]}
    (drop,) = [each for each in config["dependencies"] if [parts["drop"], "upload"] in each["targets"]]
    named = {each["id"]: each["props"].get("value") for each in config["components"]}
    given = [named[each] for each in drop["inputs"]]
    given[0] = {"path": str(home / "private.png"), "meta": {"_type": "gradio.FileData"}}
    ask("gradio_api/queue/join", {"data": given, "fn_index": drop["id"], "session_hash": "thief"})
    said = ask("gradio_api/queue/data?session_hash=thief")
    assert '"success":false' in said and "process_completed" in said
    assert not list(home.glob("runs/app/clips/private-*"))


def test_ctrl_c_ends_it_without_a_word_while_the_page_is_open(page: Browser, served: Served) -> None:
    assert page.text("#status")
    served.program.send_signal(signal.SIGINT)
    rest, errors = served.program.communicate(timeout=LONG)
    refused = r"(?s)Traceback.*?was not uploaded by a user\.\n"  # above, as Gradio tells it
    assert (served.program.returncode, rest, re.sub(refused, "", errors)) == (0, "", "")
