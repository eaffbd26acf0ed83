"""Layouts and compiled blocks: the same numbers but for rounding; taps, gradients and tuned weights as ever."""

import json
import subprocess
import sys
from dataclasses import dataclass
from inspect import unwrap

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch._dynamo.utils import counters

from experiments.cli.app import main
from experiments.config.compose import config_of, plain
from experiments.config.identity import identity_over
from experiments.jobs.edit import made_on, model_of
from freemask.attention.math import attend
from freemask.backbones.network import Network
from freemask.backbones.speed import Speed
from freemask.backbones.unet3d import UNet3D
from freemask.errors import UserError
from freemask.types import QKV, Given, Taps, Where

EAGER = Speed(
    "channels_last", compiled=True, backend="aot_eager"
)  # traced as for a compiler, then run as it is


def fresh() -> Network:
    """Not the one that all tests share: it stays as a speed has made it."""
    return unwrap(UNet3D.random.__func__)(UNet3D, 3)  # pyright: ignore[reportFunctionMemberAccess]


@dataclass
class Pair:
    """One network twice; the second is given a speed."""

    plain: Network
    quick: Network
    x: Tensor
    given: dict[str, Given]


@pytest.fixture(scope="module")
def pair() -> Pair:
    networks = fresh(), fresh()
    networks[1].given_speed(EAGER)
    frames = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents = networks[0].encode(frames)
    given = {name: networks[0].embed(text).given for name, text in {"a": "a red car", "b": ""}.items()}
    return Pair(*networks, latents.expand(2, *latents.shape).contiguous(), given)


def near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@torch.no_grad()
def test_a_call_says_the_same_and_each_kind_of_block_is_traced_once(pair: Pair) -> None:
    expected = pair.plain.predict(pair.x, 500, pair.given)
    before = graphs()
    near(pair.quick.predict(pair.x, 500, pair.given), expected)
    traced = graphs()
    assert traced > before  # not the library's own way under another name
    other = pair.plain.predict(pair.x, 20, pair.given)
    near(pair.quick.predict(pair.x, 20, pair.given), other)
    assert graphs() == traced


@torch.no_grad()
def test_taps_of_attention_are_heard(pair: Pair) -> None:
    def halved(where: Where, qkv: QKV) -> Tensor:
        return attend(qkv) * 0.5

    taps = Taps(attention=halved)
    expected = pair.plain.predict(pair.x, 500, pair.given, taps=taps)
    near(pair.quick.predict(pair.x, 500, pair.given, taps=taps), expected)
    assert not torch.allclose(expected, pair.plain.predict(pair.x, 500, pair.given), atol=1e-3)


@torch.no_grad()
def test_taps_of_features_inside_a_compiled_block_are_heard(pair: Pair) -> None:
    pair.quick.predict(pair.x, 500, pair.given)  # compiled by now
    name = next(each for each in pair.quick.features if each.endswith("conv2"))
    seen: list[Tensor] = []

    def turned(where: Where, maps: Tensor) -> Tensor:
        seen.append(maps.clone())
        return -maps

    taps = Taps(features={name: turned})
    expected = pair.plain.predict(pair.x, 500, pair.given, taps=taps)
    near(pair.quick.predict(pair.x, 500, pair.given, taps=taps), expected)
    near(*seen)


def test_gradients_flow_without_anything_compiled(pair: Pair) -> None:
    found = []
    before = graphs()
    for network in (pair.plain, pair.quick):
        x = pair.x.clone().requires_grad_()
        network.predict(x, 500, pair.given).square().mean().backward()
        assert x.grad is not None
        found.append(x.grad / x.grad.abs().max())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    assert graphs() == before


@torch.no_grad()
def test_weights_that_are_tuned_later_count(pair: Pair) -> None:
    """A convolution inside a block, and a low-rank addition, whose hook the compiled code does not know."""
    plain_call = pair.quick.predict(pair.x, 500, pair.given)
    for pattern, rank in (("*resnets.0.conv1.weight", 0), ("*attn1.to_q.weight", 2)):
        found = []
        for network in (pair.plain, pair.quick):
            with network.tuned([pattern], rank=rank) as tuned:
                for each in tuned.weights.values():
                    each.add_(0.02)
                tuned.settle()
                found.append(network.predict(pair.x, 500, pair.given))
        near(*found)
        assert not torch.allclose(found[1], plain_call, atol=1e-4)
    near(pair.quick.predict(pair.x, 500, pair.given), plain_call)


