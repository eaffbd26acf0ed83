"""The letters of captions in pictures: Pillow's own font has English ones alone."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import ImageFont

SIZE = 14
EAST = 0x2E80  # from here on lie the scripts of East Asia, which need a font of the machine
MACHINES = ("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "PingFang.ttc", "msgothic.ttc", "Arial Unicode.ttf")


def font_for(text: str) -> Any:
    """One that has the letters of this text, as far as there is one."""
    highest = max(map(ord, text), default=0)
    return _font("english" if highest < 128 else "european" if highest < EAST else "east")


@cache
def _font(letters: str) -> Any:
    names = MACHINES if letters == "east" else ()
    for name in (*names, *([_dejavu()] if letters != "english" else [])):
        try:
            return ImageFont.truetype(str(name), SIZE)
        except OSError:
            continue
    return ImageFont.load_default(SIZE)


def _dejavu() -> Path:
    """Of matplotlib, which need not be loaded for it."""
    found = find_spec("matplotlib")
    folder = Path(found.origin).parent if found is not None and found.origin else Path()
    return folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
