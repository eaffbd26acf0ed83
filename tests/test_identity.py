"""What tells runs apart: every setting that does not say where it is declared that it changes no number."""

import functools
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from experiments.config import choices, identity
from experiments.config.build import build
from experiments.config.compose import config_of, plain
from experiments.config.fingerprint import FORMAT, Identity
from experiments.config.identity import backbone_identity, digest_of, identity_over
from freemask.errors import UserError
from freemask.masks import bookshelf
from freemask.masks.codebook import SHIPPED, Codebook
from freemask.settings import Effect, Spellings
from freemask.types import EditTask

TASK = EditTask("t", "c", "a cat", "a dog", {"cat": "dog"}, "shape", {"region": "/somewhere/mask.png"})
DIGEST = digest_of([TASK])
GROUPS = {"model": "model", "method": "method", "mask": "method.mask", "fusion": "method.fusion"}
GROUPS |= {"metric": "metric", "data": "data"}
OPTIONS = [(group, each.name) for group in GROUPS for each in choices.group(group)]
FREE = (Effect.NONE, Effect.PLACE)


@dataclass(frozen=True)
class Painter:
    """A method whose settings have the names of other methods' neutral ones."""

    features: Any = ()
    device: str = "brush"
    path: str = "straight"
    codebook: str = "of colours"
    folders: Annotated[str, "no effect is said here"] = "x"
    budget_gb: Annotated[int, "gigabytes", Effect.NONE] = 1


def painter(
    paints: Annotated[bool | str, Spellings({True: "on"})] = "on", speed: Annotated[int, Effect.NONE] = 1
):
    return paints, speed


def config(**changes: Any) -> dict[str, Any]:
    base = {
        "method": {"_target_": "freemask.methods.ddim.Ddim", "steps": 10},
        "model": {"_target_": "freemask.backbones.unet3d.UNet3D.random", "device": "cpu", "dtype": "float32"},
        "data": {"_target_": "freemask.data.davis.Davis", "root": "/here", "tasks": "davis20"},
        "metric": {},
        "seed": 0,
    }
    return {
        key: value | changes.get(key, {}) if isinstance(value, dict) else changes.get(key, value)
        for key, value in base.items()
    }


def identity_of(configuration: dict, tasks: list[EditTask]) -> Identity:
    return identity_over(digest_of(tasks), configuration, {})


def hash_of(**changes: Any) -> str:
    return identity_of(config(**changes), [TASK]).hash


@pytest.fixture(scope="module")
def read_once():
    """The identities of a thousand configurations read the same files."""
    with pytest.MonkeyPatch.context() as patch:
        of_folder, of_model = identity.of_folder, bookshelf.find
        read = functools.cache(lambda folder, parts: of_folder(folder, list(parts)))
        find = functools.cache(lambda own, folders, **advice: of_model(own, folders, **advice))
        patch.setattr(identity, "of_folder", lambda folder, parts: read(folder, tuple(parts)))
        patch.setattr(bookshelf, "find", lambda own, folders, **advice: find(own, tuple(folders), **advice))
        yield


# Every option of every group --------------------------------------------------------------------------------------


def leaves(node: Any, free: bool = False, place: tuple = ()) -> Iterator[tuple[tuple, bool]]:
    """The place of each value, and whether its setting says that it does not count."""
    if isinstance(node, dict) and node:
        known = inspect.signature(get_object(node["_target_"])).parameters if "_target_" in node else {}
        for key, value in node.items():
            said = getattr(known[key].annotation, "__metadata__", ()) if key in known else ()
            yield from leaves(value, free or any(each in FREE for each in said), (*place, key))
    else:
        yield place, free


def changed(node: Any, place: tuple, value: Any) -> Any:
    if not place:
        return value
    return node | {place[0]: changed(node[place[0]], place[1:], value)}


def at(node: Any, place: tuple) -> Any:
    return functools.reduce(lambda inner, key: inner[key], place, node)


