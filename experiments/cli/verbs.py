"""The verbs of the `freemask` command. To add one: an entry here, a module beside, and conf/<verb>.yaml."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """`main` is module:function and gets (config, flags); a verb without `config` gets its words instead.
    `texts` are keys whose values travel as plain text: prompts always, paths unless a sweep is asked for.
    `positional` is the key that a bare word stands for."""

    summary: str
    main: str
    config: str | None = None
    prompts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    positional: str | None = None
    multirun: bool = False
    json: bool = False
    examples: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


PATHS = (
    *("paths.runs", "paths.data", "model.path", "model.revision"),
    *("data.root", "data.tasks", "data.manifest", "data.regions", "data.clip"),
)
EDIT = ("data.edit.source", "data.edit.target")

VERBS = {
    "edit": Verb(
        "edit one clip and leave the mp4, a side-by-side and a contact sheet",
        "experiments.commands.edit:main",
        config="edit",
        prompts=("source", "target", "words", *EDIT),
        paths=("clip", "out", *PATHS),
        positional="clip",
        multirun=True,
        examples=(
            "freemask edit",
            'freemask edit clip=my.mp4 --source "a red car, driving" --target "a blue car, driving"',
            "freemask edit clip=frames/ source='a bear' target='a lion' words=bear:lion task=shape",
            'freemask edit my.mp4 --source "a cat" --target "a dog" model=zeroscope method.steps=50',
        ),
        keys=(
            "clip=PATH         a video, a folder of frames, a picture, or a clip of data=...",
            "source= target=   the two prompts, as plain text (or --source, --target)",
            "words=car:truck   which word becomes which; left out, it is read off the prompts",
            "out=FOLDER        where the results go",
            "frames= start= stride= size=   which frames of a file, and how large",
            "method=freemask mask=agreement fusion=paper   how; freemask list shows what else there is",
            "method.steps=N    seed=N",
        ),
    ),
    "run": Verb(
        "edit a task list with one method or several variants; leave rows, videos, a table and a page",
        "experiments.commands.run:main",
        config="run",
        prompts=("name", *EDIT),
        paths=PATHS,
        positional="name",
        multirun=True,
        examples=(
            "freemask run experiment=demo",
            "freemask run method=sdedit data=world data.clips=4 name=first",
            "freemask run experiment=freemask/masks only=[mmc,average] limit=4 method.steps=10",
            "freemask run -m method=ddim,sdedit method.steps=10,20",
            "freemask run data=folder data.root=clips data.tasks=tasks.yaml model=zeroscope",
        ),
        keys=(
            "name=NAME         the folder below paths.runs; the same command continues it",
            "limit=N           only the first N tasks",
            "task=shape        only the tasks of one kind",
            "variants= reference= only=   several configurations over one task list, compared in pairs",
            "keep=all|sample|none   which videos, sheets and frames stay",
            "retry=failed      do failed tasks again",
            "start=false       freeze the plan and tell what there is to do, nothing more",
            "method.steps=N    seed=N",
        ),
    ),
    "train": Verb(
        "train the embedded models, or measure them (what=report)",
        "experiments.commands.train:main",
        config="train",
        paths=PATHS,
        examples=(
            "freemask train what=t2i",
            "freemask train what=t2i accelerator=gpu processes=1 what.batch=256",
            "freemask train what=report",
        ),
        keys=(
            "what=codec|t2i|t2v|clip|report   the stages, in this order (clip needs none of the others)",
            "folder=FOLDER     corpus, checkpoints and logs; the same command continues",
            "weights=FOLDER    where finished weights go",
            "processes=N       one-thread processes on a CPU, devices on a GPU",
        ),
    ),
    "calibrate": Verb(
        "measure which layer and time give the best masks, and write the codebook that masks look up",
        "experiments.commands.calibrate:main",
        config="calibrate",
        prompts=("name",),
        paths=("paths.codebooks", *PATHS),
        positional="name",
        multirun=True,
        examples=(
            "freemask calibrate",
            "freemask calibrate model=zeroscope data=davis data.tasks=tasks.yaml model.device=cuda",
            "freemask calibrate binarise.preset=official overlap=two_class steps=20 limit=10",
            "freemask calibrate experiment=freemask/fig1",
        ),
        keys=(
            "name=NAME         the folder below paths.runs; the same command continues it",
            "steps=N           of the inversion; the times are measured that it passes",
            "binarise.preset=paper|official   how heat becomes a mask; binarise.threshold=0.3 and more beside it",
            "overlap=foreground|two_class     what a mask is judged by",
            "limit=N           only the first N words of clips",
            "install=false     do not copy the codebook into paths.codebooks",
            "retry=failed      do failed items again",
        ),
    ),
    "bench": Verb(
        "measure what fusion costs in time and memory, as ratios to an edit without it",
        "experiments.commands.bench:main",
        config="bench",
        prompts=("name", "source", "target", "words"),
        paths=("out", *PATHS),
        json=True,
        examples=(
            "freemask bench what=fusion",
            "freemask bench frames=[2,4,8] steps=[10,20] at_steps=20",
            "freemask bench model=zeroscope at_frames=16 grid_modes=[] method.budget_gb=64",
        ),
        keys=(
            "at_frames= at_steps=     the clip of the table; repeats=N of each time, the best one counts",
            "modes=[plain,recompute,cache_device,cache_host,cache_disk]   of the table",
            "frames=[...] steps=[...] grid_modes=[...]   over which peak memory is measured",
            "size=                    pixels, or [height, width]",
            "method.budget_gb=N       the most that the cache modes may keep",
            "out=FOLDER name=NAME     where the files go: bench-fusion-NAME; the same command continues",
            "fresh=true               forget what an earlier start has measured",
        ),
    ),
    "report": Verb(
        "one page about a run that works from disk: tables, videos in step, worst and best cases, costs",
        "experiments.commands.report:main",
        config="report",
        prompts=("run", "title", "out", "reference"),
        paths=("paths.runs",),
        positional="run",
        examples=(
            "freemask report runs/demo",
            "freemask report demo variants=[mmc,average] reference=average",
            "freemask report runs/first runs/second out=both.html",
        ),
        keys=(
            "RUN               a run's folder or its name below paths.runs; a sweep's folder joins its runs",
            "out=FOLDER        or out=NAME.html; otherwise index.html in the run's folder",
            "title=TEXT        of the page",
            "variants=[a,b]    these alone",
            "reference=NAME    the variant that the others are compared with",
        ),
    ),
    "table": Verb(
        "a paper's table from the rows of runs: ours, the published value, the difference, what is missing",
        "experiments.commands.table:main",
        config="table",
        prompts=("name", "reference", "out"),
        paths=("paths.runs",),
        positional="name",
        json=True,
        examples=(
            "freemask table freemask/2",
            "freemask table fatezero/1 runs=[fatezero-table1] reference=sdedit",
            "freemask table freemask/2 runs=[freemask-table2,tokenflow] out=paper",
        ),
        keys=(
            "NAME              freemask/1 freemask/2 fatezero/1 st-modulator/1 st-modulator/2 st-modulator/3",
            "runs=[A,B]        whose rows; left out, those of the table's own experiment (experiment=freemask/table2)",
            "out=FOLDER        where the .md, .tex, .csv, .html and .json go",
            "reference=LINE    the line that the others are compared with, task by task",
            "mixed=[commit]    average rows of one line that differ in commit, run or steps",
        ),
    ),
    "figure": Verb(
        "a paper's figure from runs and calibrations: curves, ablation grids, pictures, as PNG and PDF",
        "experiments.commands.figure:main",
        config="figure",
        prompts=("name", "out"),
        paths=("paths.runs",),
        positional="name",
        examples=(
            "freemask figure freemask/1",
            "freemask figure freemask/4 tasks=[world-10000001-shape]",
            "freemask figure freemask/3 runs=[freemask-table2] out=paper",
        ),
        keys=(
            "NAME              freemask/1 freemask/3 freemask/4 freemask/5 fatezero/8 fatezero/9",
            "runs=[A,B]        whose frames; left out, those of the figure's own experiment",
            "tasks=[ID,...]    which edits; left out, the first ones that every line finished",
            "frames=N          of each clip",
            "out=FOLDER        where the .png and .pdf go",
        ),
    ),
    "evaluate": Verb(
        "measure the stored frames of a run again, or videos that other people's code made",
        "experiments.commands.evaluate:main",
        config="evaluate",
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
    ),
    "status": Verb(
        "how far runs are: done, failed, left, time to go, and who is at work",
        "experiments.commands.status:main",
        paths=("paths.runs",),
        positional="name",
        json=True,
        examples=("freemask status", "freemask status NAME", "freemask status runs/sweep --json"),
        keys=(
            "name=NAME|FOLDER  one run, or all below a folder; without it every run",
            "paths.runs=FOLDER where the runs are",
        ),
    ),
    "list": Verb(
        "what can be chosen in each group",
        "experiments.commands.list:main",
        positional="group",
        json=True,
        examples=("freemask list", "freemask list method", "freemask list --json"),
    ),
    "doctor": Verb(
        "versions, devices, weights, data, and what an edit would need",
        "experiments.commands.doctor:main",
        config="doctor",
        paths=PATHS,
        json=True,
        examples=(
            "freemask doctor",
            "freemask doctor model=zeroscope frames=24 height=320 width=576",
            "freemask doctor data=davis data.root=DAVIS",
            "freemask doctor data=pexels data.manifest=pexels20 --json",
        ),
        keys=(
            "frames= height= width=   the clip of the forecast",
            "model= method=           what is looked at",
            "data=                    checked file by file: lists, counts, sizes, masks; exit code 1 if one is wrong",
        ),
    ),
}
