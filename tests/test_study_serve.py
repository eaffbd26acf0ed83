"""`freemask study serve`: what the small server hands out and takes, and what it does not."""

import json
from http.client import HTTPConnection
from threading import Thread

import pytest
from raters import answers, hand_in, opinion, run_of, study_of

from experiments.cli.app import main
from experiments.commands import study as verb
from experiments.study.answers import MOST, hear
from experiments.study.desk import Desk
from experiments.study.serve import server_of


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return study_of(run_of(tmp_path_factory.mktemp("runs") / "a"), "freemask")


@pytest.fixture
def served(study):
    server = server_of(study, "127.0.0.1", 0)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
    for path in study.answers.iterdir():
        path.unlink()


def ask(server, method, path, body=None, **headers):
    line = HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    line.putrequest(method, path, skip_accept_encoding=True)
    if body is not None and "Content_Length" not in headers:
        headers["Content_Length"] = str(len(body))
    for name, value in headers.items():
        line.putheader(name.replace("_", "-"), value)
    line.endheaders(body)
    answer = line.getresponse()
    found = answer.status, answer.read(), answer.headers
    line.close()
    return found


def post(server, found, **headers):
    body = found if isinstance(found, bytes) else json.dumps(found).encode()
    status, text, _ = ask(server, "POST", "/answers", body, **headers)
    return status, text.decode()


def test_the_page_and_its_clips_are_handed_out(served, study):
    for path in ("/", "/index.html"):
        status, content, headers = ask(served, "GET", path)
        assert status == 200 and content == (study.page / "index.html").read_bytes()
        assert "default-src 'none'" in headers["Content-Security-Policy"]
    clip = study.files[-1]
    whole = (study.page / clip).read_bytes()
    assert ask(served, "GET", f"/{clip}")[1] == whole
    for asked, piece, said in (
        ("bytes=0-9", whole[:10], "0-9"),
        ("bytes=10-", whole[10:], f"10-{len(whole) - 1}"),
        ("bytes=-4", whole[-4:], f"{len(whole) - 4}-{len(whole) - 1}"),
        ("bytes=5-99999999", whole[5:], f"5-{len(whole) - 1}"),
    ):
        status, content, headers = ask(served, "GET", f"/{clip}", Range=asked)
        assert (status, content, headers["Content-Range"]) == (206, piece, f"bytes {said}/{len(whole)}")
    for nothing in ("bytes=99999999-", "bytes=-0"):
        assert ask(served, "GET", f"/{clip}", Range=nothing)[0] == 416
    status, content, headers = ask(served, "HEAD", f"/{clip}")
    assert (status, content, headers["Content-Length"]) == (200, b"", str(len(whole)))


@pytest.mark.parametrize(
    "path",
    [
        *("/../key.json", "/%2e%2e/key.json", "/key.json", "/clips", "/clips/", "/clips/../../key.json"),
        *("//etc/passwd", "/answers", "/answers/", "/clips/..%2f..%2fkey.json", "/index.html/", "/."),
        *("/clips\\..\\..\\key.json", "http://elsewhere/key.json", "/%00", "/clips/link.mp4"),
    ],
)
def test_nothing_else_is_handed_out(served, study, path):
    link = study.page / "clips" / "link.mp4"
    link.unlink(missing_ok=True)
    link.symlink_to(study.folder / "key.json")
    try:
        status, content, _ = ask(served, "GET", path)
        assert status in (403, 404) and study.id.encode() not in content
    finally:
        link.unlink()


def test_a_clip_that_became_a_link_is_not_followed(served, study):
    clip = study.page / study.files[-1]
    aside = clip.with_suffix(".aside")
    clip.rename(aside)
    clip.symlink_to(study.folder / "key.json")
    try:
        assert ask(served, "GET", f"/{study.files[-1]}")[0] == 404
    finally:
        clip.unlink()
        aside.rename(clip)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_else_is_done(served, method):
    assert ask(served, method, "/index.html", b"x")[0] == 501


