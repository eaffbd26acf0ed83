"""`freemask study`: what the page holds and what it must not, who sees what in which order, which answers count."""

import json
import re
from collections import Counter
from contextlib import suppress

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raters import CLIPS, GOOD, METHODS, answers, hand_in, opinion, run_of, steady, study_of

from experiments.cli import words
from experiments.cli.app import main
from experiments.study.answers import Fault, hear, parse
from experiments.study.drawn import turns
from experiments.study.folder import KEY, SOURCE, Study
from experiments.study.results import results_of

CODES = [f"rater {k}" for k in range(60)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("runs") / "wonderful-run")


@pytest.fixture(scope="module")
def studies(run):
    return {name: study_of(run, name) for name in ("freemask", "fatezero", "paired")}


@pytest.fixture
def empty(studies):
    """The studies, without answers."""
    yield studies
    for study in studies.values():
        for path in study.answers.iterdir():
            path.unlink()


@pytest.mark.parametrize("name", ["freemask", "fatezero", "paired"])
def test_nothing_that_raters_get_tells_who_made_what(studies, name):
    study = studies[name]
    files = [path for path in study.page.rglob("*") if path.is_file()]
    assert sorted(path.relative_to(study.page).as_posix() for path in files) == sorted(study.files)
    for path in files:
        content = path.read_bytes().lower()
        secrets = [*METHODS, *CLIPS, "wonderful", "fate", str(study.folder.parent.name)]
        assert not [word for word in secrets if word.encode() in content], path
        assert path.name == "index.html" or re.fullmatch(r"[0-9a-f]{12}\.(mp4|png)", path.name)
    assert len({path.stat().st_mtime_ns for path in files}) == 1
    for path in study.page.glob("clips/*.mp4"):
        with av.open(str(path)) as video:
            told = {**video.metadata, **video.streams.video[0].metadata}
            assert set(told) <= {"major_brand", "minor_version", "compatible_brands", "encoder"} | {
                "language",
                "handler_name",
                "vendor_id",
            }
    text = (study.page / "index.html").read_text()
    assert not re.search(r"https?://|<script src|<link (?!rel=\"icon\")", text)
    assert "check" not in json.dumps(study.public["items"]).replace("A short check", "").replace(
        "check that", ""
    )
    ids = [each["id"] for item in study.public["items"] for each in [item, *item["entries"]]]
    assert len(set(ids)) == len(ids)


def test_another_study_of_the_same_has_other_ids_and_another_order(run, studies):
    other = study_of(run, "fatezero", "name=other")
    one, two = ([each["text"] for each in study.public["items"]] for study in (studies["fatezero"], other))
    assert not set(other.meant) & set(studies["fatezero"].meant) and sorted(set(one)) == sorted(set(two))


@pytest.mark.parametrize("name", ["freemask", "fatezero", "paired"])
def test_a_rater_sees_the_same_again_and_others_something_else(studies, name):
    public = studies[name].public
    seen = {code: turns(public, code) for code in CODES}
    assert all(turns(json.loads(json.dumps(public)), code) == each for code, each in seen.items())
    assert len({tuple(each) for each in seen.values()}) > (20 if name == "fatezero" else 0.95 * len(CODES))
    for each in seen.values():
        once = [turn for turn in each if not turn.again]
        assert sorted(turn.item for turn in once) == sorted(item["id"] for item in public["items"])
        (again,) = [turn for turn in each if turn.again]
        (first,) = [turn for turn in once if turn.item == again.item]
        assert again.order == tuple(reversed(first.order)) and each.index(first) < each.index(again)


def test_the_page_does_not_show_which_items_are_checks(studies):
    """What an item says is for its rater; nothing else is of another kind in a check, nor in whose edit comes often."""
    for study in studies.values():
        items = study.public["items"]
        checks = [each for each in items if study.meant[each["id"]]["check"]]
        assert checks and {tuple(each) for each in checks} == {tuple(each) for each in items}
        assert {len(each) for each in study.public["stacks"]} == {1}
        files = [one["file"] for each in items for one in each["entries"]]
        assert len(set(files)) == len(files) and not {each["source"] for each in items} & set(files)
        stored = [(study.page / each).read_bytes() for each in study.files]
        assert len(set(stored)) == len(stored)