@pytest.fixture(scope="module")
def other_codebook(tmp_path_factory) -> str:
    book = Codebook.read(next(SHIPPED.glob("*.json")))
    path = tmp_path_factory.mktemp("codebooks") / "other.json"
    replace(book, best_time=book.times[3]).write(path)
    return str(path)


@pytest.mark.parametrize(("group", "name"), OPTIONS, ids=map("=".join, OPTIONS))
def test_a_setting_counts_unless_it_says_that_it_does_not(group, name, other_codebook, read_once):
    method = [] if group in ("method", "mask", "fusion") else ["method=ddim"]
    chosen = config_of("run", [*method, f"{group}={name}"])
    whole: Any = OmegaConf.to_container(chosen, resolve=True)
    start = tuple(GROUPS[group].split("."))
    found = [(start + place, free) for place, free in leaves(at(whole, start))]
    other = {place: other_codebook if place[-1] == "codebook" else ["other"] for place, _ in found}
    configs = [changed(whole, place, other[place]) for place, _ in found]
    before, *after = (identity_over(DIGEST, each, {}) for each in (whole, *configs))
    for (place, free), one in zip(found, after, strict=True):
        assert (one.hash == before.hash) is free, place


# What a setting says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["features", "device", "path", "codebook", "folders"])
def test_a_new_methods_setting_counts_whatever_its_name(setting):
    target = f"{__name__}.Painter"
    one, two = (hash_of(method={"_target_": target, setting: each}) for each in (["all"], ["none"]))
    assert one != two
    free = hash_of(method={"_target_": target, setting: ["all"], "budget_gb": 7})
    assert free == hash_of(method={"_target_": target, setting: ["all"], "budget_gb": 8})


def test_a_plain_function_says_it_too_and_is_built_as_before():
    node = {"_target_": f"{__name__}.painter", "paints": True, "speed": 2}
    assert build(node, "x") == (True, 2)
    with pytest.raises(UserError, match="a whole number"):
        build(node | {"speed": "fast"}, "x")
    one, two, three = (
        identity.counted(node | each) for each in ({"speed": 3}, {"paints": "on"}, {"paints": False})
    )
    assert one == two == {"_target_": node["_target_"], "paints": "on"} != three


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"model": {"device": "cuda"}}, True),
        ({"data": {"root": "/there"}}, True),
        ({"seed": 1}, False),
        ({"method": {"steps": 11}}, False),
        ({"model": {"dtype": "float16"}}, False),
        ({"data": {"resolution": "1080p"}}, False),
        ({"metric": {"x": 1}}, False),
        ({"method": {"inversions": "/there", "inversions_gb": 9}}, True),
        ({"method": {"mask": {"_target_": "m", "threshold": 0.3}}}, False),
        ({"method": {"fusion": {"self": "off"}}}, False),
    ],
)
def test_identity_is_what_changes_a_result(changes, same):
    assert (hash_of() == hash_of(**changes)) is same


def test_a_number_of_frames_that_nobody_asked_for_counts_as_before():
    """Runs that began when the default was 8, strictly, go on."""
    node = {"_target_": "freemask.data.frames.FrameRange", "start": 0}
    auto, few, all_of_them = (identity.counted({**node, "count": count}) for count in ("auto", 8, None))
    assert auto == few != all_of_them


def test_a_mapping_that_makes_nothing_is_looked_up_nowhere(caplog):
    identity._declared.cache_clear()
    assert identity.counted({"a": {"b": 1}}) == {"a": {"b": 1}} and not caplog.text


def test_where_features_are_kept_and_what_measures_them_changes_no_number():
    fusing = {"_target_": "freemask.methods.invert_fuse.InvertFuse"}
    cached = {"features": "cache", "cache_on": "disk", "budget_gb": 1, "heat_gb": 1}
    assert hash_of(method=fusing) == hash_of(method=fusing | cached)
    metric = {"_target_": "evaluation.metrics.clip_text.ClipText"}
    assert hash_of(metric={"x": metric}) == hash_of(metric={"x": metric | {"device": "cuda"}})


