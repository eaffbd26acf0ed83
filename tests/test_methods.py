"""Every method: shape and range, the same seed the same result, nothing left behind, identity close to the source."""

import pytest
import torch

from freemask.backbones.unet3d import UNet3D
from freemask.diffusion.loops import invert, sample
from freemask.errors import UserError
from freemask.methods.common import whole
from freemask.methods.ddim import Ddim
from freemask.methods.sdedit import SdEdit
from freemask.types import Clip, EditTask, Method

METHODS = [Ddim(steps=2, guidance=2.0), SdEdit(steps=2, guidance=2.0)]
TASK = EditTask("t", "c", "a red car on grass", "a blue car on grass", {"red": "blue"}, "attribute")


@pytest.fixture(scope="module")
def backbone():
    return UNet3D.random(0, max_tokens=20)


def clip(frames=2, height=12, width=20):
    rng = torch.Generator().manual_seed(0)
    return Clip("c", torch.rand(frames, 3, height, width, generator=rng))


def run(method, backbone, task=TASK, source=None, seed=0):
    return method(backbone, source or clip(), task, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("frames", [1, 3])
def test_shape_range_and_seconds(method, backbone, frames):
    told = []
    edit = method(
        backbone, clip(frames), TASK, torch.Generator().manual_seed(0), lambda *step: told.append(step)
    )
    assert isinstance(method, Method)
    assert edit.frames.shape == (frames, 3, 12, 20) and edit.frames.dtype == torch.float32
    assert edit.frames.min() >= 0 and edit.frames.max() <= 1
    stages = {
        "Ddim": ["encode", "inversion", "sampling", "decoding"],
        "SdEdit": ["encode", "sampling", "decoding"],
    }
    assert list(edit.seconds) == stages[type(method).__name__] and min(edit.seconds.values()) > 0
    assert told[-1][0] == "sampling" and told[-1][1] == told[-1][2] and not edit.extras


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_the_same_seed_gives_the_same_result_and_the_weights_stay(method, backbone):
    before = {name: value.clone() for name, value in backbone.unet.state_dict().items()}
    first = run(method, backbone).frames
    run(method, backbone, source=clip(1))
    assert torch.equal(run(method, backbone).frames, first)
    for name, value in backbone.unet.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(weight.requires_grad for weight in backbone.unet.parameters())


def test_another_seed_gives_another_sdedit_but_the_same_ddim(backbone):
    assert not torch.equal(run(METHODS[1], backbone).frames, run(METHODS[1], backbone, seed=1).frames)
    assert torch.equal(run(METHODS[0], backbone).frames, run(METHODS[0], backbone, seed=1).frames)


@pytest.mark.parametrize(("dtype", "prediction"), [("float64", "epsilon"), ("float32", "v_prediction")])
def test_inversion_and_sampling_with_one_prompt_reconstruct(dtype, prediction):
    """A random network is no denoiser; with a quiet last layer it changes slowly along the path, as a trained one."""
    made = UNet3D.random(0, dtype=dtype, prediction=prediction, max_tokens=20)
    made.unet.conv_out.weight.mul_(0.002)
    latents, text = made.encode(clip().frames), made.embed(TASK.source)
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
