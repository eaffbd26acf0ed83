"""Bad input of every kind: one clear message that names it, exit code 2, and earlier results as they were."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from experiments.cli.app import main
from freemask.masks.codebook import SHIPPED

SMALL = ["model=random", "metric=pixels", "method=ddim", "method.steps=1", "paths.runs=out"]
WORLD = ["data.size=16", "data.frames=2", "data.clips=2"]
KEPT = ["run", *SMALL, *WORLD, "name=kept"]
EDIT = ["edit", *SMALL, "out=new"]
RUN = ["run", *SMALL, *WORLD, "name=new"]
LIST = ["run", *SMALL, "name=new", "data=folder", "data.root=clips"]
PEXELS = ["run", *SMALL, "name=new", "data=pexels", "data.root=clips"]
MODEL = ["edit", "metric=pixels", "method=ddim", "data.size=16", "out=new"]
FREEMASK = ["edit", "model=random", "metric=pixels", "out=new", "data.size=16", "mask=mmc"]
EVALUATE = ["evaluate", "metric=pixels", "paths.runs=out"]
CALIBRATE = ["calibrate", "model=random", "paths.runs=out"]
PROMPTS = ["source=a cat", "target=a dog"]
TASK = {
    "id": "t",
    "clip": "good.mp4",
    "source": "a cat",
    "target": "a dog",
    "words": "cat->dog",
    "kind": "shape",
}


def text(path: str, content: str | bytes) -> Path:
    made = Path(path)
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_bytes(content if isinstance(content, bytes) else content.encode())
    return made


def tasks(*changes: dict, name: str = "tasks.yaml") -> Path:
    return text(name, json.dumps([TASK | change for change in changes]))  # JSON is YAML


def picture(path: str, size: tuple[int, int] = (24, 16)) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 90, 30)).save(path)


def frames(folder: str, *sizes: tuple[int, int]) -> None:
    for number, size in enumerate(sizes):
        picture(f"{folder}/{number:03d}.png", size)


def half(source: str, path: str) -> None:
    content = Path(source).read_bytes()
    text(path, content[: len(content) // 2])


def codebook(path: str, **changes: object) -> None:
    text(path, json.dumps(json.loads(next(SHIPPED.glob("*.json")).read_text()) | changes))


def checkpoint(folder: str, weights: tuple[str, bytes] | None, **changes: object) -> None:
    """As far as it is read before its weights are."""
    index = {"unet": ["diffusers", "UNet3DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]} | changes
    text(f"{folder}/model_index.json", json.dumps(index))
    text(f"{folder}/scheduler/scheduler_config.json", json.dumps({"_class_name": "DDIMScheduler"}))
    text(f"{folder}/unet/config.json", json.dumps({"_class_name": "UNet3DConditionModel", "sample_size": 8}))
    if weights is not None:
        text(f"{folder}/unet/{weights[0]}", weights[1])


def safetensors() -> bytes:
    head = json.dumps({"conv_in.weight": {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(256)


def record(name: str, content: str) -> None:
    text(f"out/{name}/run.json", content)


def spoilt_rows() -> None:
    shutil.copytree("out/kept", "out/spoilt")
    for path in Path("out/spoilt/rows").iterdir():
        path.write_bytes(b"\xff\xfe not a row\n[1, 2]\n")


def nothing() -> None: ...


SAFE = "diffusion_pytorch_model.safetensors"
PICKLE = "diffusion_pytorch_model.bin"

# name: (command line, what the message must hold, what is laid out before)
Case = tuple[list[str], str, Callable[[], object]]
CASES: dict[str, Case] = {
    # settings
    "steps of zero": ([*RUN, "method.steps=0"], "at least 1", nothing),
    "half a step": ([*RUN, "method.steps=2.5"], "method.steps=2.5", nothing),
    "guidance below zero": ([*RUN, "method.guidance=-1"], "-1", nothing),
    "guidance that is no number": ([*RUN, "method.guidance=high"], "method.guidance='high'", nothing),
    "a strength above one": ([*RUN, "method=sdedit", "method.strength=1.5"], "1.5", nothing),
    "no such option": ([*RUN, "metric=pixel"], "did you mean 'pixels'?", nothing),
    "no such key": ([*RUN, "data.sizes=16"], "data.sizes", nothing),
    "a value that YAML cannot read": ([*RUN, "method.steps={1"], "method.steps={1", nothing),
    "an unknown dtype": ([*MODEL, "model.dtype=float13"], "float13", nothing),
    "a device that is not there": ([*MODEL, "model.device=cuda:77"], "cuda:77", nothing),
    "a class that is not there": ([*RUN, "metric.x._target_=nowhere.Metric"], "metric.x._target_", nothing),
    "a logger's mode": ([*RUN, "logger=wandb", "logger.mode=onlin"], "logger.mode", nothing),
    "previews below zero": ([*RUN, "logger=wandb", "logger.videos=-1"], "logger.videos", nothing),
    "a worker too many": ([*RUN, "runner.workers=2", "runner.worker=2"], "runner.worker=2", nothing),
    "no processes": ([*RUN, "runner=fabric", "runner.processes=0"], "runner.processes", nothing),
    "keep what": ([*RUN, "keep=some"], "keep=some", nothing),
    "retry what": ([*RUN, "retry=done"], "retry=done", nothing),
    # names that lead elsewhere
    "a run above the runs": ([*RUN[:-1], "name=../up"], "name=../up", nothing),
    "a run at the root": ([*RUN[:-1], "name=/up"], "name=/up", nothing),
    "a calibration above": ([*CALIBRATE, "name=a/../../up"], "a/../../up", nothing),
    "a clip above": (
        [*LIST, "data.tasks=up.yaml"],
        "../../etc/passwd",
        lambda: tasks({"clip": "../../etc/passwd"}, name="up.yaml"),
    ),
    "a clip at the root": (
        [*LIST, "data.tasks=root.yaml"],
        "/etc/passwd",
        lambda: tasks({"clip": "/etc/passwd"}, name="root.yaml"),
    ),
    "a task above": ([*LIST, "data.tasks=id.yaml"], "../t", lambda: tasks({"id": "../t"}, name="id.yaml")),
    "a region above": (
        [*LIST, "data.tasks=region.yaml"],
        "../x.png",
        lambda: tasks({"region": "../x.png"}, name="region.yaml"),
    ),
    "a method above": (
        [*EVALUATE, "manifest=up.csv"],
        "../up",
        lambda: text("up.csv", "edited,method,task\nclips/good.mp4,../up,t\n"),
    ),
    # variants and experiments
    "variants that are no list": ([*RUN, "variants=ten"], "variants cannot be read", nothing),
    "a variant with a folder's name": ([*RUN, "variants={'../x':['method=ddim']}"], "../x", nothing),
    "a variant that changes the data": ([*RUN, "variants={x:['data.seed=1']}"], "changes data", nothing),
    "a variant that cannot be": ([*RUN, "variants={x:['method=dim']}"], "variant 'x'", nothing),
    "a reference that is none": ([*RUN, "variants={x:['seed=1']}", "reference=y"], "reference=y", nothing),
    "only what is not there": (
        [*RUN, "variants={x:['seed=1']}", "only=[y]"],
        "there is no variant 'y'",
        nothing,
    ),
    "a reference without variants": ([*RUN, "reference=x"], "reference=x", nothing),
    "an experiment that is none": ([*RUN, "experiment=freemask/tabel2"], "freemask/table2", nothing),
    "an experiment of another verb": ([*RUN, "experiment=freemask/fig1"], "freemask calibrate", nothing),
    # task lists and manifests
    "no list": ([*LIST, "data.tasks=nowhere.yaml"], "nowhere.yaml", nothing),
    "no root": ([*LIST[:-1], "data.root=nowhere", "data.tasks=x.yaml"], "nowhere", nothing),
    "a list of another kind": ([*LIST, "data.tasks=list.txt"], "list.txt", lambda: text("list.txt", "x")),
    "a list that is not YAML": (
        [*LIST, "data.tasks=bad.yaml"],
        "line 2",
        lambda: text("bad.yaml", "- id: a\n\tclip: b\n"),
    ),
    "a list in UTF-16": (
        [*LIST, "data.tasks=wide.yaml"],
        "UTF-16",
        lambda: text("wide.yaml", "- id: a".encode("utf-16")),
    ),
    "a list of nothing": ([*LIST, "data.tasks=empty.yaml"], "empty.yaml", lambda: text("empty.yaml", "")),
    "two tasks of one name": (
        [*LIST, "data.tasks=twice.yaml"],
        "twice.yaml",
        lambda: tasks({}, {}, name="twice.yaml"),
    ),
    "an unknown field": (
        [*LIST, "data.tasks=field.yaml"],
        "did you mean 'source'?",
        lambda: tasks({"sorce": "x"}, name="field.yaml"),
    ),
    "an unknown kind": (
        [*LIST, "data.tasks=kind.yaml"],
        "did you mean 'shape'?",
        lambda: tasks({"kind": "shap"}, name="kind.yaml"),
    ),
    "a word that is not there": (
        [*LIST, "data.tasks=word.yaml"],
        "'cow' is not in the source",
        lambda: tasks({"words": "cow->dog"}, name="word.yaml"),
    ),
    "a list without prompts": (
        [*LIST, "data.tasks=bare.csv"],
        "no column source",
        lambda: text("bare.csv", "id,clip,kind\nt,good.mp4,style\n"),
    ),
    "a comma too many": (
        [*LIST, "data.tasks=comma.csv"],
        "line 2",
        lambda: text("comma.csv", "id,clip,source,target,kind\nt,c,a cat,a dog,style,x\n"),
    ),
    "no manifest": ([*PEXELS], "manifest.yaml", nothing),
    "a manifest of pictures": (
        [*PEXELS, "data.manifest=still.yaml"],
        "one.png",
        lambda: text(
            "still.yaml",
            json.dumps(
                [{"file": "one.png", **{key: TASK[key] for key in ("source", "target", "words", "kind")}}]
            ),
        ),
    ),
    "a manifest of absent videos": (
        [*EVALUATE, "manifest=lost.csv"],
        "lost.mp4",
        lambda: text("lost.csv", "edited,method,task\nlost.mp4,m,t\n"),
    ),
    "a manifest of unknown tasks": (
        [*EVALUATE, "manifest=task.csv"],
        "no-such-task",
        lambda: text("task.csv", "edited,method,task\nclips/good.mp4,m,no-such-task\n"),
    ),
    "a manifest that is a folder": ([*EVALUATE, "manifest=clips"], "clips", nothing),
    "neither run nor manifest": ([*EVALUATE], "neither a run nor a manifest", nothing),
    # videos, pictures and masks
    "a clip that is not there": ([*EDIT, "clip=nowhere.mp4", *PROMPTS], "nowhere.mp4", nothing),
    "a video that is text": (
        [*EDIT, "clip=text.mp4", *PROMPTS],
        "text.mp4",
        lambda: text("text.mp4", "no video"),
    ),
    "a video of no bytes": ([*EDIT, "clip=empty.mp4", *PROMPTS], "empty.mp4", lambda: text("empty.mp4", b"")),
    "half a video": (
        [*EDIT, "clip=half.mp4", *PROMPTS],
        "half.mp4",
        lambda: half("clips/good.mp4", "half.mp4"),
    ),
    "half a picture": ([*EDIT, "clip=half.png", *PROMPTS], "half.png", lambda: half("one.png", "half.png")),
    "a folder without frames": ([*EDIT, "clip=bare", *PROMPTS], "bare", lambda: Path("bare").mkdir()),
    "frames of two sizes": (
        [*EDIT, "clip=sizes", *PROMPTS],
        "001.png",
        lambda: frames("sizes", (24, 16), (16, 24)),
    ),
    "frames beside a film": (
        [*EDIT, "clip=mixed", *PROMPTS],
        "x.mp4",
        lambda: (frames("mixed", (24, 16)), text("mixed/x.mp4", "x")),
    ),
    "a file of another kind": ([*EDIT, "clip=song.mp3", *PROMPTS], "song.mp3", lambda: text("song.mp3", "x")),
    "a start after the end": ([*EDIT, "clip=clips/good.mp4", *PROMPTS, "start=99"], "good.mp4", nothing),
    "a prompt is lacking": (
        [*EDIT, "clip=clips/good.mp4", "source=a cat"],
        "target prompt is needed",
        nothing,
    ),
    "words of no prompt": ([*EDIT, "clip=clips/good.mp4", *PROMPTS, "words=cow:dog"], "'cow'", nothing),
    # codebooks
    "no such codebook": ([*FREEMASK, "mask.codebook=nowhere.json"], "nowhere.json", nothing),
    "a codebook that is none": (
        [*FREEMASK, "mask.codebook=list.json"],
        "list.json",
        lambda: text("list.json", "[1]"),
    ),
    "half a codebook": (
        [*FREEMASK, "mask.codebook=half.json"],
        "half.json",
        lambda: half(str(next(SHIPPED.glob("*.json"))), "half.json"),
    ),
    "a codebook of tomorrow": (
        [*FREEMASK, "mask.codebook=new.json"],
        "version 99",
        lambda: codebook("new.json", version=99),
    ),
    "a codebook that lacks times": (
        [*FREEMASK, "mask.codebook=times.json"],
        "times.json",
        lambda: codebook("times.json", times=[1]),
    ),
    "a codebook of another model": (
        [*FREEMASK, "mask.codebook=other.json"],
        "other.json",
        lambda: codebook("other.json"),
    ),
    # checkpoints
    "no such checkpoint": ([*MODEL, "model.path=/nowhere/at/all"], "/nowhere/at/all", nothing),
    "a folder that is no checkpoint": ([*MODEL, "model.path=clips"], "model_index.json", nothing),
    "an index that is not JSON": (
        [*MODEL, "model.path=torn"],
        "torn/model_index.json",
        lambda: text("torn/model_index.json", '{"unet": ['),
    ),
    "an index that is a list": (
        [*MODEL, "model.path=listed"],
        "listed",
        lambda: text("listed/model_index.json", "[]"),
    ),
    "a checkpoint without a network": (
        [*MODEL, "model.path=lacking"],
        "lacks its 'unet'",
        lambda: checkpoint("lacking", None, unet=None),
    ),
    "a network of another kind": (
        [*MODEL, "model.path=flat"],
        "UNet2DConditionModel",
        lambda: checkpoint("flat", None, unet=["diffusers", "UNet2DConditionModel"]),
    ),
    "no weights": ([*MODEL, "model.path=empty"], "empty/unet", lambda: checkpoint("empty", None)),
    "pickled weights": (
        [*MODEL, "model.path=pickled"],
        "allow_pickle=true",
        lambda: checkpoint("pickled", (PICKLE, b"\x80\x04.")),
    ),
    "half a safetensors file": (
        [*MODEL, "model.path=cut"],
        "cut/unet",
        lambda: checkpoint("cut", (SAFE, safetensors()[:150])),
    ),
    "weights of another network": (
        [*MODEL, "model.path=strange"],
        "strange/unet",
        lambda: checkpoint("strange", (SAFE, safetensors())),
    ),
    # run records, rows and plans
    "another configuration": ([*KEPT, "method.steps=2"], "method.steps: 1 there, 2 here", nothing),
    "another task list": (
        [*KEPT, "data.clips=1"],
        "out/kept holds a run with another configuration",
        nothing,
    ),
    "variants over those of an experiment": (
        ["run", "experiment=demo", "name=new", "variants={x: ['seed=1']}"],
        "+variants.NAME",
        nothing,
    ),
    "variants in a plain run": ([*KEPT, "variants={x:['seed=1']}"], "out/kept", nothing),
    "a record that is torn": (
        [*RUN[:-1], "name=torn"],
        "out/torn/run.json",
        lambda: record("torn", '{"identity": "x", "par'),
    ),
    "a record of something else": (
        [*RUN[:-1], "name=list"],
        "out/list/run.json",
        lambda: record("list", "[]"),
    ),
    "a file where the run goes": ([*RUN[:-1], "name=file"], "out/file", lambda: text("out/file", "")),
    "a file where the runs go": ([*RUN, "paths.runs=one.png"], "one.png", nothing),
    "rows that are a file": ([*RUN[:-1], "name=flat"], "out/flat", lambda: text("out/flat/rows", "")),
    "a report of nothing": (["report", "paths.runs=out", "nowhere"], "nowhere", nothing),
    "a report of spoilt rows": (["report", "paths.runs=out", "spoilt"], "spoilt", spoilt_rows),
    "a report of other variants": (["report", "paths.runs=out", "kept", "variants=[x]"], "x", nothing),
    "numbers of a run that is not there": ([*EVALUATE, "run=nowhere"], "nowhere", nothing),
    "an unknown table": (["table", "paths.runs=out", "freemask/9"], "freemask/9", nothing),
    "a table of no run": (["table", "paths.runs=out", "freemask/2", "runs=[nowhere]"], "nowhere", nothing),
    "an unknown figure": (["figure", "paths.runs=out", "freemask/99"], "freemask/99", nothing),
    "the state of nothing": (["status", "nowhere", "paths.runs=out"], "nowhere", nothing),
    # data roots
    "DAVIS without DAVIS": (["run", *SMALL, "name=new", "data=davis", "data.root=clips"], "clips", nothing),
    "TGVE without its sheet": (["run", *SMALL, "name=new", "data=tgve", "data.root=clips"], "clips", nothing),
    "FiVE without its lists": (["run", *SMALL, "name=new", "data=five", "data.root=clips"], "clips", nothing),
    "a world of no clips": ([*RUN, "data.clips=0"], "0", nothing),
}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A finished run, a good clip, a good picture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("bad"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        assert main(KEPT) == 0
        Path("clips").mkdir()
        picture("one.png")
        shutil.copy(next(Path("out/kept/videos").glob("*.mp4")), "clips/good.mp4")
        yield


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path("out/kept").rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_one_clear_message_and_harms_nothing(name, capsys):
    words, hint, prepare = CASES[name]
    prepare()
    before = everything()
    code = main(words)
    said = capsys.readouterr()
    assert code == 2, said.err
    assert hint in said.err
    assert said.err.count("freemask: ") == 1 and "Traceback" not in said.err + said.out
    assert len(said.err.splitlines()) < 20
    assert everything() == before
    assert not Path("new/edited.mp4").exists() and not list(Path().glob("out/new/rows/*"))


def test_there_are_enough_cases():
    assert len(CASES) >= 60
