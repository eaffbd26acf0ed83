"""Which noise path a checkpoint was trained on, by its scheduler file."""

from collections.abc import Mapping
from typing import Any

from freemask.diffusion.flow import Flow
from freemask.diffusion.noise_paths import Ddim


def noise_path(config: Mapping[str, Any]) -> Ddim | Flow:
    """From the content of a scheduler_config.json of diffusers."""
    return Flow.from_config(config) if is_flow(config) else Ddim.from_config(config)


def is_flow(config: Mapping[str, Any]) -> bool:
    """Some schedulers serve both kinds of path, and say so by a switch."""
    named = "flow" in str(config.get("_class_name", "")).lower()
    return named or bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"
