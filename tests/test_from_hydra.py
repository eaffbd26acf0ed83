"""Configurations that are composed from parts that are kept: the same as Hydra's own, whatever is typed."""

import pytest
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf

from experiments.config import from_hydra, plugins
from experiments.config.compose import composed
from freemask.errors import UserError

TYPED = {
    "nothing": "",
    "values": "seed=3 name=a data.clips=2 method.guidance=2.5",
    "an option and its values": "method=sdedit method.steps=2 method.strength=0.5",
    "a value before its option": "method.strength=0.5 method=sdedit",
    "an option twice, the last counts": "mask=oracle seed=1 mask=none seed=2",
    "lists and mappings": "only=[a,b] variants={a:['method=ddim','seed=1'],b:[]}",
    "mappings into an option": "model=random method.steps=4 method={steps:5} seed=1",
    "a key more, and one less": "+extra.deep=1 ++extra.deep=2 ~limit",
    "no mask": "~mask mask@other=oracle",
    "an experiment": "experiment=demo data.clips=1 +seed=3",
    "what refers to what is typed": "kind=style task=shape paths.runs=elsewhere",
    "Hydra's own": "hydra.sweep.dir=x seed=4",
    "several metrics": "metric=[pixels,warp] limit=2",
}


def of_hydra(overrides):
    plugins.register()
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("run", overrides=overrides, return_hydra_config=True)
    chosen = dict(cfg.hydra.runtime.choices)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return OmegaConf.to_container(cfg), chosen


def of_ours(overrides):
    made = from_hydra.made("run", overrides)
    return OmegaConf.to_container(made.cfg), made.chosen


@pytest.mark.parametrize("typed", TYPED.values(), ids=TYPED)
def test_parts_that_are_kept_make_what_hydra_makes(typed):
    found = []
    for make in (of_hydra, of_ours, of_ours):
        try:
            found.append(make(typed.split()))
        except HydraException as error:
            found.append(str(error))
    assert found[0] == found[1] == found[2]


def test_whoever_changes_a_configuration_changes_no_other():
    first = composed("run", ["seed=3"]).cfg
    first.seed, first.data.clips = 5, 7
    again = composed("run", ["seed=3"]).cfg
    assert again.seed == 3 and again.data.clips != 7
    given = from_hydra.parse("only=[a,b]")
    composed("run", ["only=[a,b]", "++only=[c]"])
    assert given.value() == ["a", "b"]


def test_files_are_read_once_for_all_values(monkeypatch):
    composed("run", ["model=random", "seed=3"])
    monkeypatch.setattr(from_hydra, "compose", lambda *_, **__: pytest.fail("the files were read again"))
    assert composed("run", ["seed=4", "model=random", "method.steps=3"]).cfg.method.steps == 3
    with pytest.raises(UserError, match="method.stps"):
        composed("run", ["model=random", "method.stps=3"])
