"""The comparison with stored numbers of the authors' code: that it passes where it should, and fails where it should.

The short cases are written out slowly on a tiny network (tests/official/written_out.py); the authors' own are long.
"""

import json
from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file

from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.unet3d import UNet3D
from tests.official import calibration, families
from tests.official import compare as command
from tests.official.case import Case
from tests.official.ledger import FORCED, Ledger, furthest, relative
from tests.official.overrides import edit_overrides
from tests.official.slices import layers, stored
from tests.official.written_case import write
from tests.official.written_out import Edit, Scene, Sizes

STEPS = 3
# The authors' sizes for latents of 64 x 64, for latents of 16 x 16.
SIZES = Sizes(queries=64, positions=64, stride=4, index=2)
EXTRA = ["fusion.most_queries=64", "fusion.most_positions=64", "mask.temporal_index=2"]
EXTRA2D = ["fusion.most_queries=64", "mask.cells=4"]
PARTS = {
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "scheduler": ("diffusers", "DDIMScheduler"),
}
WINDOWS = {"cross_replace_steps": {"default_": 0.6}, "self_replace_steps": 0.5, "temp_replace_steps": 0.9}
MASKED = {"blend_self_attention": True, "blend_th": [0.97, 0.97], "key_value_replace": True}
# Source prompt; target prompts with what the authors' p2p_config says about each.
CASES = {
    "style": (
        "a red car on grass",
        [
            (
                "a wild red car, on grass",
                {
                    **WINDOWS,
                    "is_replace_controller": False,
                    "eq_params": {"words": ["wild", "car,", "truck"], "values": [20, 0.5, 3]},
                    "blend_words": [["car"], ["car,"]],
                    "blend_latents": True,
                    "blend_th": [0.97, 0.97],
                },
            )
        ],
    ),
    "shape": (
        "a red car on grass",
        [
            (
                "a wild car on grass",
                {**WINDOWS, **MASKED, "blend_words": [["red", "car"], ["wild"]], "blend_latents": True},
            ),
            (
                "a blue car on grass ",
                {
                    "cross_replace_steps": {"default_": [0.2, 0.7], "blue": 0.9, "truck": 0.1},
                    "self_replace_steps": [0.2, 0.8],
                    "temp_replace_steps": [0.2, 0.8],
                    "key_value_replace": True,
                },
            ),
        ],
    ),
    "absent": (
        "a  red car's, on grass ",
        [
            (
                "a blue car on grass",
                {**WINDOWS, **MASKED, "blend_words": [["truck"], ["car"]], "blend_latents": True},
            ),
            ("a  blue car's, on grass ", {**WINDOWS, **MASKED, "blend_words": [["red"], []]}),
        ],
    ),
}


