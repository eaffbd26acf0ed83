"""Source prompts that nobody wrote: a tiny BLIP of random weights says them, the same each time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

import freemask
from experiments.cli.app import main
from experiments.config.identity import counted
from experiments.runs.store import RunStore
from freemask.data.audit_davis import audit_davis
from freemask.data.audit_files import audit_files
from freemask.data.blip import Blip
from freemask.data.captions import Captions
from freemask.data.davis import Davis
from freemask.data.files import Files
from freemask.data.frames import FrameRange
from freemask.data.one import OneClip
from freemask.errors import UserError
from freemask.types import Clip

WORDS = ["red", "blue", "car", "grass", "on", "a", "the", "fish", "tree", "runs"]
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


class Says:
    """Says of each picture how bright it is, and which ones it was shown."""

    def __init__(self):
        self.seen = []

    def who(self):
        return "somebody"

    def __call__(self, frame):
        self.seen.append(frame)
        return f"a  picture of {round(float(frame.mean()) * 255)} \n"


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    """As transformers saves it."""
    folder = tmp_path_factory.mktemp("blip")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", *WORDS]))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    images = BlipImageProcessor(size={"height": 16, "width": 16})
    marks = {"bos_token_id": 4, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**SIZES, **marks, "vocab_size": len(tokenizer), "encoder_hidden_size": 16, "projection_dim": 16}
    config = BlipConfig(
        text_config={**text, "max_position_embeddings": 32},
        vision_config={**SIZES, "image_size": 16, "patch_size": 8},
        projection_dim=16,
        image_text_hidden_size=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = BlipForConditionalGeneration(config)
        for (
            name,
            weight,
        ) in network.named_parameters():  # as it is born, it would say the same of every picture
            if name.endswith("weight") and weight.ndim > 1:
                torch.nn.init.normal_(
                    weight, std=0.9 if "crossattention" in name or "patch" in name else 0.15
                )
    network.save_pretrained(folder)
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Two folders of five frames, each brighter than the one before."""
    monkeypatch.chdir(tmp_path)
    for name, start in (("a", 0), ("b", 100)):
        for place in range(5):
            file = Path("clips") / name / f"{place:05}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((24, 32, 3), start + 10 * place, np.uint8)).save(file)
    return Path("clips")


def noise(seed):
    """Of a colour of its own."""
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(3, 24, 32, generator=rng) * torch.rand(3, 1, 1, generator=rng)


def test_blip_says_the_same_each_time_and_not_the_same_of_all(blip):
    says = Blip(blip, shortest=4, longest=8)
    found = [says(noise(seed)) for seed in range(4)]
    assert found == [says(noise(seed)) for seed in range(4)] and len(set(found)) > 1
    assert all(set(each.split()) <= {*WORDS} for each in found)
    assert isinstance(says, Captions) and says.who().startswith(f"BLIP ({blip.name}, ")
    before = torch.get_rng_state()
    says(noise(0))
    assert torch.equal(before, torch.get_rng_state())


