"""The page of a study in a real browser, from its first page to answers that count: clicks, keys, files, the server."""

import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest
from browser import browser, found
from raters import GOOD, answers, run_of, steady, study_of

from experiments.cli.app import main
from experiments.study.answers import hear, parse
from experiments.study.drawn import turns
from experiments.study.serve import server_of

pytestmark = pytest.mark.skipif(found() is None, reason="no Chromium here")
CODES = ["K7", "rater 12", "Zoë", "ελένη-3", "山田", "a.b_c-d", "Q" * 40]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    run = run_of(tmp_path_factory.mktemp("runs") / "a")
    return {name: study_of(run, name) for name in ("freemask", "fatezero", "paired")}


def click(chromium, query):
    chromium.run(f"document.querySelector({json.dumps(query)}).click()")


def begin(chromium, page, code):
    chromium.open(page, f"code={code}")
    assert chromium.run("document.getElementById('code').value") == code
    assert chromium.run("document.getElementById('begin').disabled")  # until one agrees
    click(chromium, "#consent")
    click(chromium, "#begin")


def playing(chromium):
    chromium.wait(
        "stage && stage.videos.length && stage.videos.every((each) => each.readyState >= 3 && !each.paused)"
    )


def answer(chromium, study, turn):
    """As a steady rater, by clicks alone."""
    for key in study.design.keys:
        value, box = steady(study, turn, key), f"fieldset[data-key={key}] "
        if study.design.kind != "ranking":
            click(chromium, f"{box}input[value='{value}']")
        else:
            for each in value[:-1]:  # the last place is taken by what is left
                click(chromium, f"{box}button[data-id='{each}']")
    assert not chromium.run("document.getElementById('next').disabled")


def shown(chromium):
    return chromium.run(
        "(document.querySelector('.progress span') || document.querySelector('h1')).textContent"
    )


def downloaded(folder: Path) -> Path:
    until = monotonic() + 20
    while not (here := [each for each in folder.glob("*.json")]):
        assert monotonic() < until
        sleep(0.05)
    return here[0]


@pytest.mark.parametrize("name", ["freemask", "fatezero", "paired"])
def test_the_page_draws_the_same_turns(chromium, studies, name):
    study = studies[name]
    chromium.open(study.page / "index.html")
    for code in CODES:
        drawn = chromium.run(
            f"turns(study, {json.dumps(code)}).map((each) => "
            "[each.item.id, each.again, each.entries.map((one) => one.id)])"
        )
        assert drawn == [[turn.item, turn.again, list(turn.order)] for turn in turns(study.public, code)], (
            code
        )
    low = study.public["stacks"]
    few = {**study.public, "repeats": 2, "stacks": [[*low[0], *low[1]], *low[2:]]}
    drawn = chromium.run(
        f"turns({{ ...study, repeats: 2, stacks: {json.dumps(few['stacks'])} }}, 'K7')"
        ".map((each) => [each.item.id, each.again])"
    )
    assert drawn == [[turn.item, turn.again] for turn in turns(few, "K7")]