def test_of_some_items_each_rater_sees_that_many_and_checks_like_the_others(run):
    study = study_of(run, "freemask", "design.each=5", "name=five", "design.unchanged=2")
    stacks, public = study.public["stacks"], study.public
    assert sorted(each for stack in stacks for each in stack) == sorted(
        each["id"] for each in public["items"]
    )
    kinds = [{study.meant[each]["check"] for each in stack} for stack in stacks]
    assert all(len(each) == 1 for each in kinds) and Counter(min(each) for each in kinds) == {
        "": 5,
        "told": 1,
        "unchanged": 2,
    }
    assert {len(each) for each in stacks} == {2, 3}  # twelve edits, of which one sees five
    seen = {code: turns(public, code) for code in CODES}
    for each in seen.values():
        once = {turn.item for turn in each if not turn.again}
        assert len(each) == 9 and [len(once & set(stack)) for stack in stacks] == [1] * 8
    assert len({turn.item for each in seen.values() for turn in each}) == len(public["items"])


def test_answers_to_pages_of_the_first_format_are_still_read():
    """Their pages draw as they always did."""
    items = [
        {"id": f"i{k}", "group": k % 3, "always": k > 6, "entries": [{"id": f"e{k}a"}, {"id": f"e{k}b"}]}
        for k in range(9)
    ]
    public = {"study": "0123456789ab", "each": 4, "repeats": 2, "items": items}
    drawn = [(turn.item, turn.again) for turn in turns(public, "Zoë")]
    assert "".join(f"{item}{'!' * again} " for item, again in drawn) == "i4 i8 i2 i3 i7 i5 i2! i4! "
    assert turns(public, "Zoë")[0].order == ("e4a", "e4b") and turns(public, "Zoë")[-1].order == (
        "e4b",
        "e4a",
    )


def places(study, code):
    """How often each method stands in each place, in what is judged."""
    found = Counter()
    for turn in turns(study.public, code):
        meant = study.meant[turn.item]
        if not turn.again and not meant["check"]:
            found.update((meant["entries"][each], place) for place, each in enumerate(turn.order))
    return found


def test_every_method_stands_as_often_in_every_place(studies):
    """Within each rater's turns: three methods, three sets; two pairs of four tasks each."""
    for code in CODES:
        assert set(places(studies["fatezero"], code).values()) == {1}
        sides = places(studies["paired"], code)
        assert {sides[method, side] for method in ("freemask", "tokenflow") for side in (0, 1)} == {2}
        assert sides["fatezero", 0] == sides["fatezero", 1] == 4


def test_no_item_has_the_same_side_for_all_raters(studies):
    for name in ("fatezero", "paired"):
        left = Counter(
            (turn.item, turn.order[0]) for code in CODES for turn in turns(studies[name].public, code)
        )
        assert len(left) == sum(len(item["entries"]) for item in studies[name].public["items"])


def test_a_clip_does_not_come_twice_in_a_row(studies):
    public = studies["freemask"].public
    group = {each["id"]: each["group"] for each in public["items"]}
    near = 0
    for code in CODES:
        told = [group[turn.item] for turn in turns(public, code) if turn.item in group and not turn.again]
        near += sum(one == two for one, two in zip(told, told[1:], strict=False))
    assert near < 0.1 * len(CODES) * len(group)


# What came


def wrong(change):
    """Answers of a rating, changed."""

    def made(study):
        found = answers(study, "anna")
        return change(found) or found

    return made


