"""Metrics: mathematics against independent versions, then contracts for every YAML in conf/metric."""

import json
import math
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from evaluation import ops
from evaluation.backbones import clip, perceptual, weights
from evaluation.case import Case, region_from_masks
from evaluation.metric import Column, Metric, MetricWarning
from evaluation.metrics.clip_frame import ClipFrame
from evaluation.metrics.clip_text import ClipText
from evaluation.metrics.lpips import Lpips
from evaluation.metrics.masked_psnr import MaskedPsnr
from evaluation.metrics.oracle_psnr import OraclePsnr
from evaluation.metrics.q_edit import QEdit
from evaluation.metrics.source_psnr import SourcePsnr
from evaluation.metrics.warp_error import WarpError
from evaluation.suite import Suite
from freemask.errors import UserError
from freemask.types import EditTask, LocalEdit

CONF = Path(__file__).parents[1] / "conf" / "metric"
YAMLS = sorted(CONF.glob("*.yaml"))
SINGLE = [path for path in YAMLS if "_target_" in path.read_text(encoding="utf-8")]
TEXT = "a red blue car fish cat dog moving left right up on over grass sand snow of , . the"
TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
EDITS = replace(TASK, edits=(LocalEdit(TASK.words, TASK.kind),))


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(frames=3, height=40, width=56, seed=0):
    """A clip that looks a little like a picture: large blobs, slightly moving."""
    coarse = noise(1, 3, 5, 7, seed=seed)
    sizes = [(height, width + f) for f in range(frames)]
    grown = [torch.nn.functional.interpolate(coarse, size, mode="bicubic") for size in sizes]
    return torch.cat([frame[..., f:] for f, frame in enumerate(grown)]).clamp(0, 1)


def a_case(amount=0.0, frames=3, height=40, width=56, task=EDITS):
    source = smooth(frames, height, width)
    edited = (source + amount * (noise(*source.shape, seed=1) - 0.5)).clamp(0, 1)
    region = torch.zeros(frames, height, width, dtype=torch.bool)
    region[:, 10:20, 10:30] = True
    still = torch.zeros(frames - 1, 2, height, width), torch.ones(frames - 1, height, width, dtype=torch.bool)
    first = region.clone()  # of the car a half, so that there is another that stays
    first[..., 20:] = False
    known = {
        "regions": [first] * len(task.edits),
        "oracle": source,
        "region": region,
        "masks": {"car": region},
        "mask": region.float(),
        "flow": still,
    }
    return Case(source, edited, task, **known)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """A random open_clip directory as the project ships one: config, safetensors, its own tokenizer files."""
    import open_clip
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    vocabulary = {
        word: number for number, word in enumerate(["<pad>", "<unk>", *TEXT.split(), "<bos>", "<eos>"])
    }
    text = {"context_length": 16, "vocab_size": len(vocabulary), "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16, "patch_size": None}
    model_cfg = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": {**text, "hf_tokenizer_name": "."}}
    preprocess = {"size": 64, "mode": "RGB", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    preprocess |= {"interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(embed_dim=24, vision_cfg=dict(vision), text_cfg=dict(text))
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    save_file(
        {name: value.contiguous() for name, value in state.items()}, folder / "open_clip_model.safetensors"
    )
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<bos>", vocabulary["<bos>"]), ("<eos>", vocabulary["<eos>"])]
    words.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)
    return folder


def build(path: Path, tiny_clip: Path) -> Metric:
    """The metric of a YAML, on networks that are always there."""
    config = OmegaConf.load(path)
    if "clip" in path.stem or path.stem in ("frame_accuracy", "q_edit"):
        config = OmegaConf.merge(config, {"backbone": "embedded", "weights": str(tiny_clip), "device": "cpu"})
    elif path.stem == "lpips":
        config = OmegaConf.merge(config, {"backbone": "random-alex", "device": "cpu"})
    return instantiate(config)


# --- mathematics ---------------------------------------------------------------------------------------


def test_psnr_is_the_textbook_formula():
    a, b = noise(2, 3, 5, 7), noise(2, 3, 5, 7, seed=1)
    for frame, value in enumerate(ops.psnr(a, b).tolist()):
        pairs = zip(a[frame].flatten().tolist(), b[frame].flatten().tolist(), strict=True)
        mse = sum((x - y) ** 2 for x, y in pairs) / (3 * 5 * 7)
        assert value == pytest.approx(10 * math.log10(1 / mse), abs=1e-6)
    assert ops.psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.1)).item() == pytest.approx(
        20, abs=1e-4
    )
    assert ops.psnr(a, a).tolist() == [ops.PSNR_CAP] * 2


