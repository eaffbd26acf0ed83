"""The small CLIP that judges the embedded world: contrastive, with captions that differ in one word as negatives."""

import json
import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from experiments.workshop.corpus import Corpus
from experiments.workshop.job import TrainingJob, some
from experiments.workshop.networks import clip_config
from experiments.workshop.tokenizer import token_ids, vocabulary, write_tokenizer
from freemask.data.world.spec import BACKGROUNDS, CLASSES, COLORS, STYLES


def with_articles(caption: str) -> str:
    """'a orange' becomes 'an orange' and 'an red' becomes 'a red'."""
    words = caption.split()
    for i, (word, following) in enumerate(zip(words, words[1:], strict=False)):
        if word in ("a", "an"):
            words[i] = "an" if following[0] in "aeiou" else "a"
    return " ".join(words)


def swap_word(caption: str, choices: tuple[str, ...], dice: random.Random) -> str:
    """Replace one of the words that `choices` holds by another choice that the caption does not have."""
    words = caption.split()
    places = [i for i, word in enumerate(words) if word in choices]
    if not places:
        return caption
    place = dice.choice(places)
    words[place] = dice.choice([choice for choice in choices if choice not in words])
    return with_articles(" ".join(words))


def swap_background(caption: str, dice: random.Random) -> str:
    for name, phrase in BACKGROUNDS.items():
        if caption.endswith(phrase):
            other = dice.choice([p for n, p in BACKGROUNDS.items() if n != name])
            return caption.removesuffix(phrase) + other
    return caption


def swap_style(caption: str, dice: random.Random) -> str:
    prefixes = {name: prefix for name, prefix in STYLES.items() if prefix and caption.startswith(prefix)}
    own = next(iter(prefixes), "plain")
    other = dice.choice([name for name in STYLES if name != own])
    return STYLES[other] + caption.removeprefix(STYLES[own])


def hard_negatives(caption: str, dice: random.Random) -> list[str]:
    """The caption with one thing wrong: a class, a colour, the background, the style; and the class once more."""
    return [
        swap_word(caption, CLASSES, dice),
        swap_word(caption, tuple(COLORS), dice),
        swap_background(caption, dice),
        swap_style(caption, dice),
        swap_word(caption, CLASSES, dice),
    ]


class Contrast(TrainingJob):
    """Symmetric contrastive loss; each image must also beat its own wrong captions."""

    taught = ("clip",)
    frames: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, corpus: Corpus, *, batch: int) -> None:
        from open_clip.model import CLIP

        super().__init__()
        self.captions, self.size = corpus.captions, batch
        config = clip_config(len(vocabulary()))
        self.clip: Any = CLIP(**config["model_cfg"])
        self.length = config["model_cfg"]["text_cfg"]["context_length"]
        self.register_buffer("frames", corpus.frames, persistent=False)
        for name in ("mean", "std"):
            value = torch.tensor(config["preprocess_cfg"][name])[:, None, None]
            self.register_buffer(name, value, persistent=False)

    def batch(self, rng: Generator) -> tuple[Tensor, ...]:
        """Noisy images, the token ids of their captions (`b l`) and of their wrong ones (`b k l`), and which of the
        other images have the very same caption."""
        where = {"generator": rng, "device": self.mean.device}
        which, pixels = some(self.frames, rng, self.size)
        images = (pixels[:, 0].float() / 255 - self.mean) / self.std
        noise = torch.randn(images.shape, **where) * torch.rand(self.size, 1, 1, 1, **where)
        captions = [self.captions[each] for each in which.tolist()]
        dice = random.Random(int(torch.randint(2**31, (1,), **where)))
        wrong = [text for each in captions for text in hard_negatives(each, dice)]
        ids = token_ids([*captions, *wrong], self.length).to(images.device)
        same = [[a == b and i != j for j, b in enumerate(captions)] for i, a in enumerate(captions)]
        others = ids[self.size :].unflatten(0, (self.size, -1))
        return images + 0.3 * noise, ids[: self.size], others, torch.tensor(same, device=images.device)

    def loss(self, images: Tensor, ids: Tensor, others: Tensor, same: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        seen = F.normalize(self.clip.encode_image(images), dim=-1)
        read = F.normalize(self.clip.encode_text(torch.cat([ids, others.flatten(0, 1)])), dim=-1)
        scale = self.clip.logit_scale.exp().clamp(max=100)
        right, other = read[: len(ids)], read[len(ids) :].unflatten(0, others.shape[:2])
        target = torch.arange(len(ids), device=images.device)
        between = scale * seen @ right.T
        own = scale * torch.einsum("bd,bkd->bk", seen, other)
        between = between.masked_fill(same, -torch.inf)
        per_word = F.softplus(own - between.diagonal()[:, None]).mean()
        both = F.cross_entropy(between, target) + F.cross_entropy(between.T, target)
        return both / 2 + F.cross_entropy(torch.cat([between, own], 1), target) / 2 + per_word


def write_clip(folder: Path, clip: nn.Module) -> None:
    """The directory that open_clip reads as 'local-dir:PATH', tokenizer included."""
    from safetensors.torch import save_file

    config = clip_config(write_tokenizer(folder))
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    half = {name: value.contiguous() for name, value in clip.half().state_dict().items()}
    save_file(half, folder / "open_clip_model.safetensors")