BROKEN = {
    "it is no JSON": lambda study: "{half of",
    "no file of answers": lambda study: "[1, 2]",
    "of another study": wrong(lambda found: found.update(study="0" * 12)),
    "has no code": wrong(lambda found: found.update(rater="a/../b")),
    "is not to what this rater was shown": wrong(lambda found: found.update(rater="bert")),
    "answer 2 is not to what": wrong(lambda found: found["answers"][1].update(item="0" * 12)),
    "answer 3 is not to what": wrong(lambda found: found["answers"][2].update(order=["0" * 12])),
    "answer 1: edit cannot be 11": wrong(lambda found: found["answers"][0]["values"].update(edit=11)),
    "answer 1: edit cannot be true": wrong(lambda found: found["answers"][0]["values"].update(edit=True)),
    "answer 1: edit cannot be 5.5": wrong(lambda found: found["answers"][0]["values"].update(edit=5.5)),
    "answer 1: edit cannot be NaN": wrong(
        lambda found: found["answers"][0]["values"].update(edit=float("nan"))
    ),
    "answer 1: it needs edit, image, quality": wrong(
        lambda found: found["answers"][0]["values"].pop("edit") and None
    ),
    "14 of 15 answers are there": wrong(lambda found: found["answers"].pop() and None),
    "answer 1: edit cannot be 1000": wrong(lambda found: found["answers"][0]["values"].update(edit=10**400)),
    "has not agreed to take part": wrong(lambda found: found.update(consent="yes")),
    "it holds no list of answers": wrong(lambda found: found.update(answers={"0": 1})),
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_is_no_answer_of_the_study_is_named_and_does_not_count(empty, said, capsys):
    study = empty["freemask"]
    hand_in(study, BROKEN[said](study), "strange.json")
    hand_in(study, answers(study, "good"))
    heard = hear(study)
    assert [each.rater for each in heard.said] == ["good"]
    ((file, why),) = heard.left_out
    assert file == "strange.json" and said in why
    assert main(["study", "read", str(study.folder)]) == 0
    told = capsys.readouterr()
    assert (
        "strange.json" in told.out and "1 rater said" in told.out and "Traceback" not in told.out + told.err
    )


def test_of_a_rater_who_answers_twice_the_first_counts(empty):
    study = empty["freemask"]
    first = answers(study, "anna", finished="2026-01-01")
    later = answers(study, "anna", opinion(freemask=1), finished="2026-01-02")
    hand_in(study, later, "1.json")
    hand_in(study, first, "2.json")
    hand_in(study, first, "3.json")
    heard = hear(study)
    assert [each.file for each in heard.said] == ["2.json"]
    assert [("other answers" in why, "same answers" in why) for _, why in sorted(heard.left_out)] == [
        (True, False),
        (False, True),
    ]


def test_a_comment_gives_a_terminal_no_orders(empty, capsys):
    study = empty["freemask"]
    hand_in(study, answers(study, "anna") | {"comment": "fine\x1b]0;mine\x07 ü\nnext"})
    assert main(["study", "read", str(study.folder)]) == 0
    assert "comment of anna: fine ]0;mine  ü\nnext" in capsys.readouterr().out


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=5)
    | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_file_is_believed_or_refused(studies, data):
    study = studies[data.draw(st.sampled_from(sorted(studies)))]
    found = answers(study, "anna")
    place = data.draw(st.sampled_from(["top", "answer", "value"]))
    one = data.draw(st.sampled_from(found["answers"]))
    into = {"top": found, "answer": one, "value": one["values"]}[place]
    into[data.draw(st.sampled_from(sorted(into)))] = data.draw(ANY)
    with suppress(Fault):
        said = parse(study, json.dumps(found))
        json.dumps([said.comment, said.finished], ensure_ascii=False).encode()


@pytest.mark.parametrize(("name", "right"), [("fatezero", []), ("paired", None)])
def test_orders_and_choices_are_held_against_what_was_shown(studies, name, right):
    study = studies[name]
    parse(study, json.dumps(answers(study, "anna")))
    for value in (right, ["x"], "x", 3, {}):
        found = answers(study, "anna")
        found["answers"][0]["values"]["edit"] = value
        if name == "paired" and value is None:  # no difference
            assert parse(study, json.dumps(found)).values[0][1]["edit"] is None
            continue
        with pytest.raises(Fault, match="answer 1: edit cannot be"):
            parse(study, json.dumps(found))