def test_weights_of_another_layout_can_be_written(pair: Pair, tmp_path) -> None:
    with pair.quick.tuned(["*resnets.0.conv1.weight"]) as tuned:
        state = tuned.state()
    save_file(state, tmp_path / "tuned.safetensors")
    again = load_file(tmp_path / "tuned.safetensors")
    assert all(torch.equal(again[name], pair.plain.network.get_parameter(name)) for name in state)


SHARED_CODE = """
import torch
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.speed import Speed
from freemask.backbones.unet3d import UNet3D

torch.set_num_threads(1)
with torch.no_grad():
    for made in (UNet3D, Inflated2D):
        plain, quick = made.random(3), made.random(3)
        quick.given_speed(Speed("channels_last", True, "aot_eager"))
        x = plain.encode(torch.rand(4, 3, 64, 64))[None].repeat(2, 1, 1, 1, 1)
        given = {name: plain.embed(text).given for name, text in (("a", "a red car"), ("b", ""))}
        print(float((plain.predict(x, 500, given) - quick.predict(x, 500, given)).abs().max()))
"""


@pytest.mark.long
def test_two_networks_with_other_hooks_share_no_code() -> None:
    """Compiled code has the hooks in it that were there, and does not see that others have come: norms of the image
    model join frames by theirs. In a process of its own, where no checks of shapes stand in the way."""
    said = subprocess.run([sys.executable, "-c", SHARED_CODE], capture_output=True, text=True, check=True)
    off = [float(each) for each in said.stdout.split()]
    assert len(off) == 2 and max(off) < 1e-5


def test_a_setting_of_a_run_that_is_no_part_of_its_identity() -> None:
    words = ["model=random", "data.clips=1", "mask=oracle"]
    configs = [plain(config_of("run", [*words, *more])) for more in ([], ["speed=channels_last"])]
    identities = [identity_over("0", config, {"model": "random"}).hash for config in configs]
    assert identities[0] == identities[1]
    # With seeds of their own: tests share a network by its seed.
    made = [
        model_of({**config, "model": {**config["model"], "seed": 11 + i}}) for i, config in enumerate(configs)
    ]
    assert [made_on(each)["speed"] for each in made] == ["plain", "channels_last"]
    weight = next(each for name, each in made[1].network.named_parameters() if name.endswith("conv1.weight"))
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_the_bench_measures_each_speed_in_a_folder_and_files_of_its_own(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "bench what=speed model=random mask=oracle frames=[1] sizes=[16] at_steps=1 modes=[plain] model.seed=21"
    for more in ([], ["speed=channels_last", "model.seed=22"]):
        assert main([*words.split(), *more]) == 0, capsys.readouterr().err
    names = ["bench-speed-fusion-random", "bench-speed-fusion-random-channels_last"]
    about = [json.loads((tmp_path / f"reports/{name}.json").read_text())["about"]["speed"] for name in names]
    assert about == ["plain", "channels_last"]
    assert "float32, channels_last, on" in (tmp_path / f"reports/{names[1]}.md").read_text()


@pytest.mark.parametrize("option", ["plain", "channels_last", "compiled"])
def test_the_options_are_what_they_say(option: str) -> None:
    node = OmegaConf.to_container(config_of("edit", [f"speed={option}"]).speed)
    assert isinstance(node, dict)
    assert node.pop("_target_") == f"{Speed.__module__}.Speed"
    speed = Speed(**{str(key): value for key, value in node.items()})
    assert (speed.layout != "plain", speed.compiled) == (option != "plain", option == "compiled")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="Unknown layout"):
        Speed("channels_first")
    with pytest.raises(UserError, match="Unknown backend"):
        Speed(backend="indutcor")


def test_networks_that_are_not_compiled_wait_for_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "list_backends", lambda **_: pytest.fail("compilers were imported"))
    assert Speed() == Speed("plain", False, "inductor")


@torch.no_grad()
def test_a_machine_that_cannot_compile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    network = fresh()
    monkeypatch.setenv("CXX", "/nowhere/c++")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/nowhere/c++",))
    network.given_speed(Speed(compiled=True))
    given = {"a": network.embed("a red car").given}
    x = network.encode(torch.rand(2, 3, 32, 32))[None]
    with pytest.raises(UserError, match="cannot compile blocks with 'inductor'"):
        network.predict(x, 500, given)
