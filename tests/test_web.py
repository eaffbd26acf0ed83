"""Where pages are served and whom their gate answers: places, names, tokens."""

import socket
import stat

import pytest

from experiments.web.gate import LOCKED, STRANGE, Gate, token_of
from experiments.web.place import address, is_own, taken
from freemask.errors import UserError

HERE = {"host": "127.0.0.1:7860"}


@pytest.mark.parametrize(
    ("host", "own"),
    [
        *((each, True) for each in ("127.0.0.1", "127.0.0.9", "localhost", "::1")),
        *((each, False) for each in ("0.0.0.0", "::", "192.168.1.7", "localhost.example", "")),
    ],
)
def test_one_rule_says_whether_others_are_answered(host, own):
    assert is_own(host) is own
    assert Gate.of(host, 7860, None).numbers is not own


@pytest.mark.parametrize(
    ("host", "port", "wrong", "todo"),
    [
        ("no.such.place.example", 0, "no machine has this name", "host=127.0.0.1"),
        ("nonsense..", 0, "no machine has this name", "host=127.0.0.1"),
        ("192.0.2.1", 0, "no place of this machine", "host=127.0.0.1"),
        ("127.0.0.1", 70000, "no port", "65535"),
        ("127.0.0.1", -1, "no port", "65535"),
    ],
)
def test_advice_is_about_what_was_wrong(host, port, wrong, todo):
    with pytest.raises(UserError, match=wrong) as refused:
        taken(host, port)
    assert todo in str(refused.value) and "takes any" not in str(refused.value)


def test_a_port_that_is_taken_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match="cannot be served there") as refused:
            taken("127.0.0.1", other.getsockname()[1])
    assert "port=0" in str(refused.value)


def test_an_address_can_be_opened():
    with taken("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert address("127.0.0.1", bound) == f"http://127.0.0.1:{port}/"
        assert address("::1", bound) == f"http://[::1]:{port}/"
        assert socket.gethostname() in address("0.0.0.0", bound)
        assert Gate.of("127.0.0.1", port, "a&b=c").invited("http://x/") == "http://x/?token=a%26b%3Dc"


def test_names_and_origins():
    gate = Gate.of("127.0.0.1", 7860, None)
    for host, origin, why in (
        ("localhost:7860", "http://localhost:7860", None),
        ("evil.example:7860", "http://evil.example:7860", STRANGE),
        ("localhost:7860", "http://evil.example", STRANGE),
        ("localhost:7860", "null", STRANGE),  # of a frame that hides where it is from
        ("localhost:7860", "http://[", STRANGE),
        ("[", "http://[", STRANGE),
        ("192.168.1.7:7860", "http://192.168.1.7:7860", STRANGE),
    ):
        assert gate.refused("", {"host": host, "origin": origin}) == why
    wide = Gate.of("0.0.0.0", 7860, None)
    for host, why in (
        (f"{socket.gethostname()}:7860", None),
        ("192.168.1.7:7860", None),
        ("[::1]:7860", None),
        ("evil.example:7860", STRANGE),
    ):
        assert wide.refused("", {"host": host, "origin": f"http://{host}"}) == why


def test_the_token_opens_in_the_address_and_then_by_its_cookie():
    gate = Gate.of("127.0.0.1", 7860, "wörd")
    for wrong in ("", "token=", "token=w", "token=W%C3%B6rd", "Token=w%C3%B6rd", "a" * 9000, "&" * 500):
        assert gate.refused(wrong, HERE) == LOCKED and gate.cookie(wrong) is None
    right = "a=b&token=w%C3%B6rd"
    assert gate.refused(right, HERE) is None
    name, _, value = str(gate.cookie(right)).partition(";")[0].partition("=")
    assert "w" not in value and gate.refused("", {**HERE, "cookie": f'x={{"a"}}; {name}={value}'}) is None
    for wrong in (f"{name}={value[:-1]}", f"other={value}", f"{name}=", name, "ü", f"{name}=wörd"):
        assert gate.refused("", {**HERE, "cookie": wrong}) == LOCKED
    other = Gate.of("127.0.0.1", 7861, "wörd")  # cookies of a machine are shared by its ports
    assert other.refused("", {**HERE, "cookie": f"{name}={value}"}) == LOCKED
    assert gate.refused(right, {**HERE, "origin": "http://evil.example"}) == STRANGE


def test_tokens_are_made_kept_and_switched_off(tmp_path):
    assert token_of(None) is token_of("null") is None
    with pytest.raises(UserError, match="lets everybody in"):
        token_of("")
    assert token_of("word") == "word" == token_of("word", tmp_path / "token")
    made = {token_of("auto") for _ in range(3)}
    assert len(made) == 3 and min(map(len, map(str, made))) > 20
    kept = token_of("auto", tmp_path / "token")
    assert kept == token_of("auto", tmp_path / "token") == (tmp_path / "token").read_text()
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert token_of("auto", tmp_path / "nowhere" / "token")


def test_without_a_token_everybody_is_answered():
    gate = Gate.of("127.0.0.1", 7860, None)
    assert gate.refused("token=x", HERE) is None and gate.cookie("token=None") is None
    assert gate.invited("http://x/") == "http://x/"