def test_masked_psnr_drops_pixels_and_frames():
    a, b = noise(3, 3, 4, 5), noise(3, 3, 4, 5, seed=1)
    where = torch.zeros(3, 4, 5, dtype=torch.bool)
    where[0, 1, 2] = where[0, 3, 4] = where[2, 0, 0] = True
    total, pixels = ops.squares_where(a, b, where)
    every = []
    for k, (frame, places) in enumerate([(0, [(1, 2), (3, 4)]), (2, [(0, 0)])]):
        errors = [(a[frame, c, y, x] - b[frame, c, y, x]).item() ** 2 for c in range(3) for y, x in places]
        every += errors
        assert float(total[k] / pixels[k]) == pytest.approx(sum(errors) / len(errors), abs=1e-7)
    assert ops.psnr_pooled(total, pixels) == pytest.approx(-10 * math.log10(sum(every) / 9), abs=1e-5)
    assert len(ops.squares_where(a, b, where, least=0.09)[1]) == 1


def test_ruined_frames_are_not_made_up_for_by_untouched_ones():
    """Half the frames ruined is worse than light noise everywhere."""
    source = torch.full((10, 3, 8, 8), 0.5)
    ruined, noisy = source.clone(), source + 0.01
    ruined[:5] += 0.3
    outside = torch.zeros(10, 8, 8, dtype=torch.bool)
    found = [Case(source, edited, TASK, region=outside, oracle=source) for edited in (ruined, noisy)]
    for metric in (MaskedPsnr(), OraclePsnr()):
        low, high = (next(iter(metric(each).values())) for each in found)
        assert low == pytest.approx(-10 * math.log10(0.3**2 / 2), abs=0.1) and low < 15 < 39 < high
    low, high = (MaskedPsnr(per_frame=True)(each)["masked_psnr[per_frame]"] for each in found)
    assert low > 50 > high  # what the mean of the frames' numbers says


def test_dilation_and_cosine_written_out():
    mask = torch.zeros(1, 5, 6, dtype=torch.bool)
    mask[0, 0, 2] = True
    grown = ops.dilate(mask, 1)[0]
    assert {(y, x) for y, x in grown.nonzero().tolist()} == {(y, x) for y in (0, 1) for x in (1, 2, 3)}
    a, b = noise(4, 9), noise(4, 9, seed=1)
    torch.testing.assert_close(ops.cosine(a, b).float(), torch.cosine_similarity(a, b))


def test_rounding_to_eight_bits():
    frames = noise(2, 3, 8, 8)
    stored = (frames * 255).round().to(torch.uint8)
    assert torch.equal(ops.round8(frames), stored.float() / 255)
    assert torch.equal(ops.round8(ops.round8(frames)), ops.round8(frames))


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_equals_the_lpips_package(net):
    """Same (random) trunk in both: heads, scaling, normalisation and averaging must agree."""
    import lpips

    trunk = perceptual.randomise({"alex": perceptual.alex, "vgg": perceptual.vgg}[net](), seed=3).eval()
    theirs = lpips.LPIPS.__new__(lpips.LPIPS)
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        lpips.LPIPS.__init__(theirs, net=net, pnet_rand=True, pretrained=False, verbose=False)
    slices = [getattr(theirs.net, f"slice{n}") for n in range(1, 6)]
    state = {f"net.slice{n + 1}.{i}.{kind}": trunk.state_dict()[f"features.{i}.{kind}"]
             for n, part in enumerate(slices) for i, layer in part.named_children()
             for kind in ("weight", "bias") if hasattr(layer, kind)}  # fmt: skip
    heads = perceptual.read_heads(net)
    state |= {f"lin{n}.model.1.weight": head[None, :, None, None] for n, head in enumerate(heads)}
    state |= {f"lins.{n}.model.1.weight": head[None, :, None, None] for n, head in enumerate(heads)}
    theirs.load_state_dict(state, strict=False, assign=True)
    theirs.scaling_layer = lpips.ScalingLayer()
    a, b = noise(2, 3, 64, 80), noise(2, 3, 64, 80, seed=1)
    ours = perceptual.Perceptual(net, trunk, heads)
    with torch.inference_mode():
        expected = theirs(a, b, normalize=True).flatten()
        torch.testing.assert_close(ours(a, b).float(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 56), (200, 130), (97, 301)])