def test_without_its_weights_it_says_how_to_get_them(blip, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    for weights in ("nobody/blip", tmp_path / "nothing", tmp_path):
        with pytest.raises(UserError, match=r"BLIP is not here(.|\n)*hf download Salesforce/blip"):
            Blip(weights)(noise(0))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(UserError, match="not BLIP"):
        Blip(tmp_path)(noise(0))
    (tmp_path / "config.json").write_text((blip / "config.json").read_text())
    with pytest.raises(UserError, match="pickled"):
        Blip(tmp_path)(noise(0))
    with pytest.raises(UserError, match="no sentence"):
        Blip(blip, shortest=9, longest=8)


def test_the_frame_in_the_middle_of_those_that_are_taken_is_shown(clips):
    says, edit = Says(), {"source": "auto", "target": "{source} at night"}
    one = OneClip(clips / "b", edit, frames=FrameRange(start=1, count=4), captions=says)
    assert one.task.source == "a picture of 120" and one.task.target == "a picture of 120 at night"
    assert one.task.guessed["source"] == "somebody, of frame 2" and len(says.seen) == 1
    assert says.seen[0].shape == (3, 24, 32)
    with pytest.raises(UserError, match="nobody here looks"):
        OneClip(clips / "b", edit)


def test_lists_are_completed_and_each_clip_is_looked_at_once(clips):
    rows = ["clip,source,target", "a,auto,watercolor painting of {source}", "b,auto,{source} on grass"]
    Path("t.csv").write_text("\n".join([*rows, "a,auto,a red {source}", "b,a car,a bus"]))
    says = Says()
    tasks = Files("clips", "t.csv", captions=says).tasks()
    assert [task.source for task in tasks] == [
        "a picture of 20",
        "a picture of 120",
        "a picture of 20",
        "a car",
    ]
    assert tasks[0].target == "watercolor painting of a picture of 20" and tasks[0].kind == "style"
    assert len(says.seen) == 2 and tasks[0].guessed["source"] == "somebody, of frame 2"
    assert "source" not in tasks[3].guessed
    assert audit_files(Files, {"root": "clips", "tasks": "t.csv", "captions": Says()}).fine
    with pytest.raises(UserError, match=r"line 2: source=auto(.|\n)*line 3(.|\n)*line 4"):
        Files("clips", "t.csv")
    for kind in ("JPEGImages", "Annotations"):
        Path(kind).mkdir()
        Path("clips").rename(f"{kind}/480p") if kind == "JPEGImages" else Path(f"{kind}/480p").mkdir()
    assert audit_davis(".", "t.csv", captions=Says()).tasks[0].source == "a picture of 20"
    assert [each.source for each in Davis(".", "t.csv", captions=Says()).tasks()][0] == "a picture of 20"


def test_what_was_said_counts_and_not_who_said_it(clips):
    data = {"_target_": "freemask.data.files.Files", "root": "clips", "tasks": "t.csv"}
    assert counted({**data, "captions": {"_target_": "freemask.data.blip.Blip", "weights": "x"}}) == counted(
        data
    )


def test_an_edit_by_the_command_and_in_python(blip, clips, capsys):
    quick = ["model=random", "method=ddim", "method.steps=1", "metric=pixels", "size=16", "paths.runs=runs"]
    words = ["captions.shortest=4", "captions.longest=8", "paths.inversions=null", *quick]
    target = "watercolor painting of {source}"
    prompts = ["--source", "auto", "--target", target]
    assert main(["edit", "clips/a", *prompts, f"captions.weights={blip}", *words, "out=e"]) == 0
    (row,) = RunStore(Path("e")).latest().values()
    assert row["source"] and row["target"] == f"watercolor painting of {row['source']}"
    assert row["guessed"]["source"].startswith("BLIP (") and row["kind"] == "style"
    assert f"'{row['source']}', as said by BLIP" in capsys.readouterr().out
    frames = torch.stack([torch.full((3, 24, 32), 10 * place / 255) for place in range(5)])
    more = [f"captions.weights={blip}", *words[:-1]]
    result = freemask.edit(Clip("a", frames), "auto", target, *more, progress=None)
    assert result.task.source == row["source"]
    assert main(["edit", "clips/a", *prompts, *words, "captions.weights=nothing"]) == 2
    assert "BLIP is not here" in capsys.readouterr().err
    Path("t.csv").write_text(f"clip,source,target\na,auto,{target}\n")
    run = ["run", "data=folder", "data.root=clips", "data.tasks=t.csv", f"data.captions.weights={blip}"]
    assert main([*run, *quick[:-2], "data.geometry.short_side=16", "paths.runs=runs", "name=r"]) == 0
    (row,) = RunStore(Path("runs/r")).latest().values()
    assert row["guessed"]["source"].startswith("BLIP (") and row["target"].endswith(row["source"])
