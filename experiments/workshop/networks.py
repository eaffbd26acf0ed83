"""The shapes of the embedded networks: Stable Diffusion's and ModelScope's, narrow."""

from typing import Any

from torch import nn

WIDTHS = (32, 64, 64, 64)
HEAD = 16
TEXT = 64
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


def text_encoder(vocabulary: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT,
        intermediate_size=4 * TEXT,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=0,
        projection_dim=TEXT,
        hidden_act="gelu",
    )
    return CLIPTextModel(config)


def unet2d(channels: int) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    heads: Any = [width // HEAD for width in WIDTHS]  # diffusers means the number of heads here
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=WIDTHS,
        layers_per_block=2,
        cross_attention_dim=TEXT,
        attention_head_dim=heads,
        norm_num_groups=8,
        use_linear_projection=True,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )


def unet3d(channels: int) -> Any:
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel

    return UNet3DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=WIDTHS,
        layers_per_block=2,
        cross_attention_dim=TEXT,
        attention_head_dim=HEAD,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
        up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
    )


def grow(flat: Any, video: Any) -> list[str]:
    """Copy the image network into the video network and zero what the new temporal layers add.

    At the start the video network then equals the image network frame by frame. Returns the names of the new
    parameters (temporal ones), which the caller may train at another rate.
    """
    weights = flat.state_dict()
    missing, unexpected = video.load_state_dict(weights, strict=False)
    if unexpected:
        raise ValueError(f"the video network has no place for {unexpected[:3]}")
    for name, module in video.named_modules():
        last_of_conv = "temp_convs" in name and name.endswith("conv4.3")
        last_of_attention = name.endswith("proj_out") and (
            "temp_attentions" in name or "transformer_in" in name
        )
        if last_of_conv or last_of_attention:
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return list(missing)
