"""Which noise path a checkpoint was trained on, by its scheduler file."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from freemask.diffusion.flow import Flow
from freemask.diffusion.noise_paths import Ddim
from freemask.errors import UserError


def noise_path(
    config: Mapping[str, Any], *, grid: str | None = None, shift: float | int | None = None
) -> Ddim | Flow:
    """From the content of a scheduler_config.json of diffusers; `grid` and `shift` stand in for what it says."""
    if is_flow(config):
        path = Flow.from_config(config, shift)
        return replace(path, grid=grid or path.grid)
    if grid is not None or shift is not None:
        raise UserError(
            "Grid and shift are those of flow matching.",
            came=f"grid={grid}, shift={shift}",
            expected="null: the checkpoint's noise path is another",
        )
    return Ddim.from_config(config)


def is_flow(config: Mapping[str, Any]) -> bool:
    """Some schedulers serve both kinds of path, and say so by a switch."""
    named = "flow" in str(config.get("_class_name", "")).lower()
    return named or bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"