def test_preprocessing_equals_open_clips(tiny_clip, height, width):
    """On tensors as on pictures, to one step of 8 bits: the picture library rounds between its passes."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    model = clip.load(clip.resolve("embedded", str(tiny_clip)), "cpu")
    theirs = image_transform_v2(PreprocessCfg(**model.model.visual.preprocess_cfg), is_train=False)
    frames = ops.round8(smooth(1, height, width))
    picture = Image.fromarray((frames[0] * 255).round().byte().permute(1, 2, 0).numpy())
    step = 1 / 255 / 0.5
    torch.testing.assert_close(model.prepared(frames)[0], theirs(picture), rtol=0, atol=1.6 * step)


# --- the door ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edited", "says"),
    [
        (smooth() * 255, "0..1"),
        (smooth() * 2 - 1, "0..1"),
        (smooth().masked_fill(smooth() > 0.5, float("nan")), "finite"),
        ((smooth() * 255).byte(), "divide by 255"),
        (smooth(2), "3 frames of 56x40"),
        (smooth(3, 56, 40), "3 frames of 56x40"),
        (smooth()[:, :1], "frames, 3, height, width"),
        (smooth()[:0], "frames, 3, height, width"),
    ],
)
def test_bad_frames_are_refused(edited, says):
    with pytest.raises(UserError, match=says):
        Case(smooth(), edited, TASK)


def test_bad_oracle_region_and_masks_are_refused():
    with pytest.raises(UserError, match="oracle"):
        Case(smooth(), smooth(), TASK, oracle=smooth(2))
    with pytest.raises(UserError, match="region"):
        Case(smooth(), smooth(), TASK, region=torch.ones(3, 4, 4, dtype=torch.bool))
    nowhere = torch.full((2, 2, 40, 56), math.nan), torch.ones(2, 40, 56, dtype=torch.bool)
    with pytest.raises(UserError, match="flow"):
        Case(smooth(), smooth(), TASK, flow=nowhere)
    with pytest.raises(UserError, match="mask 'car'"):
        Case(smooth(), smooth(), TASK, masks={"car": torch.ones(2, 40, 56, dtype=torch.bool)})


def test_a_case_measures_what_is_stored():
    case = a_case(0.3)
    assert torch.equal(case.edited, ops.round8(case.edited))


def test_region_from_annotations():
    masks = {name: noise(2, 4, 5, seed=n) > 0.5 for n, name in enumerate(("car", "dog"))}
    named = region_from_masks(EditTask("t", "c", "a car", "a cat", {"car": "cat"}, "shape"), masks)
    assert named is not None and torch.equal(named, masks["car"])
    described = region_from_masks(
        EditTask("t", "c", "a red dog", "a blue dog", {"red": "blue"}, "attribute"), masks
    )
    assert described is not None and torch.equal(described, masks["dog"])
    assert region_from_masks(EditTask("t", "c", "a bear", "a cat", {"bear": "cat"}, "shape"), masks) is None
    both = EditTask("t", "c", "a red car and a dog", "a red van and a dog", {"red car": "red van"}, "shape")
    phrase = region_from_masks(both, masks)
    assert phrase is not None and torch.equal(phrase, masks["car"])
    assert region_from_masks(EditTask("t", "c", "a car", "art of a car", {}, "style"), masks) is None


# --- contracts, for every YAML -------------------------------------------------------------------------


def test_every_yaml_says_what_it_is():
    assert {path.stem for path in SINGLE} >= {
        "clip_text",
        "clip_frame",
        "masked_psnr",
        "lpips",
        "oracle_psnr",
    }
    for path in YAMLS:
        assert path.read_text(encoding="utf-8").startswith("# description: "), path.name


@pytest.mark.parametrize("path", SINGLE, ids=lambda path: path.stem)
def test_contract(path, tiny_clip):
    metric = build(path, tiny_clip)
    assert isinstance(metric, Metric)
    assert all(isinstance(column, Column) and column.description for column in metric.columns)
    found = metric(a_case(0.2))
    assert set(found) == {column.name for column in metric.columns}
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())
    assert metric(a_case(0.2)) == found


# These compare with words or masks, not with frames: see test_clip_text_prefers_the_right_words,
# test_metrics_fatezero.py, test_metrics_flow.py, test_metrics_regions.py.
WORDS = ("clip_text", "frame_accuracy", "object_seen", "edits_seen", "q_edit", "mask_iou")


@pytest.mark.parametrize("path", [p for p in SINGLE if p.stem not in WORDS], ids=lambda path: path.stem)
def test_identical_clips_are_best_and_noise_makes_it_worse(path, tiny_clip):
    metric = build(path, tiny_clip)
    values = [metric(a_case(amount)) for amount in (0.0, 0.15, 0.5, 1.0)]
    for column in metric.columns:
        if column.higher_is_better is None:  # neither way is better
            continue
        series = [value[column.name] for value in values]
        assert series == sorted(series, reverse=bool(column.higher_is_better)), column.name
        assert series[0] != series[-1]


def test_best_values():
    case = a_case()
    assert MaskedPsnr()(case) == {"masked_psnr": 100.0}
    assert set(OraclePsnr()(case).values()) == {100.0}
    assert Lpips("random-alex", device="cpu")(case) == {"lpips[random-alex]": 0.0}


@pytest.mark.parametrize("path", SINGLE, ids=lambda path: path.stem)
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 64, 64), (2, 33, 91), (1, 72, 40)])
def test_any_size_and_a_single_frame(path, tiny_clip, frames, height, width):
    metric = build(path, tiny_clip)
    found = metric(a_case(0.2, frames, height, width))
    if isinstance(metric, ClipFrame | WarpError | QEdit) and frames == 1:
        assert found == {}
    else:
        assert set(found) == {column.name for column in metric.columns}


def test_what_does_not_apply_is_left_out():
    case = Case(smooth(), smooth(), TASK)
    assert MaskedPsnr()(case) == {} and OraclePsnr()(case) == {}
    everything = torch.ones(3, 40, 56, dtype=torch.bool)
    assert MaskedPsnr()(Case(smooth(), smooth(), TASK, region=everything)) == {}
    found = OraclePsnr()(Case(smooth(), smooth(), TASK, oracle=smooth(), region=everything))
    assert set(found) == {"oracle_psnr", "oracle_psnr.inside"}


# --- CLIP and its weights ------------------------------------------------------------------------------


def test_column_names_carry_the_backbone(tiny_clip, monkeypatch):
    label = ClipText("embedded", str(tiny_clip)).columns[0].name
    assert label.startswith("clip_text[embedded:") and label != "clip_text[embedded]"
    monkeypatch.setattr(clip, "present", lambda name: False)
    monkeypatch.setattr(perceptual, "present", lambda name: False)
    assert Lpips().columns[0].name == "lpips[random-alex]"
    monkeypatch.setattr(clip, "find", lambda name, path: weights.Found(name, name, tiny_clip))
    assert ClipFrame().columns[0].name == "clip_frame[embedded]"
    monkeypatch.setattr(clip, "present", lambda name: True)
    assert ClipFrame().columns[0].name == "clip_frame[vit_b_32]"


def test_clip_features_are_unit_and_cached(tiny_clip):
    model = clip.load(clip.resolve("embedded", str(tiny_clip)), "cpu")
    assert clip.load(clip.resolve("embedded", str(tiny_clip)), "cpu") is model
    frames = smooth(40)
    features = model.images(frames)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(40))
    torch.testing.assert_close(model.images(frames[:1]), features[:1], rtol=1e-4, atol=1e-5)


def test_long_prompts_are_cut_and_flagged(tiny_clip):
    model = clip.load(clip.resolve("embedded", str(tiny_clip)), "cpu")
    assert not model.truncates("a red car " * 4 + "on grass")  # 14 words and two ends: exactly 16
    assert model.truncates("a red car " * 4 + "on the grass")
    long = EditTask("t", "c", "a car", "a red car " * 20, {}, "style")
    with pytest.warns(MetricWarning, match="only the beginning"):
        ClipText("embedded", str(tiny_clip), "cpu")(a_case(task=long))
    measured = Suite({"clip": ClipText("embedded", str(tiny_clip), "cpu")})(a_case(task=long))
    assert len(measured.warnings) == 1 and "only the beginning" in measured.warnings[0]
    begun = EditTask(
        "t", "c", "a car", " ".join(["a red car"] * 4 + ["a red"]), {}, "style"
    )  # all that it reads
    whole = Suite({"clip": ClipText("embedded", str(tiny_clip), "cpu")})(a_case(task=begun))
    assert whole.metrics == measured.metrics and whole.warnings == ()


def test_the_standard_tokenizer_flags_long_prompts_too():
    from open_clip import SimpleTokenizer

    model = clip.Clip("x", None, SimpleTokenizer(), torch.device("cpu"))
    assert not model.truncates("car " * 75) and model.truncates("car " * 76)


def test_openai_files_are_read(tmp_path):
    """A scripted archive as OpenAI published them, of a tiny model of the same layout."""
    import open_clip

    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 8, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "freemask-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "freemask-tiny.json")
    theirs = open_clip.create_model("freemask-tiny").eval()

    class Archive(torch.nn.Module):
        pass

    archive = Archive()
    for name, value in theirs.state_dict().items():
        node = archive
        *parents, leaf = name.split(".")
        for parent in parents:
            if parent not in dict(node.named_children()):
                node.add_module(parent, Archive())
            node = getattr(node, parent)
        node.register_buffer(leaf, value)
    archive.register_buffer("context_length", torch.tensor(77))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(archive), str(tmp_path / "tiny.pt"))
    model, _ = clip._from_file("freemask-tiny", tmp_path / "tiny.pt")
    frames = noise(1, 3, 32, 32)
    torch.testing.assert_close(model.eval().encode_image(frames), theirs.encode_image(frames))


@pytest.mark.parametrize("name", ["vit_b_32", "vit_l_14", "alex", "vgg"])
def test_missing_weights_say_how_to_get_them(name, monkeypatch):
    monkeypatch.setitem(weights.KNOWN, name, weights.Weights(name, lambda: None, "MIT", "fetch it"))
    with pytest.raises(UserError, match="(?s)not on this machine.*MIT.*fetch it"):
        (ClipText if name.startswith("vit") else Lpips)(name)
    with pytest.raises(UserError, match="not on this machine"):
        weights.find(name, "/nowhere/file.pt")


def test_unreadable_weights_and_unknown_backbones(tmp_path, tiny_clip):
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        clip.load(clip.resolve("embedded", str(tmp_path)), "cpu")
    (tmp_path / "alex.pth").write_bytes(b"not weights")
    shutil.copytree(tiny_clip, tmp_path / "torn")
    (tmp_path / "torn" / "open_clip_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be read"):
        clip.load(clip.resolve("embedded", str(tmp_path / "torn")), "cpu")
    with pytest.raises(UserError, match="cannot be read"):
        perceptual.load(perceptual.resolve("alex", str(tmp_path / "alex.pth")), "cpu")
    for resolve in (clip.resolve, perceptual.resolve):
        with pytest.raises(UserError, match="backbone"):
            resolve("vit_b_16")


def test_torchvision_files_are_read(tmp_path):
    trunk = perceptual.randomise(perceptual.alex(), seed=5)
    torch.save({**trunk.state_dict(), "classifier.1.weight": torch.zeros(2)}, tmp_path / "alex.pth")
    loaded = perceptual.load(perceptual.resolve("alex", str(tmp_path / "alex.pth")), "cpu")
    assert loaded.label.startswith("alex:") and loaded.heads is not None
    a, b = noise(1, 3, 64, 64), noise(1, 3, 64, 64, seed=1)
    assert torch.equal(loaded(a, b), perceptual.Perceptual("x", trunk, perceptual.read_heads("alex"))(a, b))


def test_the_random_stand_in_never_changes():
    value = Lpips("random-alex", device="cpu")(a_case(0.5))["lpips[random-alex]"]
    assert value == pytest.approx(0.0725017, rel=1e-3)


def test_embedded_lpips(tiny_clip):
    metric = Lpips("embedded", str(tiny_clip), "cpu")
    values = [metric(a_case(amount))[metric.columns[0].name] for amount in (0.0, 0.2, 0.8)]
    assert values[0] == 0 and values == sorted(values) and values[-1] > 0


@pytest.mark.skipif(not weights.present("embedded"), reason="the embedded CLIP is not there")
def test_clip_text_prefers_the_right_words():
    from freemask.data.world import World

    world = World(split="heldout", clips=4, kinds=("attribute", "shape"), frames=2)
    right = wrong = noisy = 0.0
    for task in world.tasks():
        frames, oracle = world.clip(task).frames, world.oracle(task)
        assert oracle is not None
        blurred = (oracle + 2 * (noise(*oracle.shape) - 0.5)).clamp(0, 1)
        scores = [
            sum(ClipText("embedded")(Case(frames, edited, task)).values())
            for edited in (oracle, frames, blurred)
        ]
        right, wrong, noisy = right + scores[0], wrong + scores[1], noisy + scores[2]
    assert right > wrong and right > noisy


# --- the suite -----------------------------------------------------------------------------------------


class Broken:
    columns = (Column("broken", "", True, "always fails"),)

    def __call__(self, case: Case) -> dict[str, float]:
        raise RuntimeError("no luck")


class NotANumber(Broken):
    columns = (Column("nan", "", True, "always nan"),)

    def __call__(self, case: Case) -> dict[str, float]:
        return {"nan": float("nan")}


class Undeclared(NotANumber):
    columns = (Column("other", "", True, "another name"),)


def test_one_failure_does_not_lose_the_others():
    suite = Suite(
        {"bad": Broken(), "nan": NotANumber(), "odd": Undeclared(), "m": MaskedPsnr(), "o": OraclePsnr()}
    )
    case = a_case(0.1)
    measured = suite(Case(case.source, case.edited, TASK, region=case.region))
    assert set(measured.errors) == {"bad", "nan", "odd"} and "no luck" in measured.errors["bad"]
    assert measured.metrics["oracle_psnr"] is None and measured.metrics["masked_psnr"] is not None
    assert not {"broken", "nan", "other"} & set(measured.metrics)
    assert set(measured.seconds) == set(suite.metrics)
    assert json.loads(json.dumps(measured.row(), allow_nan=False))["columns"]["masked_psnr"]["unit"] == "dB"


def test_no_two_columns_of_a_suite_are_one_number():
    """What is counted twice in a table is corrected for twice."""
    case = a_case(0.2)
    measured = Suite({"m": MaskedPsnr(), "o": OraclePsnr()})(case).metrics
    assert len({round(value, 6) for value in measured.values()}) == len(measured) == 3


def test_two_metrics_cannot_fill_one_column():
    with pytest.raises(UserError, match="masked_psnr"):
        Suite({"a": MaskedPsnr(), "b": MaskedPsnr()})


def test_metric_suites_compose_to_a_mapping():
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF.parent), version_base="1.3"):
        for path in YAMLS:
            config = OmegaConf.to_container(compose(overrides=[f"+metric={path.stem}"]))["metric"]
            assert ("_target_" in config) or all("_target_" in part for part in config.values()), path.name


def test_source_psnr_is_of_all_pixels_whatever_the_region():
    source = smooth()
    edited = source.clone()
    edited[0] = (source[0] + 0.1).clamp(0, 1)
    nowhere = torch.zeros_like(source[:, 0], dtype=torch.bool)
    for region in (nowhere, ~nowhere):
        case = Case(source, edited, TASK, region=region)
        wanted = -10 * math.log10(float((case.edited - case.source).double().square().mean()))
        assert SourcePsnr()(case) == {"source_psnr": pytest.approx(wanted, abs=1e-4)}
    assert SourcePsnr()(Case(source, source, TASK)) == {"source_psnr": 100.0}
