"""Layers in quicker forms: the same numbers, the same names, and whoever looks at a layer still sees it."""

import copy

import pytest
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from torch import nn

from freemask.attention.math import _plain
from freemask.backbones import quick
from freemask.backbones.quick import QuickConv3d, QuickGEGLU, QuickLinear, quicken
from freemask.backbones.unet3d import UNet3D


def pair(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A layer and a quick copy of it."""
    layer = layer.eval().requires_grad_(False)
    quicker = copy.deepcopy(layer)
    quicken(quicker)
    return layer, quicker


LAYERS = {
    "linear": (lambda: nn.Linear(64, 96), (3, 700, 64), QuickLinear),
    "without a bias": (lambda: nn.Linear(64, 96, bias=False), (3, 700, 64), QuickLinear),
    "gated": (lambda: GEGLU(64, 128), (3, 700, 64), QuickGEGLU),
    "along frames": (
        lambda: nn.Conv3d(32, 32, (3, 1, 1), padding=(1, 0, 0)),
        (2, 32, 6, 16, 16),
        QuickConv3d,
    ),
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the quick ways were taken."""
    taken: list[str] = []
    product, convolution = quick._product, torch.mkldnn_convolution
    monkeypatch.setattr(quick, "_product", lambda *args: (taken.append("product"), product(*args))[1])
    monkeypatch.setattr(
        torch, "mkldnn_convolution", lambda *args: (taken.append("convolution"), convolution(*args))[1]
    )
    return taken


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_a_quick_layer_says_what_the_layer_says(name: str, counted: list[str]) -> None:
    make, shape, form = LAYERS[name]
    torch.manual_seed(0)
    plain, quicker = pair(make())
    x = torch.randn(shape)
    assert type(quicker) is form and isinstance(quicker, type(plain))
    torch.testing.assert_close(quicker(x), plain(x), rtol=1e-5, atol=1e-5)
    assert bool(counted) == quick._has_onednn()


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_small_or_wants_gradients_or_is_in_double_precision_goes_the_usual_way(
    name: str, counted: list[str]
) -> None:
    make, shape, _ = LAYERS[name]
    plain, quicker = pair(make())
    x = torch.randn(shape, requires_grad=True)
    quicker(x).square().sum().backward()
    ours = x.grad
    x.grad = None
    plain(x).square().sum().backward()
    assert ours is not None and x.grad is not None and torch.equal(ours, x.grad)
    with torch.no_grad():
        double = x.detach().double()
        assert torch.equal(quicker.double()(double), plain.double()(double))
        few = torch.randn(1, *shape[1:-1], shape[-1])[..., :2, :] if name != "along frames" else x[:1, :, :2]
        assert torch.equal(quicker.float()(few.detach()), plain.float()(few.detach()))
    assert not counted


@torch.no_grad()
def test_a_wide_layer_goes_in_pieces_and_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 256 numbers at their widest, 40 of them."""
    plain, quicker = pair(FeedForward(32, activation_fn="geglu"))
    x, rows = torch.randn(10, 4, 32), []
    quicker.net[0].register_forward_hook(lambda module, args, output: rows.append(len(args[0])))  # pyright: ignore
    for piece, expected in ((256 * 40, [10]), (256 * 20, [5, 5]), (256 * 16, [4, 4, 2]), (1, [1] * 10)):
        monkeypatch.setattr(quick, "PIECE", piece)
        rows.clear()
        torch.testing.assert_close(quicker(x), plain(x), rtol=1e-6, atol=1e-6)
        assert rows == expected
    with torch.enable_grad():
        rows.clear()
        assert torch.equal(quicker(x), plain(x)) and rows == [10]


@torch.no_grad()
def test_a_hook_inside_a_gated_layer_sees_it_and_changes_it() -> None:
    plain, quicker = pair(GEGLU(64, 128))
    x = torch.randn(3, 700, 64)
    for layer in (plain, quicker):
        layer.proj.register_forward_hook(lambda module, args, output: output + 1)  # pyright: ignore
    assert torch.equal(quicker(x), plain(x))


@torch.no_grad()
def test_a_layer_put_in_the_place_of_the_one_inside_a_gated_layer_is_called() -> None:
    class Added(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) + 1

    plain, quicker = pair(GEGLU(64, 128))
    x = torch.randn(3, 700, 64)
    for layer in (plain, quicker):
        weights, layer.proj = layer.proj.state_dict(), Added(64, 256)  # pyright: ignore
        layer.proj.load_state_dict(weights)  # pyright: ignore
    assert torch.equal(quicker(x), plain(x))


@torch.no_grad()
def test_one_clip_without_a_batch_goes_through_a_convolution() -> None:
    plain, quicker = pair(nn.Conv3d(32, 32, (3, 1, 1), padding=(1, 0, 0)))
    x = torch.randn(32, 12, 16, 16)
    assert torch.equal(quicker(x), plain(x))


@torch.no_grad()
def test_a_softmax_of_short_rows_is_that_of_the_library_and_bears_large_numbers() -> None:
    q, k, v = (torch.randn(5, 2, 8, 16) for _ in range(3))
    for scale in (0.25, 100.0):
        expected = torch.softmax((q * scale) @ k.transpose(-1, -2), dim=-1) @ v
        torch.testing.assert_close(_plain(q, k, v, scale), expected, rtol=1e-5, atol=1e-5)


def test_a_network_keeps_its_names_its_class_s_name_and_its_dtype() -> None:
    backbone = UNet3D.random()
    network = backbone.network
    assert type(network).__name__ == "UNet3DConditionModel"
    assert network.dtype == torch.float32 and copy.deepcopy(network).double().dtype == torch.float64
    assert {type(each) for each in network.modules()} & {QuickLinear, QuickConv3d, QuickGEGLU}
    assert not [each for each in network.modules() if type(each) in quick.FORMS]
