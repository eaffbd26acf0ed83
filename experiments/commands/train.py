"""`freemask train`: make the embedded models again, or measure them."""

import warnings
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_method
from omegaconf import DictConfig

from experiments.cli.verb import PATHS, Verb
from experiments.config.compose import plain

VERB = Verb(
    "train the embedded models, or measure them (what=report)",
    paths=PATHS,
    examples=(
        "freemask train what=t2i",
        "freemask train what=t2i accelerator=gpu processes=1 what.batch=256",
        "freemask train what=report",
    ),
)


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    """Run the recipe that `what` names. Lightning starts further processes by repeating this command."""
    run = plain(cfg)
    settings = run.pop("what")
    recipe = get_method(settings.pop("_target_"))
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    recipe(run, **settings)
    return 0
