"""`freemask app`: a page to play with, served to this machine's browser: look, paint the mask, edit, compare."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from experiments.app.serve import serve
from experiments.cli.verb import PATHS, Verb
from experiments.config.compose import plain
from experiments.config.options import Keys

VERB = Verb(
    "a page in the browser: see where the model sees a word, paint the mask, edit, compare",
    prompts=("host", "token"),
    paths=PATHS,
    examples=(
        "freemask app",
        "freemask app port=8000 data.clips=20",
        "freemask app model=zeroscope model.dtype=float16",
        "freemask app data=davis data.root=DAVIS data.tasks=tasks.yaml model=wan",
    ),
    notes=(
        'It needs Gradio: pip install "freemask[app]". What is said here holds for every edit of the page; the rest',
        "is chosen there. The page shows the `freemask edit` that does the same. Nothing is loaded from elsewhere.",
    ),
)

PLACE = ("host", "port", "token")  # of the page, not of its edits


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/app.yaml."""

    seed: int
    host: str
    port: int
    token: str | None


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    options = Options.of(plain(cfg))
    words = [each for each in flags.get("overrides", ()) if each.partition("=")[0] not in PLACE]
    serve(words, options.host, options.port, options.token, bool(flags.get("debug")))
    return 0
