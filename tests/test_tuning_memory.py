"""What a tuning keeps for its way back, counted on a network of Stable Diffusion's size without data (make parity)."""

import pytest
import torch

from experiments.doctor.forecast import KEPT, KEPT_CHECKPOINTED
from freemask.attention import math as attention
from freemask.backbones import tiny
from freemask.backbones.inflated2d import Inflated2D
from freemask.backbones.inflation import Inflation
from freemask.backbones.unet import placed
from freemask.types import Given

LEARN = ["*.attn1.to_q.weight", "*.attn2.to_q.weight", "*.attn_temporal.*"]
FRAMES, SIDE, WIDTH = 8, 64, 320


class Fused(torch.autograd.Function):
    """Keeps what a fused kernel keeps: tensors without data have no such kernel."""

    @staticmethod
    def forward(ctx, q, k, v):
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx, *_):
        raise NotImplementedError


@pytest.mark.parity
@pytest.mark.parametrize(("checkpointing", "known"), [(False, KEPT), (True, KEPT_CHECKPOINTED)])
def test_the_forecast_is_what_a_step_keeps(checkpointing, known, monkeypatch):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=SIDE, cross_attention_dim=768, attention_head_dim=8).half()
    made = placed(tiny.parts(0, torch.float32, "epsilon", 77, image=True), "cpu")
    inflation = Inflation.of(unet.config, "first_and_previous", 0, True)
    backbone = Inflated2D(made._replace(unet=unet), inflation, name="counted")
    monkeypatch.setattr(attention, "scaled_dot_product_attention", lambda q, k, v, **_: Fused.apply(q, k, v))
    own = {weight.untyped_storage()._cdata for weight in unet.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor):
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    more = backbone.fresh("attention", seed=0, bias=False, rank=1)
    x = torch.empty(1, FRAMES, 4, SIDE, SIDE, device="meta", dtype=torch.float16)
    text = Given({"text": torch.empty(77, 768, device="meta", dtype=torch.float16)})
    with backbone.tuned(LEARN, more=more, checkpointing=checkpointing) as tuning:
        assert sum(weight.numel() for weight in tuning.weights.values()) == 74_354_880  # as released
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            backbone.predict(x, 300, {"source": text})
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert size / (FRAMES * SIDE * SIDE * WIDTH * 2) == pytest.approx(known, rel=0.05)
