"""Which items a rater sees, in which order and with which sides: drawn from the rater's code, here and in the page
(`assets/draw.js`) by the same arithmetic, so that the answers can be held against it."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

Item = TypeVar("Item")
WORD = 0xFFFFFFFF
SAMPLE = "a rater"  # whose turns tell how many there are: all have as many


class Turn(NamedTuple):
    """`order`: the ids of what is shown, from left to right. `again`: a second time, turned round."""

    item: str
    again: bool
    order: tuple[str, ...]


def tidy(rater: str) -> str:
    return unicodedata.normalize("NFC", rater).strip()


def fault_of(rater: Any) -> str | None:
    """Why this is no rater's code; None where it is one."""
    if not isinstance(rater, str) or not 1 <= len(tidy(rater)) <= 40 or tidy(rater) != rater:
        return "a code has 1 to 40 signs, without blanks at its ends"
    odd = [each for each in rater if each not in " ._-" and unicodedata.category(each)[0] not in "LMN"]
    return "a code has letters, digits, blanks and ._- only" if odd else None


def turns(public: Mapping[str, Any], rater: str) -> list[Turn]:
    """One item of each stack; nothing here says which of them are checks. What is repeated comes after its first time,
    and in the second half."""
    if "stacks" not in public:
        return _turns_of_the_first_format(public, rater)
    draw = generator(f"{public['study']}\n{rater}")
    items = {each["id"]: each for each in public["items"]}
    taken = spread(shuffled(draw, [items[stack[draw() % len(stack)]] for stack in public["stacks"]]))
    plain = [each for each in taken if not each["say"]]
    half = max(public["repeats"], len(plain) // 2)
    again = shuffled(draw, plain[:half])[: public["repeats"]]
    sides = _sides(draw, public)
    middle = len(taken) / 2
    placed: list[tuple[float, Mapping[str, Any], bool]] = [(k, each, False) for k, each in enumerate(taken)]
    for k, each in enumerate(again):
        later = max(middle + (k + 1) * middle / len(again), taken.index(each) + 1.5)
        placed.append((later, each, True))
    placed.sort(key=lambda each: each[0])
    return [Turn(each["id"], twice, _order(each, sides, twice)) for _, each, twice in placed]


def _turns_of_the_first_format(public: Mapping[str, Any], rater: str) -> list[Turn]:
    """As pages draw that were made when these still knew which items everybody sees: the checks."""
    draw = generator(f"{public['study']}\n{rater}")
    real = shuffled(draw, [each for each in public["items"] if not each["always"]])
    real = spread(real[: public["each"]] if public["each"] else real)
    extra = shuffled(draw, [each for each in public["items"] if each["always"]])
    half = max(public["repeats"], len(real) // 2)
    again = shuffled(draw, real[:half])[: public["repeats"]]
    sides = _sides(draw, public)
    placed = [(k, each, False) for k, each in enumerate(real)]
    count, middle = len(real), len(real) / 2
    placed += [((k + 1) * count / (len(extra) + 1) - 0.5, each, False) for k, each in enumerate(extra)]
    placed += [(middle + (k + 1) * middle / len(again), each, True) for k, each in enumerate(again)]
    placed.sort(key=lambda each: each[0])
    return [Turn(each["id"], twice, _order(each, sides, twice)) for _, each, twice in placed]


def _sides(draw: Callable[[], int], public: Mapping[str, Any]) -> list[int]:
    return shuffled(draw, list(range(max(len(each["entries"]) for each in public["items"]))))


def generator(seed: str) -> Callable[[], int]:
    """Whole numbers below 2^32: mulberry32, begun with the FNV-1a hash of a text."""
    state = 0x811C9DC5
    for byte in seed.encode():
        state = (state ^ byte) * 0x01000193 & WORD

    def draw() -> int:
        nonlocal state
        state = (state + 0x6D2B79F5) & WORD
        mixed = (state ^ (state >> 15)) * (state | 1) & WORD
        mixed ^= (mixed + ((mixed ^ (mixed >> 7)) * (mixed | 61) & WORD)) & WORD
        return mixed ^ (mixed >> 14)

    return draw


def shuffled(draw: Callable[[], int], items: Sequence[Item]) -> list[Item]:
    found = list(items)
    for last in range(len(found) - 1, 0, -1):
        other = draw() % (last + 1)
        found[last], found[other] = found[other], found[last]
    return found


def spread(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """No clip twice in a row, as long as there is another."""
    rest, found = list(items), []
    while rest:
        before = found[-1]["group"] if found else None
        place = next((k for k, each in enumerate(rest) if each["group"] != before), 0)
        found.append(rest.pop(place))
    return found


def _order(item: Mapping[str, Any], sides: Sequence[int], again: bool) -> tuple[str, ...]:
    ids = [each["id"] for each in item["entries"]]
    shown = [ids[side] for side in sides if side < len(ids)]
    return tuple(reversed(shown) if again else shown)