# FateZero: source prompt, whom frames look at, and the edits.
BLENDED = {"blend_self_attention": True, "blend_latents": True, "blend_th": [0.97, 0.97]}
HALF = {"cross_replace_steps": {"default_": 0.5}, "self_replace_steps": 0.5}
CASES2D = {
    "fz_style": (
        "a red car on grass",
        ["mid"],
        [
            (
                "a wild red car on grass",
                {
                    **HALF,
                    "is_replace_controller": False,
                    "eq_params": {"words": ["wild", "truck"], "values": [10, 3]},
                },
            ),
            # a reconstruction as the authors' entries 0 ask for it: words that are not there, nothing let through
            (
                "a red car on grass",
                {
                    "cross_replace_steps": {"default_": 1.0},
                    "self_replace_steps": 0.9,
                    "blend_words": [["cat"], ["cat"]],
                    "blend_self_attention": True,
                    "blend_th": [2, 2],
                },
            ),
        ],
    ),
    "fz_attribute": (
        "a red car on grass",
        [0, "mid"],
        [("a blue car on grass", {"cross_replace_steps": {"default_": 0.7}, "self_replace_steps": 0.7})],
    ),
    "fz_shape": (
        "a red car on grass,",
        None,  # the previous and the first frame
        [
            ("a blue boat on grass", {**HALF, **BLENDED, "blend_words": [["red", "car"], ["blue", "boat"]]}),
            (
                "a boat on grass",
                {
                    "cross_replace_steps": {"default_": [0.2, 0.7], "boat": 0.9},
                    "self_replace_steps": [0.2, 0.8],
                    "blend_words": [["car"], ["boat"]],
                    "blend_latents": True,
                    "blend_th": [0.97, 0.5],
                },
            ),
        ],
    ),
}


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder as the stored cases lie in, with two tiny models."""
    folder = tmp_path_factory.mktemp("parity")
    for model, image in (("tiny", False), ("tiny2d", True)):
        save(folder / "models" / model, image)
    return folder


def save(model, image):
    made = tiny.parts(0, torch.float64, "epsilon", 77, image=image)
    for name in ("unet", "vae", "text_encoder", "tokenizer"):
        getattr(made, name).save_pretrained(model / name)
    (model / "scheduler").mkdir()
    (model / "scheduler" / "scheduler_config.json").write_text(json.dumps(made.scheduler))
    unet = {"unet": ("diffusers", "UNet2DConditionModel" if image else "UNet3DConditionModel")}
    (model / "model_index.json").write_text(json.dumps({**PARTS, **unet}))


@pytest.fixture(scope="session")
def written(place):
    backbone = UNet3D.load(place / "models" / "tiny", dtype="float64")

    def begun(name):
        source, targets = CASES[name]
        return Scene(backbone, source, STEPS, 7.5, SIZES), 2, targets

    return maker(place, begun)


@pytest.fixture(scope="session")
def written2d(place):
    def begun(name):
        source, look, targets = CASES2D[name]
        attention = "first_and_previous" if look is None else look
        model = place / "models" / "tiny2d"
        backbone = Inflated2D.load(model, dtype="float64", attention=attention, least_channels=0)
        return Scene(backbone, source, STEPS, 7.5, SIZES, family="FateZero", look=look), 3, targets

    return maker(place, begun)


def maker(place, begun):
    """Writes a case out once: inverts its scene and runs its edits."""

    @cache
    @torch.no_grad()
    def case(name):
        scene, frames, targets = begun(name)
        noise = torch.Generator().manual_seed(1)
        scene.invert(torch.randn(frames, 4, 16, 16, generator=noise, dtype=torch.float64))
        edits = [Edit(scene, target, said, f"edit{i}") for i, (target, said) in enumerate(targets)]
        for edit in edits:
            edit.run()
        return write(place, name, scene, edits)

    return case


@pytest.mark.parametrize("name", CASES2D)
def test_our_fatezero_equals_the_written_out_one(written2d, name):
    case = Case.read(written2d(name))
    ledger = command.compare(case, extra=EXTRA2D, free=name == "fz_shape")
    assert ledger.passed, ledger.table()
    groups = {group for group, _ in ledger.found}
    for edit in case.edits():
        assert {f"{edit.name}: latents", f"{edit.name}: control tensors"} <= groups
        assert (f"{edit.name}: soft masks" in groups) == (edit.blend_words is not None)
        assert ledger.found[f"{edit.name}: latents", FORCED].count == STEPS


@pytest.mark.parametrize("name", CASES)
def test_our_official_variant_equals_the_written_out_one(written, name):
    case = Case.read(written(name))
    ledger = command.compare(case, extra=EXTRA, free=name == "style")
    assert ledger.passed, ledger.table()
    groups = {group for group, _ in ledger.found}
    for edit in case.edits():
        assert {f"{edit.name}: latents", f"{edit.name}: control tensors"} <= groups
        assert (f"{edit.name}: soft masks" in groups) == (edit.blend_words is not None)
        assert ledger.found[f"{edit.name}: latents", FORCED].count == STEPS


def test_the_written_out_masks_are_neither_empty_nor_full(written):
    tensors = load_file(written("shape").with_suffix(".safetensors"))
    shares = {kind: [] for kind in ("attention_blend", "kv_blend", "latent_blend")}
    for name, tensor in tensors.items():
        for kind in shares:
            if f"/{kind}_mask/" in name:
                shares[kind].append(float(tensor[-1].float().mean()))
    assert all(any(0.1 < share < 0.9 for share in found) for found in shares.values()), shares


def test_changed_tensors_are_found(written, tmp_path):
    """One element each, in a copy of a case that passes: every group that it belongs to fails."""
    original = written("style")
    tensors = load_file(original.with_suffix(".safetensors"))
    changed = {
        "edit0/latents": "edit0: latents",
        "edit0/latent_blend_soft/step02/16": "edit0: soft masks",
        "edit0/latent_blend_mask/step01/16": "edit0: binary masks, share wrong",
        "edit0/ctrl/mapper": "edit0: control tensors",
        "edit0/unet_out/00": "edit0: network output",
        "inv/latents": "inversion: latents",
        "text/source/ids": "text: token ids",
    }
    for name in changed:
        flat = tensors[name].view(-1)
        flat[flat.numel() // 2] += 1 if flat.dtype != torch.uint8 else 2
    about = json.loads(original.read_text())
    about["model_dir"] = str(original.parents[1] / "models" / "tiny")
    (tmp_path / "golden").mkdir()
    save_file(tensors, tmp_path / "golden" / about["file"])
    path = tmp_path / "golden" / "style.json"
    path.write_text(json.dumps(about))
    ledger = command.compare(Case.read(path), extra=EXTRA, free=False, steps=3)
    assert not ledger.passed
    failed = {group for (group, _), worst in ledger.found.items() if worst.failed}
    assert set(changed.values()) <= failed, ledger.table()


def test_exit_codes(tmp_path, capsys, monkeypatch):
    path = tmp_path / "case.json"
    path.write_text(json.dumps({"official_repo": "somebody/else"}))
    assert command.main([str(path)]) == 2
    assert "of no repository that is known" in capsys.readouterr().out
    assert command.main([str(tmp_path / "none.json")]) == 2
    for error, code in ((0.5, 0), (1.5, 1)):
        ledger = Ledger()
        ledger.note("group", FORCED, "tensor", error, 1.0)
        monkeypatch.setattr(command, "compare", lambda *_, ledger=ledger, **__: ledger)
        assert command.main([str(path)]) == code
        assert ("PASS" if code == 0 else "FAIL") in capsys.readouterr().out


def test_the_ledger_passes_nothing_by_accident():
    assert not Ledger().passed
    for error in (float("nan"), float("inf")):
        ledger = Ledger()
        ledger.note("group", FORCED, "tensor", error, 1.0)
        assert not ledger.passed
    shown = Ledger()
    shown.note("group", FORCED, "tensor", 0.0, None)
    assert not shown.passed
    bad = torch.tensor([1.0, float("nan")])
    assert relative(bad, torch.ones(2)) == furthest(bad, torch.ones(2)) == float("inf")
    assert relative(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])) == 1
    with pytest.raises(ValueError, match="shape"):
        relative(torch.ones(1, 2), torch.ones(2))


def test_the_names_of_stored_maps():
    backbone = UNet3D.random()
    known = layers(backbone.sites, 64, 64)
    spatial = {key: name for key, name in known.items() if "_cross/" in key}
    assert len(spatial) == 11  # down 4, mid 1, up 6: the largest level is not stored
    assert known["down_cross/2"] == "down_blocks.2.attentions.0.transformer_blocks.0.attn2"
    assert known["up_self/0"] == "up_blocks.1.attentions.0.transformer_blocks.0.attn1"
    assert known["down_temp_self/1"] == "down_blocks.0.temp_attentions.0.transformer_blocks.0.attn2"
    assert sum("up_temp_self" in key for key in known) == 18
    found = stored(["inv/attn/step03/up_self/0", "inv/attn/step04/up_self/0"], known, {3: 250})
    assert [(each.site, each.t) for each in found] == [(known["up_self/0"], 250)]


def test_words_that_a_command_line_cannot_spell_as_keys(place):
    """Commas, apostrophes, quotes and other letters reach the method unchanged."""
    from experiments.config.compose import config_of, plain

    words = ["Ukiyo-e", "car,", "grassland's", 'a"b', "café", "a=b", "c:d"]
    said = {
        **WINDOWS,
        "eq_params": {"words": words, "values": list(range(len(words)))},
        "blend_words": [words, words],
    }
    about = {
        "model_dir": "models/tiny",
        "num_inference_steps": 5,
        "guidance_scale": 7.5,
        "source_prompt": 'it\'s a "car" ${x}, ',
        "editing_prompts": ["  b"],
        "controllers": {"edit0": {}},
        "tensors": {"edit0/latents": {}},
        "config": {"editing_config": {"p2p_config": {"0": said}}},
    }
    (place / "golden").mkdir(exist_ok=True)
    path = place / "golden" / "words.json"
    path.write_text(json.dumps(about))
    case = Case.read(path)
    config = plain(config_of("edit", edit_overrides(case, case.edits()[0])))
    assert config["method"]["fusion"]["reweight"] == [[word, i] for i, word in enumerate(words)]
    assert config["method"]["mask"]["source_words"] == words
    assert (config["source"], config["target"]) == (about["source_prompt"], "  b")


# --- the authors' own -----------------------------------------------------------------------------------------


def golden(shared, name):
    return Case.read(shared / "parity" / "golden" / f"{name}.json")


@pytest.mark.parametrize("name", ["fm_cal_miou", "fm_miou_of_calmask_maps"])
def test_mean_iou_of_the_authors(shared, name):
    ledger = command.compare(golden(shared, name))
    assert ledger.passed, ledger.table()


@pytest.mark.parity
@pytest.mark.parametrize("name", ["fm_shape", "fz_shape_identity"])
def test_the_first_step_of_the_authors_shape_edit(shared, name):
    ledger = command.compare(golden(shared, name), steps=1)
    assert ledger.passed, ledger.table()
    for group in ("latents", "soft masks", "control tensors", "attn_after slices"):
        assert (f"edit0: {group}", FORCED) in ledger.found


def test_every_stored_case_has_a_family_that_reads_it(shared):
    for path in sorted((shared / "parity" / "golden").glob("*.json")):
        case = Case.read(path)
        assert calibration.is_miou(case) or callable(families.of(case)), path.name


def test_the_first_steps_of_a_network_tuned_on_a_clip(shared):
    ledger = command.compare(golden(shared, "tav_base"), steps=2)
    assert ledger.passed, ledger.table()
    for group in ("inversion: latents", "inversion: outputs of modules", "edit0: latents"):
        assert (group, FORCED) in ledger.found
    for group in ("errors", "lengths of gradients", "gradients", "tuned weights: change", "tuning.path"):
        assert (f"tuning: {group}", FORCED) in ledger.found


@pytest.mark.parity
def test_the_authors_cases(shared):
    """Whatever lies there passes, as far as its method runs."""
    failed = {}
    for path in sorted((shared / "parity" / "golden").glob("*.json")):
        ledger = command.compare(Case.read(path))
        if not ledger.passed:
            failed[path.stem] = ledger.table()
    assert not failed, "\n".join(failed.values())
