"""The job of gated layers: the image network learns to read boxes, and what is said of what is in each. The network
itself stays as its stage left it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from experiments.workshop.attention import Attention
from experiments.workshop.corpus import Corpus, scene_of
from experiments.workshop.diffusion import Diffusion
from experiments.workshop.job import places
from experiments.workshop.tokenizer import END, token_ids, vocabulary
from freemask.backbones import gated_weights
from freemask.backbones.gated import MOST
from freemask.data.world.render import owner_map, part_map
from freemask.data.world.spec import CLASSES, COLORS, PARTS, Scene
from freemask.methods.ground_a_video_field import box_of

TEXTLESS = (
    0.3  # share of the samples without a caption: boxes have to be listened to where nothing else tells
)
UNTOLD = 0.2  # share of the things that no box tells of, as where only what is edited has one
BARE = 0.25  # share of the boxes that are told of by a class alone


class Layers(nn.Module):
    """Gated layers, by the names that they have in their network."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        made = gated_weights.build(unet)
        gated_weights.put(unet, made)
        self.names, self.layers = list(made), nn.ModuleList(made.values())

    def tensors(self) -> dict[str, Tensor]:
        pairs = zip(self.names, self.layers, strict=True)
        return {f"{name}.{key}": value for name, layer in pairs for key, value in layer.state_dict().items()}


class BoxDiffusion(Diffusion):
    """Single frames, with a box around each thing, and around parts that are told of."""

    taught = ("layers",)
    table: Tensor
    said: Tensor

    def __init__(self, flat: Any, encoder: Any, corpus: Corpus, latents: Tensor, *, batch: int) -> None:
        super().__init__(latents, corpus.captions, batch=batch, frames=1)
        self.register_buffer("table", self.read_by(encoder), persistent=False)
        self.phrases = {phrase: place for place, phrase in enumerate(_phrases())}
        self.register_buffer("said", _last_tokens(encoder, list(self.phrases)), persistent=False)
        self.unet: Any = flat.requires_grad_(False).eval()
        self.layers = Layers(flat)
        flat.set_attn_processor(Attention())

    def batch(self, rng: Generator) -> tuple[Tensor, ...]:
        """Noisy latents, velocities, times, texts, boxes (`b n 5`) and phrases (`b n d`)."""
        which, where = places(self.latents, rng, self.size)
        clean = self.latents[which[:, None], where].float()
        dropped = torch.rand(self.size, generator=rng, device=clean.device) < TEXTLESS
        texts = self.table[torch.where(dropped, 0, self.caption[which])].float()
        boxes, phrases = (
            clean.new_zeros(self.size, MOST, 5),
            clean.new_zeros(self.size, MOST, self.said.shape[1]),
        )
        chances = torch.rand(self.size, 4, 3, generator=rng, device=clean.device).tolist()
        for row, (clip, frame) in enumerate(zip(which.tolist(), where[:, 0].tolist(), strict=True)):
            for place, (phrase, box) in enumerate(told(scene_of(clip), frame, chances[row])):
                boxes[row, place], phrases[row, place] = box, self.said[self.phrases[phrase]]
        return *self.noised(clean, rng), texts, boxes, phrases

    def loss(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, noisy: Tensor, target: Tensor, t: Tensor, texts: Tensor, boxes: Tensor, phrases: Tensor
    ) -> Tensor:
        seen = {"boxes": boxes[..., :4], "masks": boxes[..., 4], "positive_embeddings": phrases}
        found = self.unet(noisy[:, 0], t, texts, cross_attention_kwargs={"gligen": seen}).sample[:, None]
        return nn.functional.mse_loss(found.float(), target)


def told(
    scene: Scene, frame: int, chances: Sequence[Sequence[float]] = ((1, 1, 1),) * MOST
) -> list[tuple[str, Tensor]]:
    """Phrases with their boxes, of what is seen in this frame. `chances` for each thing: whether it is told of, whether
    by its class alone, and whether its part is; by themselves all things by colour and class, and no parts."""
    found, owners = [], owner_map(scene, (frame,))
    for index, (thing, (spoken, bare, part)) in enumerate(zip(scene.things, chances, strict=False)):
        if spoken < UNTOLD:
            continue
        found.append((thing.cls if bare < BARE else f"{thing.color} {thing.cls}", owners == index + 1))
        if thing.part_color and part < 0.5:
            name = PARTS[thing.cls]
            found.append((f"{thing.part_color} {name}", part_map(scene, index, name, (frame,))))
    return [(phrase, box_of(mask)[0]) for phrase, mask in found if bool(mask.any())]


def _phrases() -> list[str]:
    things = [*CLASSES, *(f"{color} {name}" for color in COLORS for name in CLASSES)]
    return [*things, *(f"{color} {part}" for color in COLORS for part in dict.fromkeys(PARTS.values()))]


@torch.no_grad()
def _last_tokens(encoder: Any, phrases: Sequence[str]) -> Tensor:
    ids = token_ids(phrases)
    last = (ids == vocabulary()[END]).int().argmax(dim=1)
    return encoder(ids).last_hidden_state[torch.arange(len(ids)), last]
