"""Read pairs of words as people write them: `car -> truck; road -> snow`, or `car:truck, road:snow`."""


def read_pairs(text: str) -> tuple[dict[str, str], list[str]]:
    """The pairs, and what is wrong with the others. `car:` and `car ->`: the word goes, and nothing comes for it.

    A semicolon ends a pair. So does a comma where every part is a pair of its own, for a phrase may hold commas.
    """
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    pairs: dict[str, str] = {}
    faults: list[str] = []
    for part in (each for some in text.split(";") for each in _split(some.strip())):
        old, *new = (piece.strip() for piece in part.split(_arrow(part)))
        if len(new) != 1:
            hint = "; put ; between two pairs" if new else ""
            faults.append(f"'{part}' is not of the form a->b or a:b, such as car:truck{hint}")
        elif old in pairs:
            faults.append(f"'{old}' is there twice")
        else:
            pairs[old] = new[0]
    return pairs, faults


def _split(text: str) -> list[str]:
    """At commas, where that leaves nothing but pairs."""
    parts = [each for each in map(str.strip, text.split(",")) if each]
    return parts if all(each.count(_arrow(text)) == 1 for each in parts) else [text]


def _arrow(text: str) -> str:
    """Words may hold a colon (16:9) where pairs are written with arrows."""
    return "->" if "->" in text else ":"
