"""Which figures of the papers there are: their lines, where their frames come from, and what stands below them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from freemask.errors import UserError, nearest

SOURCE = "source"  # the clip itself, as a line of a figure


@dataclass(frozen=True)
class PaperFigure:
    """`lines`: a label for each variant, in order; `source` is the clip. `kinds`: a block of frames for each of these
    kinds of edit. `fold`: so many strips below each other before the next column begins."""

    name: str
    title: str
    caption: str
    experiment: str
    verb: str = "run"
    lines: Mapping[str, str] = field(default_factory=dict)
    kinds: Sequence[str] = ()
    each: int = 1
    fold: int | None = None

    @property
    def file_name(self) -> str:
        return self.name.replace("/", "-")


FIGURES = {
    figure.name: figure
    for figure in (
        PaperFigure(
            "freemask/1",
            "FreeMask, Fig. 1",
            "How well a word's attention shows its object: mask matching costs (1 / IoU) over times and layers, with "
            "95 % intervals over clips; the best of each is circled.",
            "freemask/fig1",
            verb="calibrate",
        ),
        PaperFigure(
            "freemask/3",
            "FreeMask, Fig. 3",
            "Stylization, attribute editing and shape editing by each method.",
            "freemask/table2",
            lines={
                SOURCE: "source",
                "fatezero": "FateZero",
                "tokenflow": "TokenFlow",
                "controlvideo": "ControlVideo",
                "anyv2v": "AnyV2V",
                "tune_a_video": "Tune-A-Video",
                "video_p2p": "Video-P2P",
                "freemask": "FreeMask",
            },
            kinds=("style", "attribute", "shape"),
        ),
        PaperFigure(
            "freemask/4",
            "FreeMask, Fig. 4",
            "Ablation on a shape edit: (a) the source; (b) sampling from the inverted latent; (c) to (h) one kind of "
            "attention fused on top of (b), first everywhere, then masked; (i) and (j) masked fusion of all three "
            "without TMMC or LMMC; then with both, and with blended latents.",
            "freemask/fig4",
            lines={
                SOURCE: "(a) source",
                "b": "(b) DDIM",
                "c_self": "(c) self",
                "d_masked_self": "(d) masked self",
                "e_cross": "(e) cross",
                "f_masked_cross": "(f) masked cross",
                "g_temporal": "(g) temporal",
                "h_masked_temporal": "(h) masked temporal",
                "i_without_tmmc": "(i) no TMMC",
                "j_without_lmmc": "(j) no LMMC",
                "masked": "all masked",
                "full": "and latents",
            },
            kinds=("shape",),
            fold=6,
        ),
        PaperFigure(
            "freemask/5",
            "FreeMask, Fig. 5",
            "Shape edits by FateZero, with its own masks and with masks from the codebook (MMC).",
            "freemask/fig5",
            lines={SOURCE: "source", "fatezero": "FateZero", "mmc": "FateZero + MMC"},
            kinds=("shape",),
            each=2,
        ),
        PaperFigure(
            "fatezero/8",
            "FateZero, Fig. 8",
            "Background edits with the attention of the inversion, and with that of a reconstruction of the clip (at "
            "the edit's guidance, and without guidance).",
            "fatezero/fig8",
            lines={
                SOURCE: "source",
                "inversion": "inversion",
                "reconstruction": "reconstruction",
                "reconstruction_unguided": "unguided",
            },
            kinds=("background",),
            each=2,
        ),
        PaperFigure(
            "fatezero/9",
            "FateZero, Fig. 9",
            "Shape edits with the inversion's self-attention nowhere, everywhere, and blended by the mask.",
            "fatezero/fig9",
            lines={SOURCE: "source", "no_self": "nowhere", "everywhere": "everywhere", "blended": "blended"},
            kinds=("shape",),
            each=2,
        ),
    )
}


def figure_of(name: str) -> PaperFigure:
    if name not in FIGURES:
        raise UserError(
            f"there is no figure '{name}'", came=name, expected=nearest(name, FIGURES), todo="freemask figure"
        )
    return FIGURES[name]