def careless(check):
    """Answers well, but for one kind of check."""

    def choose(study, turn, key):
        meant = study.meant[turn.item]
        value = steady(study, turn, key)
        if not (turn.again if check == "again" else meant["check"] == check):
            return value
        if study.design.kind == "rating":
            return 9 if check == "unchanged" else (value + 5) % 11
        if study.design.kind == "ranking":
            return value[::-1]
        return next(each for each in turn.order if each != value)

    return choose


@pytest.mark.parametrize(
    ("name", "check"),
    [
        *(("freemask", check) for check in ("told", "unchanged", "again")),
        *((name, check) for name in ("fatezero", "paired") for check in ("told", "again")),
    ],
)
def test_who_fails_more_checks_than_are_allowed_is_left_out(empty, name, check):
    study = empty[name]
    hand_in(study, answers(study, "careful"))
    hand_in(study, answers(study, "careless", careless(check)))
    assert len(hear(study).said) == 2  # one failure is allowed
    heard = hear(study, allowed=0)
    assert [each.rater for each in heard.said] == ["careful"]
    ((who, why),) = heard.left_out
    assert "careless" in who and "1 checks failed" in why


# What it says


def test_means_differences_and_agreement_of_scores(empty, capsys):
    study = empty["freemask"]
    for k, more in enumerate((0, 1, 0, 1)):
        hand_in(study, answers(study, f"rater {k}", opinion(freemask=8 + more, tokenflow=6)))
    found = results_of(study)
    assert found.raters == 4 and found.means["freemask", "edit"].value == 8.5
    assert found.means["fatezero", "image"].value == GOOD["fatezero"]
    cell = found.means["freemask", "edit"]
    assert (cell.n, cell.people, cell.clips) == (16, 4, 3) and cell.low < 8.5 < cell.high
    apart = {(each.variant, each.column): each for each in found.differences}
    assert len(apart) == 6 and apart["freemask", "edit"].mean == 4.5  # each to the run's reference, fatezero
    assert apart["freemask", "edit"].p_adjusted == min(1, 6 * apart["freemask", "edit"].p)
    assert 0.95 < found.agree["edit"] < 1
    assert main(["study", "read", str(study.folder), "--json", "reference=tokenflow"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["raters"] == [f"rater {k}" for k in range(4)]
    assert {each["variant"] for each in record["differences"]} == {"fatezero", "freemask"}
    for suffix in ("md", "csv", "tex", "html", "json"):
        assert (study.folder / f"results.{suffix}").stat().st_size > 100
    assert "| **freemask** | mean, n=16 | **8.500** |" in (study.folder / "results.md").read_text()


def test_places_and_shares(empty):
    for name, best, worst in (("fatezero", 1, 3), ("paired", 1, 0)):
        study = empty[name]
        for rater in ("a", "b"):
            hand_in(study, answers(study, rater))
        found = results_of(study)
        assert (
            found.means["freemask", "edit"].value == best and found.means["fatezero", "edit"].value == worst
        )
        assert found.agree["edit"] == 1
        assert found.places("edit")["freemask"] == 1
        (one,) = [
            each.mean for each in found.differences if (each.variant, each.column) == ("freemask", "edit")
        ]
        assert one == best - worst


def test_no_difference_counts_half(empty):
    study = empty["paired"]
    hand_in(
        study,
        answers(study, "a", lambda study, turn, key: None if key == "edit" else steady(study, turn, key)),
    )
    found = results_of(study, allowed=9)
    assert {found.means[method, "edit"].value for method in METHODS} == {0.5}


def test_checks_and_repeats_are_no_opinions(empty):
    study = empty["freemask"]
    hand_in(study, answers(study, "a"))
    judged = results_of(study).said
    assert len(judged) == 3 * 4 * 3 and all(SOURCE not in each.values for each in judged)


# The command


def test_a_first_word_says_what_is_done():
    for typed, meant in (
        (["serve", "a"], ["do=serve", "run=a"]),
        (["a"], ["run=a"]),
        (["a", "serve"], ["run=a", "run=serve"]),
    ):
        assert [each.replace("'", "") for each in words.read(["study", *typed]).overrides] == meant


def test_a_study_that_is_there_stays(run, studies, capsys):
    before = (studies["paired"].folder / KEY).read_bytes()
    assert main(["study", str(run), "design=paired"]) == 0
    assert "there already" in capsys.readouterr().out
    assert main(["study", str(run), "design=paired", "design.told=2"]) == 2
    assert "name=NAME" in capsys.readouterr().err
    assert (studies["paired"].folder / KEY).read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["design=fatezero"], "at most 4"),
        (["variants=[fatezero,tokenflo]"], "did you mean 'tokenflow'"),
        (["tasks=[first-tusk]"], "did you mean 'first-task'"),
        (["reference=x"], "there is no 'x'"),
        (["design=paired", "variants=freemask", "name=x"], "too few or too many"),
        (["design.scale=null"], "a scale belongs to ratings"),
        (["design.scale=[0,10,0]"], "no scale"),
        (["design.scale=[1]"], "no scale"),
        (["design.told=-1"], "too small"),
        (["design=freemas"], "did you mean 'freemask'"),
        (["name=../x"], "no folder's name"),
    ],
)
def test_what_cannot_be_made_is_told(run, more, said, capsys):
    assert main(["study", str(run), *more]) == 2
    assert said in capsys.readouterr().err
    assert not list(run.glob("studies/.*"))


