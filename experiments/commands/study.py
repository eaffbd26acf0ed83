"""`freemask study RUN`: a blind page that asks people about a run's edits; `study serve RUN`, `study read RUN`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from evaluation.tables import render
from experiments.cli.verb import Verb
from experiments.config.build import build
from experiments.config.compose import plain
from experiments.config.options import Keys, every
from experiments.runs.rows import file_name
from experiments.runs.run import find
from experiments.study import told
from experiments.study.answers import hear
from experiments.study.design import Design
from experiments.study.desk import Desk
from experiments.study.drawn import SAMPLE, turns
from experiments.study.folder import INDEX, KEY, Study, find_study
from experiments.study.results import results_of
from experiments.study.serve import server_of
from experiments.web.place import is_own
from freemask.errors import UserError

VERB = Verb(
    "ask people which edits are good: a blind page to give away, a small server, and what the answers say",
    prompts=("run", "name", "reference", "host", "token"),
    paths=("paths.runs",),
    positional="run",
    several=True,
    json=True,
    reads_rows=True,
    names={"run": "runs"},
    actions={"make": "do=make", "serve": "do=serve", "read": "do=read"},
    examples=(
        "freemask study demo",
        "freemask study fatezero-table1 design=fatezero",
        "freemask study demo design=paired design.sets=12 reference=ddim",
        "freemask study serve demo",
        "freemask study read demo",
    ),
    notes=(
        "The study lies in the run's folder: studies/NAME/page is for raters, studies/NAME/answers for what they send",
        "back. studies/NAME/key.json says which edit is whose: it never belongs into other hands.",
    ),
)

LONG = 45  # minutes


@dataclass(frozen=True)
class Options(Keys):
    """The plain keys of conf/study.yaml."""

    do: Literal["make", "serve", "read"]
    run: str | None
    name: str | None
    variants: str | Sequence[str] | None
    reference: str | None
    tasks: str | Sequence[str] | None
    seed: int
    host: str
    port: int
    token: str | None
    most: int
    allowed: int | None

    def __post_init__(self) -> None:
        if self.most < 1:
            raise UserError("most is too small", came=f"most={self.most}", expected="1 rater or more")
        if self.allowed is not None and self.allowed < 0:
            expected = "0 or more failed checks, or null: as the design says"
            raise UserError("allowed is too small", came=f"allowed={self.allowed}", expected=expected)


def main(cfg: DictConfig, flags: Mapping[str, Any]) -> int:
    config = plain(cfg)
    options = Options.of(config)
    asked = every(flags.get("overrides", ()), "run") or [str(options.run)] * (options.run is not None)
    if not asked:
        todo = "freemask study NAME, after freemask run name=NAME keep=all"
        raise UserError(
            "which run?", came="nothing", expected="the folder of a run whose videos were kept", todo=todo
        )
    folders = [find(each, config["paths"]["runs"]) for each in asked]
    if options.do == "make":
        if (folders[0] / KEY).is_file():
            todo = f"freemask study read {folders[0]}"
            raise UserError("this is a study already", came=folders[0], expected="a run", todo=todo)
        design = build(config["design"], "design")
        return _make(folders, design, str(flags["choices"].get("design") or design.kind), options)
    if len(folders) > 1:
        todo = f"freemask study {options.do} {folders[0]}"
        came = ", ".join(map(str, folders))
        raise UserError(
            "one study at a time", came=came, expected="the run in whose folder it lies", todo=todo
        )
    # A study is called as its design, unless it was given a name.
    said = every(flags.get("overrides", ()), "design")
    study = find_study(folders[0], options.name or (file_name(said[-1]) if said else None))
    return (
        _serve(study, options)
        if options.do == "serve"
        else _read(study, options, as_json=bool(flags.get("json")))
    )


def _make(folders: Sequence[Path], design: Design, chosen: str, options: Options) -> int:
    from experiments.study.gather import gather
    from experiments.study.made import make  # needs torch; serving and reading do without

    material = gather(folders, _listed(options.variants), options.reference, _listed(options.tasks))
    name = options.name or file_name(chosen)
    if name != file_name(name) or name.startswith("."):
        raise UserError(
            "this can be no folder's name", came=f"name={name}", expected=file_name(name).lstrip(".")
        )
    study, new = make(folders[0], name, design, material, options.seed)
    if new:
        for note in material.notes:
            print(f"note: {note}")
        count = len(turns(study.public, SAMPLE))
        tasks = len({each["task"] for each in study.meant.values()})
        print(f"{len(study.methods)} methods, {tasks} tasks; each rater is asked {count} times", end=", ")
        print(f"which takes about {study.public['minutes']} minutes")
        if study.public["minutes"] > LONG:
            print(
                "note: that is long; design.sets=N takes fewer edits, design.each=N shows each rater fewer of them"
            )
    else:
        print("this study is there already, and stays as it is")
        _came(study)
    print(f"the page for raters: {study.page / INDEX}  (give the whole folder, or freemask study serve ...)")
    print(f"answers go to:       {study.answers}")
    print(f"never give away:     {study.folder / KEY}")
    return 0


def _listed(value: str | Sequence[str] | None) -> list[str] | None:
    return None if value is None else [value] if isinstance(value, str) else [str(each) for each in value]


def _came(study: Study) -> None:
    heard = hear(study)
    left_out = f", {len(heard.left_out)} left out" if heard.left_out else ""
    print(f"answers of {told.many(len(heard.said), 'rater')} have come{left_out}")


def _serve(study: Study, options: Options) -> int:
    server = server_of(study, options.host, options.port, options.token, Desk(study, options.most))
    if not is_own(options.host):
        who = (
            "everyone who reaches this machine"
            if server.gate.token is None
            else "everyone who has this address"
        )
        print(f"warning: {who} can see the page and send answers, unencrypted")
    print(f"the study '{study.name}' is at {server.invitation}  (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    came, refused = server.desk.came, server.desk.refused
    print(
        f"answers of {told.many(len(came), 'rater')} came" + (f": {', '.join(came)}" if came else ""),
        end="",
    )
    print(f"; {refused} were refused" if refused else "")
    print(f"they lie in {study.answers}; freemask study read {study.folder} says what they mean")
    return 0


def _read(study: Study, options: Options, *, as_json: bool) -> int:
    found = results_of(study, options.allowed, options.reference)
    kept = told.write(found, study.folder)
    if as_json:
        print(json.dumps(told.record(found), indent=1, ensure_ascii=False, allow_nan=False))
        return 0
    if found.raters:
        print("\n\n".join(render.text(grid) for grid in told.grids(found)))
    else:
        print(f"no answers of the study '{study.name}' count yet; they are looked for in {study.answers}")
        for what, why in found.heard.left_out:
            print(f"  left out: {what}: {why}")
    for each in found.heard.said:
        print(f"comment of {each.rater}: {each.comment}\n" if each.comment else "", end="")
    print("\nfiles: " + ", ".join(str(path) for path in kept))
    return 0