def test_from_the_first_page_to_a_file_that_counts(chromium, studies, tmp_path, capsys):
    study = studies["freemask"]
    every = turns(study.public, "K7")
    chromium.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    begin(chromium, study.page / "index.html", "K7")
    playing(chromium)
    assert shown(chromium) == f"1 of {len(every)}"
    answer(chromium, study, every[0])
    click(chromium, "#next")
    click(chromium, "#back")
    wanted = str(steady(study, every[0], "image"))
    assert chromium.run("document.querySelector('fieldset[data-key=image] input:checked').value") == wanted
    click(chromium, "#next")
    assert chromium.run("document.getElementById('next').disabled")
    assert "still open: Edit, Image, Quality" in chromium.run(
        "document.querySelector('.asked .buttons').textContent"
    )
    answer(chromium, study, every[1])
    chromium.open(study.page / "index.html")  # the tab was closed, and nothing is lost
    assert chromium.run("document.getElementById('code').value") == "K7"
    assert f"2 of {len(every)} are answered" in chromium.run("document.querySelector('form').textContent")
    assert chromium.run("document.getElementById('begin').textContent") == "Continue"
    click(chromium, "#begin")
    assert shown(chromium) == f"2 of {len(every)}"
    click(chromium, "#next")
    for turn in every[2:]:
        answer(chromium, study, turn)
        click(chromium, "#next")
    assert shown(chromium) == "That was all"
    chromium.run("document.querySelector('textarea').value = 'fine'")
    chromium.run("document.querySelector('textarea').dispatchEvent(new Event('input'))")
    click(chromium, "#hand")
    path = downloaded(tmp_path)
    assert path.name == "answers-K7.json"
    asked = {
        each.split("/page/")[-1] for each in chromium.requested() if not each.startswith(("data:", "blob:"))
    }
    assert asked <= {*study.files, study.page.joinpath("index.html").as_uri()}  # nothing from elsewhere
    assert not chromium.complaints()
    said = json.loads(path.read_text())
    assert said["comment"] == "fine" and all(each["seconds"] >= 0 for each in said["answers"])
    path.replace(study.answers / path.name)
    assert main(["study", "read", str(study.folder), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["raters"] == ["K7"] and not record["left_out"]
    means = {(each["method"], each["criterion"]): each["mean"] for each in record["cells"]}
    assert means == {(method, key): GOOD[method] for method in study.methods for key in study.design.keys}
    (study.answers / path.name).unlink()


@pytest.fixture
def served(studies):
    study = studies["fatezero"]
    server = server_of(study, "127.0.0.1", 0, "auto")
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield study, server.invitation
    server.shutdown()
    server.server_close()
    for path in study.answers.iterdir():
        path.unlink()


def test_from_the_first_page_to_answers_on_the_server(chromium, served):
    study, address = served
    every = turns(study.public, "R1")
    begin(chromium, address, "R1")
    playing(chromium)
    assert chromium.run("document.querySelectorAll('.stage video').length") == 4
    for turn in every:
        answer(chromium, study, turn)
        click(chromium, "#next")
    click(chromium, "#hand")
    chromium.wait("document.getElementById('said').textContent.includes('have arrived')")
    (said,) = hear(study).said
    assert said.rater == "R1" and not chromium.complaints()
    logged = [each["params"]["entry"] for each in chromium.events if each.get("method") == "Log.entryAdded"]
    assert not [
        each for each in logged if each["source"] in ("security", "network")
    ]  # what the server forbids
    found = json.loads((study.answers / "R1.json").read_text())
    assert [each["values"] for each in found["answers"]] == [
        each["values"] for each in answers(study, "R1")["answers"]
    ]
    # Another opinion under the same code is not taken, and saved as a file instead.
    chromium.run("localStorage.clear()")
    chromium.open(address, "code=R1")
    click(chromium, "#consent")
    click(chromium, "#begin")
    for _ in every:
        chromium.run(
            "document.querySelectorAll('fieldset').forEach((box) => "
            "[...box.querySelectorAll('button')].slice(0, 2).forEach((each) => each.click()))"
        )
        click(chromium, "#next")
    click(chromium, "#hand")
    chromium.wait("document.getElementById('said').textContent.includes('other answers by')")
    assert "answers-R1.json" in chromium.run("document.getElementById('said').textContent")


def test_on_any_other_web_server_the_answers_become_a_file(chromium, studies, tmp_path):
    study = studies["paired"]
    hand_out = partial(SimpleHTTPRequestHandler, directory=str(study.page))
    server = ThreadingHTTPServer(("127.0.0.1", 0), hand_out)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        chromium.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        begin(chromium, f"http://127.0.0.1:{server.server_address[1]}/index.html", "W1")
        for turn in turns(study.public, "W1"):
            answer(chromium, study, turn)
            click(chromium, "#next")
        click(chromium, "#hand")
        said = parse(study, downloaded(tmp_path).read_text())
        assert said.rater == "W1"
        assert "send this file" in chromium.run("document.getElementById('said').textContent")
    finally:
        server.shutdown()
        server.server_close()


def test_keys_alone_will_do(chromium, studies):
    study = studies["paired"]
    every = turns(study.public, "keys")
    begin(chromium, study.page / "index.html", "keys")
    playing(chromium)
    chromium.press(" ")
    assert chromium.run("stage.videos.every((each) => each.paused)")
    chromium.press(" ")
    playing(chromium)
    for _ in every:
        for _ in study.design.keys:
            chromium.press("a")
        assert not chromium.run("document.getElementById('next').disabled")
        chromium.press("Enter")
    assert shown(chromium) == "That was all"
    said = chromium.run("JSON.stringify(record({ ...kept.of('keys'), finished: 'x' }))")
    assert all(values == dict.fromkeys(values, turn.order[0]) for turn, values in parse(study, said).values)


def test_videos_start_stop_and_loop_together(chromium, studies):
    begin(chromium, studies["paired"].page / "index.html", "loop")
    playing(chromium)
    times = "stage.videos.map((each) => each.currentTime)"
    chromium.run(
        "window.rounds = 0; stage.videos[0].addEventListener('ended', () => { window.rounds += 1; })"
    )
    for _ in range(5):
        now = chromium.run(times)
        assert max(now) - min(now) < 0.13  # of clips with a frame each quarter of a second
        sleep(0.11)
    chromium.wait("window.rounds >= 2")
    playing(chromium)
    click(chromium, ".play")
    before = chromium.run(times)
    sleep(0.2)
    assert chromium.run(times) == before and "Play" in chromium.run(
        "document.querySelector('.play').textContent"
    )
    chromium.run("stage.slider.value = 500; stage.slider.dispatchEvent(new Event('input'))")
    chromium.wait("stage.videos.every((each) => Math.abs(each.currentTime - each.duration / 2) < 0.01)")
    sizes = chromium.run("stage.videos.map((each) => each.clientWidth)")
    assert len(set(sizes)) == 1 and sizes[0] > 300


def test_pictures_are_shown_as_pictures(chromium, tmp_path):
    study = study_of(run_of(tmp_path / "stills", frames=1), "paired")
    assert all(each.endswith(".png") for each in study.files if each != "index.html")
    begin(chromium, study.page / "index.html", "still")
    chromium.wait(
        "[...document.querySelectorAll('.stage img')].filter((each) => each.naturalWidth === 384).length === 3"
    )
    assert not chromium.run("document.querySelector('.controls')")
    answer(chromium, study, turns(study.public, "still")[0])
    click(chromium, "#next")
    assert shown(chromium).startswith("2 of") and not chromium.complaints()


def test_an_order_can_be_changed(chromium, studies):
    study = studies["fatezero"]
    begin(chromium, study.page / "index.html", "order")
    ids = turns(study.public, "order")[0].order
    buttons = [f"fieldset[data-key=edit] button[data-id='{each}']" for each in ids]
    said = "kept.of('order').answers[0].values.edit || null"
    for button in (buttons[2], buttons[0]):
        click(chromium, button)
    assert chromium.run(said) == [ids[2], ids[0], ids[1]]
    assert chromium.run(f"document.querySelector({json.dumps(buttons[1])}).ariaLabel") == "B, place 3"
    click(chromium, buttons[2])
    assert chromium.run(said) is None
    click(chromium, buttons[2])
    assert chromium.run(said) == [ids[0], ids[1], ids[2]]
