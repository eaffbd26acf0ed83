"""Every YAML of conf/method: shape and range, the same seed the same result, nothing left behind, identity."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hydra.utils import get_object

from experiments.config import choices
from experiments.config.build import build
from experiments.config.compose import config_of, plain
from freemask.backbones.unet3d import UNet3D
from freemask.control.edges import Edges
from freemask.diffusion.loops import invert, sample
from freemask.errors import UserError
from freemask.methods.common import whole
from freemask.methods.ddim import Ddim
from freemask.methods.sdedit import SdEdit
from freemask.types import Clip, EditTask, Method, OpticalFlow
from tests.quiet import quiet

TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")
SAME = EditTask("t", "c", TASK.source, TASK.source, {"red": "red"}, "style")
# These search as long as it takes, otherwise.
SHORT = dict.fromkeys(("null_text_p2p", "video_p2p"), ["method.inner=1"])
SHORT["anyv2v"] = ["method.inversion_steps=null", "first_frame=none"]
SHORT["dmt"] = ["method.inversion_steps=null", "method.updates=2"]
SHORT["flatten"] = ["method.inversion_steps=null"]
FIT = ["method.fit.iterations=2", "method.fit.points=8", "method.fit.kept=null"]
SHORT["nla"] = [*FIT, "method.fit.pretrain=1", "first_frame.method.inner=1"]
SHORT["codef"] = FIT
METHODS = [option.name for option in choices.group("method")]


@pytest.fixture(scope="module")
def backbone():
    return UNet3D.random(0, max_tokens=20)


def clip(frames=2, multiple=4):
    """12 x 20, or more where the network's cells are larger; its motion is known, and the left half is annotated."""
    height, width = (-(-side // multiple) * multiple for side in (12, 20))
    rng = torch.Generator().manual_seed(0)
    made = torch.rand(frames, 3, height, width, generator=rng)
    left = (torch.arange(width) < width // 2).expand(frames, height, width)
    return Clip("c", made, {"thing": left}, flow=OpticalFlow(torch.ones(frames - 1, 2, height, width)))


def run(method, backbone, task=TASK, source=None, seed=0):
    return method(
        backbone, source or clip(multiple=backbone.multiple), task, torch.Generator().manual_seed(seed)
    )


@cache
def composed(name: str, *words: str):
    """A YAML of conf/method as the command line makes it, few steps, and a tiny network of the kind it asks for."""
    words = (f"method={name}", "method.steps=2", "paths.inversions=null", *SHORT.get(name, ()), *words)
    config = config_of("edit", words)
    if "codebook" in (config.mask or {}):  # measured on a trained network
        config = config_of("edit", [*words, "mask=average"])
    control = {"control": 1, "control_edges": Edges()} if config.model.get("control") else {}
    backbone = get_object(f"{config.model._target_.rpartition('.')[0]}.random")(0, max_tokens=20, **control)
    return build(plain(config)["method"], "method"), backbone


def state(backbone):
    """All that an edit must leave as it found it, the randomness of the whole process included."""
    weights = {name: weight.clone() for name, weight in backbone.network.state_dict().items()}
    return weights, {
        "trained": [each.requires_grad for each in backbone.network.parameters()] + [torch.is_grad_enabled()],
        "modes": [each.training for each in backbone.network.modules()],
        "hooks": [
            (len(each._forward_hooks), len(each._forward_pre_hooks)) for each in backbone.network.modules()
        ],
        "own": [sorted(vars(each)) for each in backbone.network.modules()],
        "processors": {name: id(each) for name, each in backbone.network.attn_processors.items()},
        "random": (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()),
    }


@pytest.mark.parametrize("name", METHODS)
def test_shape_range_progress_and_the_same_seed_the_same_result(name, monkeypatch):
    """And nothing stays behind. Guidance that nobody names is the model's own."""
    method, backbone = composed(name)
    monkeypatch.setattr(backbone, "guidance", 2.0)
    before = state(backbone)
    first, alone = (edited(method, backbone, frames) for frames in (3, 1))
    weights, rest = state(backbone)
    assert rest == before[1] and all(torch.equal(before[0][name], weights[name]) for name in before[0])
    assert torch.equal(run(method, backbone, source=clip(3, backbone.multiple)).frames, first)
    if hasattr(method, "guidance"):  # otherwise it is not led by an empty text at all
        assert method.guidance is None
        one, asked = (
            clip(1, backbone.multiple),
            replace(method, guidance=2.0 * getattr(method, "emphasis", 1)),
        )
        assert torch.equal(alone, run(asked, backbone, source=one).frames)
        monkeypatch.setattr(backbone, "guidance", 5.0)
        assert not torch.equal(alone, run(method, backbone, source=one).frames)


def edited(method, backbone, frames):
    """Checked for all that an edit promises."""
    told, source = [], clip(frames, backbone.multiple)
    edit = method(backbone, source, TASK, torch.Generator().manual_seed(0), lambda *step: told.append(step))
    assert isinstance(method, Method)
    assert edit.frames.shape == source.frames.shape and edit.frames.dtype == torch.float32
    assert edit.frames.min() >= 0 and edit.frames.max() <= 1
    assert {"encode", "sampling", "decoding"} <= set(edit.seconds) and min(edit.seconds.values()) > 0
    assert told[-1][0] == "sampling" and told[-1][1] == told[-1][2] > 0
    return edit.frames


@pytest.mark.parametrize("option", choices.group("method"), ids=lambda option: option.name)
def test_the_own_prompt_gives_the_clip_back(option):
    """Under the settings that the YAML names in `identity`; a method without them promises nothing."""
    if "identity" in option.facts:
        method, backbone = composed(option.name, *option.facts["identity"].split())
        with quiet(backbone):
            edited = run(method, backbone, SAME).frames
        own = backbone.decode(backbone.encode(clip(multiple=backbone.multiple).frames), 2)
        assert float((edited - own).abs().mean()) < 0.05


def test_another_seed_gives_another_sdedit_but_the_same_ddim(backbone):
    noisy, sure = SdEdit(steps=2, guidance=2.0), Ddim(steps=2, guidance=2.0)
    assert not torch.equal(run(noisy, backbone).frames, run(noisy, backbone, seed=1).frames)
    assert torch.equal(run(sure, backbone).frames, run(sure, backbone, seed=1).frames)


@pytest.mark.parametrize(("dtype", "prediction"), [("float64", "epsilon"), ("float32", "v_prediction")])
def test_inversion_and_sampling_with_one_prompt_reconstruct(dtype, prediction):
    made = UNet3D.random(0, dtype=dtype, prediction=prediction, max_tokens=20)
    latents, text = made.encode(clip().frames), made.embed(TASK.source)
    with quiet(made):
        back = sample(made, invert(made, latents, text, 5)[-1], text, 5)
    assert float((back - latents).norm() / latents.norm()) < 0.01


def test_a_strength_near_zero_keeps_the_clip_and_one_does_not(backbone):
    own = backbone.decode(backbone.encode(clip().frames))
    distances = [
        float((run(SdEdit(steps=3, strength=strength, guidance=1), backbone).frames - own).abs().mean())
        for strength in (0.01, 0.6, 1)
    ]
    assert distances[0] < 0.05 and distances == sorted(distances)


def test_reconstruction_comes_only_when_asked(backbone):
    edit = run(Ddim(steps=2, reconstruct=True), backbone)
    assert set(edit.extras) == {"reconstruction"} and "reconstruction" in edit.seconds
    same = EditTask("t", "c", TASK.source, TASK.source, {}, "attribute")
    unguided = run(Ddim(steps=2, guidance=1, reconstruct=True), backbone, same)
    assert torch.equal(unguided.frames, unguided.extras["reconstruction"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ddim(steps=0),
        lambda: Ddim(guidance=-1),
        lambda: Ddim(guidance=float("nan")),
        lambda: Ddim(inversion_guidance=-0.5),
        lambda: SdEdit(strength=0),
        lambda: SdEdit(strength=1.01),
        lambda: SdEdit(steps=-3),
        lambda: SdEdit(guidance=-1),
    ],
)
def test_bad_numbers_are_refused(make):
    with pytest.raises(UserError):
        make()


def test_a_fraction_of_a_step_is_refused():
    with pytest.raises(UserError, match="whole number"):
        whole("steps", 2.5)


def test_more_steps_than_times_are_refused(backbone):
    for method in (Ddim(steps=1001), SdEdit(steps=1001)):
        with pytest.raises(UserError, match="1 to 1000"):
            run(method, backbone)
