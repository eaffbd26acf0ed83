"""What makes a video network of an image network, temporal layers and ControlNets apart."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from freemask.attention.rewire import entries
from freemask.backbones import identity
from freemask.errors import UserError
from freemask.types import Entry

WIDTHS = (320, 640, 1280, 1280)  # of a configuration that does not say
BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D", "UNetMidBlock2DCrossAttn", "CrossAttnUpBlock2D", "UpBlock2D"}
# What a network may ask for besides a noisy picture, a time and a text: there is nothing here to give it.
FOREIGN = (
    "addition_embed_type",
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "encoder_hid_dim",
    "only_cross_attention",
    "mid_block_only_cross_attention",
    "dual_cross_attention",
)


@dataclass(frozen=True)
class Inflation:
    """Who looks at whom, and which norms are shared."""

    wanted: tuple[Entry, ...]
    least_channels: int
    shared_norm: bool

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        attention: str | Sequence[int | str],
        least_channels: int | None,
        shared_norm: bool,
    ) -> "Inflation":
        """`config` is that of the image network."""
        check(config)
        widths = tuple(config.get("block_out_channels", WIDTHS))
        least = widths[:2][-1] if least_channels is None else least_channels
        if least < 0:
            raise UserError("least_channels is a layer's width.", came=least, expected="0 = all layers")
        return cls(entries(attention), least, shared_norm)

    def look(self, layer: Any) -> tuple[Entry, ...]:
        """Self-attention of layers that are wide enough looks across frames."""
        return self.wanted if layer.query_dim >= self.least_channels else ()

    def identity(
        self, parts: str, temporal: str | None, control: Sequence[str] = (), gated: str | None = None
    ) -> str:
        facts = {"parts": parts, "temporal": temporal, **asdict(self)}
        facts |= {"gated": gated} if gated else {}
        return identity.of_facts(facts | ({"control": list(control)} if control else {}))


def foreign(config: Mapping[str, Any]) -> list[str]:
    return [key for key in FOREIGN if config.get(key) not in (None, False)]


def check(config: Mapping[str, Any]) -> None:
    """Refuse networks that are more than a picture, a time and a text."""
    sides = ("down_block_types", "up_block_types")
    blocks = {config.get("mid_block_type"), *(kind for side in sides for kind in config.get(side, ()))}
    strange = sorted(str(each) for each in blocks - BLOCKS - {None})
    asked = foreign(config)
    given, made = config.get("in_channels", 4), config.get("out_channels", 4)
    if config.get("attention_type") not in (None, "default", "gated"):
        asked.append(f"attention_type {config['attention_type']}")
    if given < made:
        asked.append(f"{given} channels in, {made} out")
    if strange or asked:
        raise UserError(
            "This image network cannot be run over frames.",
            came=", ".join([*strange, *asked]),
            expected="a network like Stable Diffusion 1 or 2: a noisy picture, a time and a text",
        )