def test_answers_are_kept_once_and_never_over_others(served, study, capsys):
    first, other = answers(study, "anna"), answers(study, "anna", opinion(freemask=2))
    assert post(served, first) == (201, "kept")
    assert post(served, first | {"finished": "2026-01-02"})[0] == 200  # the same, as sent again
    status, why = post(served, other)
    assert status == 409 and "'anna'" in why
    assert post(served, other | {"rater": "Anna"})[0] in (400, 409)  # other turns, or the same rater
    assert post(served, answers(study, "Zoë 2"))[0] == 201
    assert [each.rater for each in hear(study).said] == ["Zoë 2", "anna"] or len(hear(study).said) == 2
    assert json.loads((study.answers / "anna.json").read_text()) == first
    assert sorted(path.suffix for path in study.answers.iterdir()) == [".json", ".json"]
    assert "answers of anna came" in capsys.readouterr().out
    assert served.desk.came == ["anna", "Zoë 2"] and served.desk.refused == 2


def test_a_name_that_is_taken_by_another_file_is_left_alone(served, study):
    hand_in(study, "mine", "bert.json")
    assert post(served, answers(study, "bert"))[0] == 201
    assert (study.answers / "bert.json").read_text() == "mine"
    assert json.loads((study.answers / "bert-2.json").read_text())["rater"] == "bert"


def test_who_has_answered_before_the_server_began_is_known(study):
    hand_in(study, answers(study, "early"))
    server = server_of(study, "127.0.0.1", 0)
    try:
        status, _ = server.desk.take(json.dumps(answers(study, "early", opinion(freemask=1))).encode())
        assert status == 409
    finally:
        server.server_close()
        (study.answers / "early.json").unlink()


def test_what_is_no_answer_is_refused_and_not_kept(served, study):
    strange = [
        answers(study, "a") | {"study": "0" * 12},
        answers(study, "a") | {"rater": "../../a"},
        answers(study, "a") | {"answers": []},
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"",
    ]
    for each in strange:
        status, why = post(served, each)
        assert status == 400 and why
    wrong = answers(study, "a")
    wrong["answers"][0]["item"] = "0" * 12
    assert post(served, wrong)[0] == 400
    body = json.dumps(answers(study, "a")).encode()
    assert ask(served, "POST", "/elsewhere", body)[0] == 404
    assert post(served, body, Content_Length=str(MOST + 1))[0] == 413
    assert post(served, body, Content_Length="many")[0] == 411
    assert post(served, body, Content_Length="-5")[0] == 411
    assert post(served, body, Origin="http://elsewhere.example")[0] == 403
    assert not list(study.answers.iterdir()) and served.desk.came == []
    assert post(served, body)[0] == 201  # and goes on


def test_with_a_token_raters_are_answered_who_have_their_invitation(study):
    server = server_of(study, "127.0.0.1", 0, "auto")
    token = (study.folder / "token").read_text()
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        body = json.dumps(answers(study, "anna")).encode()
        for path in ("/", "/index.html", f"/{study.files[-1]}", "/?token=guess"):
            status, said, headers = ask(server, "GET", path)
            assert status == 403 and b"?token=" in said and headers["Set-Cookie"] is None
            assert token.encode() not in said
        assert ask(server, "POST", "/answers", body)[0] == 403
        status, said, headers = ask(server, "GET", f"/?token={token}")
        assert status == 200 and said == (study.page / "index.html").read_bytes()
        shown = headers["Set-Cookie"].partition(";")[0]
        for host in ("127.0.0.1", "study.example.org"):  # a server in front may call it so
            assert ask(server, "GET", f"/{study.files[-1]}", Cookie=shown, Host=host)[0] == 200
        assert ask(server, "POST", "/answers", body, Cookie=shown)[0] == 201
        assert (
            ask(server, "POST", "/answers", body, Cookie=shown, Origin="http://elsewhere.example")[0] == 403
        )
        assert server.invitation.endswith(f"/?token={token}") and "token" not in study.files
    finally:
        server.shutdown()
        server.server_close()
        (study.answers / "anna.json").unlink(missing_ok=True)


