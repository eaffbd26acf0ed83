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
        "experiments.edit:main",
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
        "experiments.run:main",
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
            "method.steps=N    seed=N",
        ),
    ),
    "train": Verb(
        "train the embedded models, or measure them (what=report)",
        "experiments.train:main",
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
        "experiments.calibrate:main",
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
        "experiments.bench_fusion:main",
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
    "list": Verb(
        "what can be chosen in each group",
        "experiments.list:main",
        positional="group",
        json=True,
        examples=("freemask list", "freemask list method", "freemask list --json"),
    ),
    "doctor": Verb(
        "versions, devices, weights, data, and what an edit would need",
        "experiments.doctor:main",
        config="doctor",
        paths=PATHS,
        json=True,
        examples=(
            "freemask doctor",
            "freemask doctor model=zeroscope frames=24 height=320 width=576",
            "freemask doctor data=davis",
        ),
        keys=(
            "frames= height= width=   the clip of the forecast",
            "model= method= data=     what is looked at",
        ),
    ),
}