def test_where_there_is_no_study_or_several(run, studies, tmp_path, capsys):
    assert main(["study", "read", str(run)]) == 2
    assert "one of: " in capsys.readouterr().err
    (tmp_path / "bare").mkdir()
    assert main(["study", "serve", str(tmp_path / "bare")]) == 2
    assert "no study of this run yet" in capsys.readouterr().err
    for nothing in ([], ["no-such-run"], [str(tmp_path / "bare")]):
        assert main(["study", *nothing]) == 2
        assert "keep=all" in capsys.readouterr().err
    (tmp_path / "bare" / KEY).write_text('{"format": 1}')
    assert main(["study", "read", str(tmp_path / "bare")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_study_is_also_found_by_its_design(run, studies, tmp_path, capsys):
    assert main(["study", "read", str(run), "design=paired"]) == 0
    assert str(studies["paired"].folder) in capsys.readouterr().out
    other = run_of(tmp_path / "other")
    study_of(other, "freemask")
    assert main(["study", "read", str(other), "design=fatezero"]) == 2  # not the only one that is there
    assert "name=freemask" in capsys.readouterr().err


def test_what_cannot_be_read_is_told(run, studies, capsys):
    assert main(["study", "read", str(run), "name=paired", "allowed=-1"]) == 2
    assert "allowed is too small" in capsys.readouterr().err
    assert main(["study", "read", str(run), str(studies["paired"].folder)]) == 2
    assert "one study at a time" in capsys.readouterr().err


def test_several_runs_are_asked_about_together(run, tmp_path):
    other = run_of(tmp_path / "other")
    chosen = f"variants=[{run.name}/freemask,other/freemask]"
    assert (
        main(
            ["study", str(run), str(other), "name=both", "design=paired", chosen, "reference=other/freemask"]
        )
        == 0
    )
    study = Study.read(run / "studies" / "both")
    assert (
        set(study.methods) == {f"{run.name}/freemask", "other/freemask"}
        and study.reference == "other/freemask"
    )
    assert {each["variant"] for each in study.methods.values()} == {"freemask"}
    assert not (other / "studies").exists()


def test_edits_whose_videos_are_gone_are_left_out(tmp_path, capsys):
    run = run_of(tmp_path / "a")
    for kind, ending in (("frames", "npz"), ("videos", "mp4")):
        (run / "tokenflow" / kind / f"first-task.{ending}").unlink()
    assert main(["study", str(run)]) == 0
    assert "1 of 4 tasks are left out" in capsys.readouterr().out
    study = Study.read(run / "studies" / "freemask")
    assert {each["task"] for each in study.meant.values()} == set(CLIPS) - {"first-task"}
