"""Several ControlNets at once: how strongly each acts, and when, whatever the method."""

import pytest
import torch

from experiments.config.compose import config_of, plain
from experiments.config.identity import backbone_identity
from freemask.backbones.inflated2d import Inflated2D
from freemask.control.how import How
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert, sample
from freemask.diffusion.noise_paths import Ddim
from freemask.errors import UserError
from freemask.types import Given

NAMES = ("control", "control.1")


@pytest.fixture
def backbone(monkeypatch):
    """With two ControlNets. Tests say how they are used."""
    made = Inflated2D.random(0, max_tokens=20, control=2, attention="frame")
    monkeypatch.setattr(made.control, "how", made.control.how)
    return made


@pytest.fixture
def calls(backbone):
    """Which ControlNet was run at which time."""
    seen = []
    hooks = [
        net.register_forward_pre_hook(lambda module, given, place=place: seen.append((place, int(given[1]))))
        for place, net in enumerate(backbone.control.nets)
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def given(**more):
    rng = torch.Generator().manual_seed(0)
    images = {name: torch.rand(2, 3, 16, 16, generator=rng) for name in NAMES}
    return Given({"text": torch.randn(20, 16, generator=rng), **images, **more})


def latents(seed=1):
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def by_diffusers(steps, start, end):
    """The steps in which diffusers lets a ControlNet act: `control_guidance_start` and `control_guidance_end`."""
    return [not (i / steps < start or (i + 1) / steps > end) for i in range(steps)]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(
    ("steps", "window"),
    [(50, (0, 1)), (50, (0, 0.4)), (50, (0.4, 1)), (50, (0.1, 0.9)), (20, (0.25, 0.3)), (10, (0.9, 1)), (10, (0, 0.1))],
)  # fmt: skip
def test_windows_that_end_with_steps_are_those_of_diffusers(steps, window, offset):
    path = Ddim.from_config(
        {
            "num_train_timesteps": 1000,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "steps_offset": offset,
            "prediction_type": "epsilon",
            "clip_sample": False,
            "set_alpha_to_one": False,
        }
    )
    how = How.of(1, 1, window)
    acting = [how.acting(t, path)[0] for t in reversed(path.times(steps))]
    assert acting == by_diffusers(steps, *window) and any(acting)


def test_a_controlnet_runs_within_its_window_alone(backbone, calls):
    """On the way up and on the way down, without a word to the loops."""
    backbone.control.how = How.of(2, 1, [[0, 0.5], [0.75, 1]])
    times = backbone.noise_path.times(8)
    end = invert(backbone, latents(), given(), times)[-1]
    up, down = list(calls), [*times[4:], *times[:2]]
    assert {place for place, _ in up} == {0, 1} and [t for _, t in up] == sorted(t for _, t in up)
    assert sorted(t for _, t in up) == sorted(down)
    assert all((t in times[4:]) == (place == 0) for place, t in up)
    calls.clear()
    sample(backbone, end, guided(backbone, given(), 2.0), times)
    assert sorted(calls) == sorted(up) and calls[0] == (0, times[-1])


def test_outside_of_all_windows_it_is_the_network_alone(backbone):
    backbone.control.how = How.of(2, 1, [[0, 0.25], [0, 0.5]])
    alone = Inflated2D.random(0, max_tokens=20, attention="frame")
    x, text = latents()[None], Given({"text": given().parts["text"]})
    out = backbone.predict(x, 400, {"cond": given()})
    assert torch.equal(out, alone.predict(x, 400, {"cond": text}))
    one = given(control_strength=torch.tensor([0.0, 1.0]))
    within = backbone.predict(x, 600, {"cond": given()})
    torch.testing.assert_close(within, backbone.predict(x, 600, {"cond": one}))
    assert not torch.equal(within, out)


def test_what_a_stream_is_given_wins_over_the_setting(backbone):
    x = latents()[None]
    usual = backbone.predict(x, 500, {"cond": given()})
    wanted = backbone.predict(x, 500, {"cond": given(control_strength=torch.tensor([0.5, 0.25]))})
    backbone.control.how = How.of(2, [0.5, 0.25])
    assert torch.equal(backbone.predict(x, 500, {"cond": given()}), wanted)
    assert torch.equal(backbone.predict(x, 500, {"cond": given(control_strength=torch.tensor(1.0))}), usual)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strength": [1, 1, 1]}, "3 for 2"),
        ({"strength": []}, "0 for 2"),
        ({"strength": -0.5}, "-0.5"),
        ({"strength": [1, -1]}, "-1"),
        ({"strength": float("nan")}, "nan"),
        ({"window": [0.5, 0.5]}, "0.5, 0.5"),
        ({"window": [1, 0]}, "1, 0"),
        ({"window": [0, 1.5]}, "1.5"),
        ({"window": [0, 0.5, 1]}, "0.5, 1"),
        ({"window": [[0, 1]]}, "1 for 2"),
        ({"window": [[0, 1], [0.5]]}, "0.5"),
        ({"window": [[0, 1], 0.5]}, "0.5"),
        ({"window": []}, "0 for 2"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        How.of(2, **settings)


def test_strengths_and_windows_are_part_of_a_models_identity():
    nets = ["embedded_edges", "embedded_edges"]

    def name(**settings):
        return Inflated2D.identify(control=nets, **settings)

    plain_one = name()
    assert plain_one == name(control_strength=[1, 1.0], control_window=[[0, 1], [0, 1]])
    others = [
        name(control_strength=0.5),
        name(control_strength=[0.5, 1]),
        name(control_strength=[1, 0.5]),
        name(control_window=[0, 0.5]),
        name(control_window=[[0, 1], [0, 0.5]]),
    ]
    assert len({plain_one, *others}) == 6
    assert Inflated2D.identify() == Inflated2D.identify(control_strength=0.5, control_window=[0, 0.5])
    words = ["model=embedded_image", "model.control=embedded_edges", "model.control_window=[0,0.4]"]
    model = plain(config_of("edit", words))["model"]
    assert backbone_identity(model) == Inflated2D.identify(control="embedded_edges", control_window=[0, 0.4])