def test_identity_sees_what_is_in_a_codebook_but_not_where_it_lies(tmp_path, other_codebook):
    for name in ("here", "there"):
        Codebook.read(next(SHIPPED.glob("*.json"))).write(tmp_path / f"{name}.json")
    paths = [str(tmp_path / "here.json"), str(tmp_path / "there.json"), other_codebook]
    masks = [{"_target_": "freemask.masks.strategies.mmc.Mmc", "codebook": path} for path in paths]
    one, two, three = (hash_of(method={"mask": mask}) for mask in masks)
    assert one == two != three


def test_identity_sees_what_is_in_weights_but_not_where_they_lie(tmp_path):
    for name, content in (("here", "a"), ("there", "a"), ("other", "b")):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "weights").write_text(content)
    target = "freemask.backbones.inflated2d.Inflated2D.load"
    for setting in ("path", "temporal"):
        models = [{"_target_": target, setting: str(tmp_path / name)} for name in ("here", "there", "other")]
        one, two, three = (hash_of(model=model) for model in models)
        assert one == two != three
    hub = {"_target_": target, "path": "owner/name"}
    assert hash_of(model=hub) != hash_of(model=hub | {"path": "owner/other"})


def test_identity_sees_the_task_list_but_not_where_it_lies():
    elsewhere = EditTask(**{**vars(TASK), "assets": {"region": "/elsewhere/mask.png"}})
    other = EditTask(**{**vars(TASK), "target": "a hog"})
    one, two, three = (identity_of(config(), [task]).hash for task in (TASK, elsewhere, other))
    assert one == two != three


@pytest.mark.parametrize(("method", "same"), [("ddim", True), ("freemask", False)])
def test_masks_and_fusion_count_where_the_method_refers_to_them(method, same):
    def identity(*overrides):
        return identity_of(plain(config_of("run", [f"method={method}", *overrides])), [TASK]).hash

    assert (identity("mask=none") == identity("mask=average")) is same
    assert (identity("mask=none", "fusion=self") == identity("mask=none", "fusion=cross")) is same


def test_a_switch_is_the_word_that_it_stands_for():
    def fused(**parts):
        return hash_of(method={"fusion": {"_target_": "freemask.fusion.settings.Fusion", **parts}})

    assert (
        fused(self=True) == fused(self="masked") == fused(self="on") != fused(self=False) == fused(self="off")
    )


def test_a_model_without_files_is_made_once_for_its_identity(monkeypatch):
    made = []
    monkeypatch.setattr(identity, "build", lambda model, key: made.append(model) or Identity({}))
    monkeypatch.setattr(Identity, "identity", "abc", raising=False)
    model = {"_target_": "some.model", "seed": 17}
    assert [backbone_identity(model), backbone_identity(dict(model))] == ["abc", "abc"] and len(made) == 1


def test_files_for_each_clip_count_by_what_is_in_them(tmp_path):
    """And those that ship beside a model do not count by their names."""
    node = {
        "_target_": "freemask.methods.first_frame.FromFile",
        "path": str(tmp_path / "{clip}" / "first.png"),
    }
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "first.png").write_text(name)
    before = identity.counted(node)
    assert identity.counted(node) == before
    (tmp_path / "b" / "first.png").write_text("another")
    assert identity.counted(node) != before
    shipped = config_of("edit", ["model=embedded_image", "model.control=embedded_edges"])
    assert identity.counted(plain(shipped)["model"])["control"].startswith(identity.CONTENT)


def test_the_missing_codebooks_message_names_the_chosen_model(monkeypatch):
    monkeypatch.setattr(identity, "backbone_identity", lambda model: "unknown")
    method = {"mask": {"_target_": "freemask.masks.strategies.mmc.Mmc", "codebook": "auto"}}
    with pytest.raises(UserError) as error:
        identity_over(DIGEST, config(method=method), {"model": "random"})
    assert "freemask calibrate model=random" in error.value.todo


def test_a_record_is_plain_data():
    assert json.loads(json.dumps(identity_of(config(), [TASK]).record()))["format"] == FORMAT
