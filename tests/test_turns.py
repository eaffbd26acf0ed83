"""Parts of a model that take turns on the card: who moves and when, where each is kept, and that no number changes."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

from freemask.backbones import tiny_wan
from freemask.backbones.parts import Wishes
from freemask.backbones.turns import REST, Turns, checked
from freemask.backbones.wan import Wan
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert, sample
from freemask.errors import UserError


class Noted(Turns):
    """Turns that write down who came (+) and left (-)."""

    def __init__(self, **guests):
        super().__init__(torch.device("cpu"), list(guests.values()))
        self.names, self.log = {id(part): name for name, part in guests.items()}, []

    def _move(self, part, to):
        if id(part) in self.names:
            self.log.append(f"{'-' if to is REST else '+'}{self.names[id(part)]}")
        super()._move(part, to)


class Part:
    """Something that knows where it is."""

    place = REST

    def to(self, device):
        self.place = device


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two experts, saved by the library."""
    folder = tmp_path_factory.mktemp("turns")
    made, second = (tiny_wan.parts(seed, torch.float32, 32, (1, 2, 2)) for seed in (0, 1))
    path = FlowMatchEulerDiscreteScheduler(shift=3.0)
    more = {"transformer_2": second.transformer, "boundary_ratio": 0.875}
    pipe = WanPipeline(made.tokenizer, made.text_encoder, made.vae, path, made.transformer, **more)
    pipe.save_pretrained(folder)
    return folder


def test_guests_come_when_they_are_used_and_leave_for_others():
    card, (first, second, stays) = torch.device("meta"), (Part() for _ in range(3))
    turns = Turns(card, [first, second])
    for used, here in ((first, first), (first, first), (second, second), (stays, None), (first, first)):
        assert turns.take(used) is used
        assert [part.place for part in (first, second)] == [
            card if part is here else REST for part in (first, second)
        ]
    assert stays.place is REST  # it was put where it is, and is left there
    Turns(card).take(first)
    assert first.place == card


def test_where_memory_has_run_out_all_take_turns_for_a_while():
    card, (text, codec, network) = torch.device("meta"), (Part() for _ in range(3))
    codec.place = network.place = card
    turns, places = Turns(card, [text], [codec, network]), lambda: [text.place, codec.place, network.place]
    turns.take(text)
    turns.take(network)
    with turns.of_all() as changed:
        assert changed == {"model.offload": "text -> model"} and places() == [REST] * 3
        for used, place in ((network, 2), (codec, 1), (text, 0)):
            turns.take(used)
            assert places() == [card if i == place else REST for i in range(3)]
    assert places() == [REST, card, card] and turns.guests == [text]
    turns.take(codec)
    assert places() == [REST, card, card]
    for calm in (Turns(card, [text]), Turns(REST, [], [codec])):
        with calm.of_all() as changed:
            assert not changed


def edited(model):
    """A clip up the noise path and down again under another prompt: all that an edit asks of a model."""
    clip = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    source, target = model.embed("a red car"), model.embed("a blue car")
    noise = invert(model, model.encode(clip), source, 4)[-1]
    return model.decode(sample(model, noise, guided(model, target, 3.0), 4), 5)


def test_an_edit_is_the_same_and_moves_each_part_when_its_turn_comes(folder):
    model = Wan.load(folder)
    plain = edited(model)
    high, low = model.network.transformer, model.network.transformer_2
    model.turns = Noted(text=model.reader, codec=model.codec, high=high, low=low)
    assert torch.equal(edited(model), plain)
    said = "+text -text +codec -codec +low -low +high -high +text -text +high -high +low -low +codec"
    assert model.turns.log == said.split()
    model.turns = Noted(text=model.reader)
    assert torch.equal(edited(model), plain)
    assert model.turns.log == ["+text", "-text"] * 2


@pytest.mark.parametrize(
    ("options", "guests", "kept"),
    [
        ({}, 0, ("meta", "meta", "meta")),
        ({"offload": "text"}, 1, ("meta", "meta", "cpu")),
        ({"offload": "model"}, 4, ("cpu", "cpu", "cpu")),
        ({"offload": "text", "text_device": "cpu"}, 0, ("meta", "meta", "cpu")),
        ({"offload": "model", "text_device": "cpu"}, 3, ("cpu", "cpu", "cpu")),
    ],
    ids=str,
)
def test_where_parts_are_kept(folder, options, guests, kept):
    """A card that holds shapes alone stands in for one."""
    model = Wan.load(folder, device="meta", **options)
    places = model.network.device, model.codec.vae.device, model.reader.encoder.device
    assert tuple(place.type for place in places) == kept
    others = [part for part in model.turns.others if part not in model.turns.guests]
    assert len(others) + guests == (3 if "text_device" in options else 4)
    assert len(model.turns.guests) == guests and model.device.type == "meta"
    if "model" in options.values():
        model.turns.take(model.codec)
        assert {each.device.type for each in (model.codec.vae, model.codec.mean, model.codec.std)} == {"meta"}
        assert model.identity == Wan.identify(folder)


def test_without_a_card_nothing_moves_and_other_words_are_refused(folder):
    assert not Wan.load(folder, offload="model").turns.guests
    with pytest.raises(UserError, match=r"model\.offload"):
        checked("modle", torch.device("meta"))


@pytest.mark.parametrize("wrong", [{"grid": "unipic"}, {"shift": 0}, {"shift": float("inf")}])
def test_a_path_that_cannot_be_is_refused_before_anything_is_read(wrong):
    """Else its name would be looked up as that of a model, and no codebook found."""
    with pytest.raises(UserError, match=next(iter(wrong))):
        Wishes(**wrong)
