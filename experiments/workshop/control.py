"""The ControlNet job: a copy of the image network's way down learns to steer it by images of edges or of depth. The
image network itself stays as its stage left it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from experiments.workshop.attention import Attention
from experiments.workshop.corpus import Corpus, scene_of
from experiments.workshop.diffusion import Diffusion
from experiments.workshop.job import places
from freemask.control.edges import Edges
from freemask.data.world.render import nearness, owner_map

EDGES = Edges(100, 200)  # ControlNet's own, and those of the methods that use it
WIDTHS = (16, 32, 64)  # of the layers that read an image; each but the first halves it
TEXTLESS = 0.3  # share of the samples: the image has to be listened to where no words tell what it shows


def edges_of(corpus: Corpus, clips: Sequence[int], frames: Sequence[int]) -> Tensor:
    return EDGES.of(corpus.frames[list(clips), list(frames)].float() / 255)


def depth_of(corpus: Corpus, clips: Sequence[int], frames: Sequence[int]) -> Tensor:
    """As the world knows it."""
    scenes = [scene_of(each) for each in clips]
    found = [nearness(scene, owner_map(scene, (frame,))) for scene, frame in zip(scenes, frames, strict=True)]
    return torch.stack(found).expand(-1, 3, -1, -1).contiguous()


IMAGES: dict[str, Callable[[Corpus, Sequence[int], Sequence[int]], Tensor]] = {
    "edges": edges_of,
    "depth": depth_of,
}


class ControlDiffusion(Diffusion):
    """Single frames with an image of each, at the image network's own size. `kind` of the images: see IMAGES."""

    taught = ("controlnet",)
    table: Tensor

    def __init__(
        self, flat: Any, encoder: Any, corpus: Corpus, latents: Tensor, *, kind: str, batch: int
    ) -> None:
        from diffusers.models.controlnets.controlnet import ControlNetModel

        super().__init__(latents, corpus.captions, batch=batch, frames=1)
        self.images, self.corpus = IMAGES[kind], corpus
        self.register_buffer("table", self.read_by(encoder), persistent=False)
        self.controlnet: Any = ControlNetModel.from_unet(flat, conditioning_embedding_out_channels=WIDTHS)
        self.unet: Any = flat.requires_grad_(False).eval()
        for net in (self.controlnet, self.unet):
            net.set_attn_processor(Attention())

    def batch(self, rng: Generator) -> tuple[Tensor, ...]:
        """Noisy latents, velocities, times, texts, and the images (`b 3 h w`)."""
        which, where = places(self.latents, rng, self.size)
        clean = self.latents[which[:, None], where].float()
        dropped = torch.rand(self.size, generator=rng, device=clean.device) < TEXTLESS
        texts = self.table[torch.where(dropped, 0, self.caption[which])].float()
        images = self.images(self.corpus, which.tolist(), where[:, 0].tolist()).to(clean)
        return *self.noised(clean, rng), texts, images

    def loss(self, noisy: Tensor, target: Tensor, t: Tensor, texts: Tensor, images: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        down, middle = self.controlnet(noisy[:, 0], t, texts, images, return_dict=False)
        more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        found = self.unet(noisy[:, 0], t, texts, **more).sample[:, None]
        return nn.functional.mse_loss(found.float(), target)