MORE = {
    "'note', which the page does not send": lambda found: found.update(note="x" * 100_000),
    "it lacks 'comment'": lambda found: found.pop("comment"),
    "'comment' is no text of up to 2000": lambda found: found.update(comment="x" * 2001),
    "'finished' is no text of up to 40": lambda found: found.update(finished=["2026"]),
    "'finished' is no time": lambda found: found.update(finished="a while ago"),
    "answer 2: it holds 'x'": lambda found: found["answers"][1].update(x=1),
    "answer 1: it lacks 'seconds'": lambda found: found["answers"][0].pop("seconds"),
    "answer 3: 'seconds' is no number": lambda found: found["answers"][2].update(seconds=float("nan")),
    "answer 4: 'seconds' is no number": lambda found: found["answers"][3].update(seconds=[1] * 1000),
}


@pytest.mark.parametrize("said", MORE)
def test_only_what_the_page_sends_is_taken(study, said):
    found = answers(study, "anna")
    MORE[said](found)
    status, why = Desk(study).take(json.dumps(found).encode())
    assert status == 400 and said in why and not list(study.answers.iterdir())


def test_what_is_kept_was_written_anew(study):
    """A field that stands twice in a file, the first time with anything, is read once."""
    body = json.dumps(answers(study, "anna"))
    assert Desk(study).take(b'{"comment": "' + b"x" * 100_000 + b'", ' + body[1:].encode())[0] == 201
    kept = study.answers / "anna.json"
    assert json.loads(kept.read_text()) == json.loads(body) and "xxx" not in kept.read_text()
    kept.unlink()


def test_of_so_many_raters_answers_are_taken(study, capsys):
    hand_in(study, answers(study, "early"))
    desk = Desk(study, most=2)
    assert desk.take(json.dumps(answers(study, "anna")).encode())[0] == 201
    status, why = desk.take(json.dumps(answers(study, "bert")).encode())
    assert status == 503 and "no more answers" in why and "most=N" in capsys.readouterr().out
    assert desk.take(json.dumps(answers(study, "anna")).encode())[0] == 200  # as sent again
    assert {path.stem for path in study.answers.iterdir()} == {"anna", "early"}
    for path in study.answers.iterdir():
        path.unlink()
    assert main(["study", "serve", str(study.folder), "most=0"]) == 2


def test_ctrl_c_ends_it_with_what_came(study, monkeypatch, capsys):
    def interrupted(server):
        server.desk.take(json.dumps(answers(study, "anna")).encode())
        raise KeyboardInterrupt

    monkeypatch.setattr("socketserver.BaseServer.serve_forever", interrupted)
    assert main(["study", "serve", str(study.folder), "port=0"]) == 0
    said = capsys.readouterr().out
    assert "http://127.0.0.1:" in said and "answers of 1 rater came: anna" in said and "warning" not in said
    assert main(["study", "serve", str(study.folder), "port=0", "host=0.0.0.0"]) == 0
    said = capsys.readouterr().out
    assert "warning: everyone who has this address" in said and "answers of 0 raters came" in said
    assert f"/?token={(study.folder / 'token').read_text()} " in said
    assert main(["study", "serve", str(study.folder), "port=0", "host=0.0.0.0", "token=null"]) == 0
    said = capsys.readouterr().out
    assert "warning: everyone who reaches this machine" in said and "token" not in said
    (study.answers / "anna.json").unlink()


def test_a_place_that_is_taken_is_told(served, study, capsys):
    assert main(["study", "serve", str(study.folder), f"port={served.server_address[1]}"]) == 2
    assert "port=0" in capsys.readouterr().err
    assert main(["study", "serve", str(study.folder), "port=99999999"]) == 2
    assert main(["study", "serve", str(study.folder), "host=no.such.place.example", "port=0"]) == 2
    assert "no machine has this name" in capsys.readouterr().err
    assert verb.VERB.actions["serve"] == "do=serve"
