"""Write a text as a Hydra override that arrives unchanged, whatever characters it holds."""

import re

from hydra.core.override_parser.types import Quote, QuotedString

from freemask.errors import UserError


def quoted(key: str, text: str) -> str:
    """`key='...'` in Hydra's grammar. Two layers are escaped: OmegaConf's `${` and then Hydra's quotes."""
    if text == "???":
        raise UserError(f"'{key}' cannot be ???", came="???", expected="a text", todo="add a blank or a word")
    return f"{key}={QuotedString(text=_without_interpolation(text), quote=Quote.single).with_quotes()}"


def _without_interpolation(text: str) -> str:
    # OmegaConf reads backslashes as escapes only right before `${`.
    return re.sub(r"(\\*)\$\{", lambda found: found.group(1) * 2 + r"\${", text)
