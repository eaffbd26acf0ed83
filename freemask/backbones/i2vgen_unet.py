"""diffusers' I2VGenXLUNet for latents of any number of channels: its own reads pictures of four, whatever its config
says."""

from functools import wraps
from typing import Any

from diffusers.models.unets import unet_i2vgen_xl
from torch import nn


class I2VGenXLUNet(unet_i2vgen_xl.I2VGenXLUNet):
    """The same network with the same weights where latents have four channels."""

    @wraps(unet_i2vgen_xl.I2VGenXLUNet.__init__)  # the library reads the names of its settings from here
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        channels = self.config["in_channels"]
        for layers in (self.image_latents_proj_in, self.image_latents_context_embedding):
            first: Any = layers[0]
            if first.in_channels != channels:
                layers[0] = nn.Conv2d(channels, first.out_channels, 3, padding=1)
