"""The embedded image-to-video model: its network, and that it follows the picture."""

import json

import torch
from diffusers.models.unets import unet_i2vgen_xl

from freemask.backbones import checkpoint
from freemask.backbones.i2vgen import I2VGen
from freemask.backbones.i2vgen_unet import I2VGenXLUNet
from freemask.data.world.source import clip_of
from freemask.data.world.spec import SPLITS, sample_scene
from freemask.diffusion.loops import sample

HELDOUT = SPLITS["heldout"].start
CONFIG = {
    "sample_size": 8,
    "block_out_channels": (8, 8),
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}


def test_latents_may_have_any_number_of_channels(tmp_path):
    made = I2VGenXLUNet(**CONFIG, in_channels=6, out_channels=6)
    made.save_pretrained(tmp_path / "unet")
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "I2VGenXLUNet"]}))
    again = checkpoint.find(tmp_path).part("unet", ("I2VGenXLUNet",), torch.float32)
    for name, value in made.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    x, picture = torch.randn(1, 6, 2, 8, 8), torch.randn(1, 6, 2, 8, 8)
    given = (torch.tensor([8]), picture, torch.zeros(1, 1, 16), torch.zeros(1, 4, 16))
    assert again(x, 5, *given).sample.shape == x.shape


def test_with_four_channels_it_is_the_librarys_network():
    made = []
    for kind in (I2VGenXLUNet, unet_i2vgen_xl.I2VGenXLUNet):
        torch.manual_seed(0)
        made.append(kind(**CONFIG))
    ours, theirs = made
    assert dict(ours.config) == dict(theirs.config) and ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())


def test_the_shipped_network_follows_its_picture():
    """From the same noise, in few steps and without a word: the first frame is nearer to the picture that was shown."""
    backbone = I2VGen.load("embedded_i2v", text_skip=0)
    shown = [backbone.seen(clip_of(sample_scene(HELDOUT + seed), "")) for seed in (1, 2)]
    noise = torch.randn(8, 12, 16, 16, generator=torch.Generator().manual_seed(0))
    text = backbone.embed("").given
    made = [sample(backbone, noise, text.plus(**each), 8) for each in shown]
    gaps = [[(clip[0] - each["image_latents"]).square().mean() for each in shown] for clip in made]
    assert gaps[0][0] < 0.7 * gaps[0][1] and gaps[1][1] < 0.7 * gaps[1][0]
