"""`freemask train`: make the embedded models again, or measure them."""

import sys
import warnings
from collections.abc import Sequence

from hydra import compose, initialize_config_module
from hydra.utils import get_method
from omegaconf import OmegaConf


def main(overrides: Sequence[str]) -> int:
    """Compose conf/train.yaml with the overrides and run the recipe that `what` names."""
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("train", overrides=list(overrides))
    run = OmegaConf.to_container(cfg, resolve=True)
    settings = run.pop("what")
    recipe = get_method(settings.pop("_target_"))
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    recipe(run, **settings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
