"""`freemask evaluate`: measure stored frames again, or for the first time what somebody else's code has made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from experiments.cli.verb import PATHS, Verb
from experiments.config.compose import plain
from experiments.config.options import Keys
from experiments.jobs.again import measure_run
from experiments.jobs.outside import measure_manifest
from freemask.errors import UserError, nearest

VERB = Verb(
    "measure the stored frames of a run again, or videos that other people's code made",
    prompts=("name", "method_name"),
    paths=("run", "manifest", *PATHS),
    positional="run",
    examples=(
        "freemask evaluate demo metric=st_modulator",
        "freemask evaluate runs/demo redo=true",
        "freemask evaluate manifest=theirs/edits.csv method_name=tokenflow",
        "freemask evaluate manifest=edits.yaml data=davis data.tasks=tasks.yaml name=rivals",
    ),
    keys=(
        "run=NAME          a run whose frames were kept (keep=all), or its folder; new rows, old ones stay",
        "metric=SUITE      what to measure; numbers that are there already are not measured again",
        "redo=true         measure everything again",
        "data=...          left out, the data of the run; for a manifest, the data whose tasks it names",
        "manifest=FILE     a list (.csv, .yaml, .json) of edited videos or folders of frames:",
        "                    edited,method,task",
        "                    out/1.mp4,tokenflow,world-10000000-attribute",
        "                  or, instead of task, columns clip,source,target,words,kind (and region, id)",
        "                  other sizes are brought to the source's, of other lengths the shorter counts",
        "method_name=NAME  the method of entries that name none",
        "name=NAME         the folder below paths.runs for a manifest's rows",
        "keep=all|none     whether frames, videos and sheets of a manifest stay",
    ),
)

KEEP = ("all", "none")


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/evaluate.yaml."""

    run: str | None
    manifest: str | None
    name: str | None
    method_name: str | None
    redo: bool
    keep: str

    def __post_init__(self) -> None:
        if (self.run is None) is (self.manifest is None):
            raise UserError(
                "what is to be measured?",
                came="a run and a manifest" if self.run is not None else "neither a run nor a manifest",
                expected="the folder of a run, or a list of videos made by other code",
                todo="freemask evaluate RUN, or freemask evaluate manifest=FILE; --help shows both",
            )
        if self.keep not in KEEP:
            raise UserError(
                f"keep cannot be '{self.keep}'", came=f"keep={self.keep}", expected=nearest(self.keep, KEEP)
            )
        for key in ("name", "method_name"):
            if self.run is not None and getattr(self, key) is not None:
                raise UserError(
                    f"{key} belongs to a manifest",
                    came=f"run={self.run} {key}={getattr(self, key)}",
                    expected="the rows of a run keep the names that they have",
                )


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    if options.manifest is not None:
        return measure_manifest(config, options.manifest, name=options.name, method=options.method_name)
    chosen = any(each.lstrip("+").startswith(("data=", "data.")) for each in flags.get("overrides", ()))
    return measure_run(config, str(options.run), own_data=not chosen)
