"""From a variant's configuration to what a worker needs: one model and one suite of metrics for all that share them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evaluation.suite import Suite
from experiments.config import choices
from experiments.config.build import build
from experiments.jobs.bench import Bench
from freemask.types import DataSource

# A variant's configuration, and what its rows say of it.
Described = tuple[Mapping[str, Any], Mapping[str, Any]]


def make_bench(config: Mapping[str, Any], about: Mapping[str, Any]) -> Bench:
    """Small parts first, so that a mistake shows before the model is loaded."""
    method = build(config["method"], "method")
    suite = Suite(build(config["metric"], "metric"))
    backbone = build(config["model"], "model")
    return Bench(backbone, method, suite, config["seed"], {**_facts(config, backbone), **about})


def make_benches(described: Sequence[Described]) -> list[Bench]:
    """One model and one suite of metrics for all of them."""
    first = make_bench(*described[0])
    benches = [first]
    for config, about in described[1:]:
        facts = {**_facts(config, first.backbone), **about}
        method = build(config["method"], "method")
        benches.append(replace(first, method=method, seed=config["seed"], about=facts))
    return benches


def fit(data: DataSource, backbone: Any) -> None:
    """Clips that are read from files come in sizes that the model can take."""
    asked = getattr(data, "geometry", None)
    if asked is not None:
        vars(data)["geometry"] = asked.fitted(multiple=backbone.multiple, native=backbone.native)


def method_name(config: Mapping[str, Any]) -> str:
    """As the user calls it; the class's name where that is not plain."""
    target = config["method"]["_target_"]
    known = [
        each.name
        for each in choices.group("method")
        if choices.content("method", each.name).get("_target_") == target
    ]
    return known[0] if len(known) == 1 else target.rpartition(".")[2].lower()


def _facts(config: Mapping[str, Any], backbone: Any) -> dict[str, Any]:
    return {
        "method": method_name(config),
        "steps": config["method"].get("steps"),
        "model": backbone.identity,
    }
