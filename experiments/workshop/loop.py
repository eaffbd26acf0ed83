"""One Lightning loop for every embedded model: averaged weights, exact resuming, progress, logs."""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from torch import Generator, Tensor

from experiments.workshop.job import TrainingJob
from experiments.workshop.muon import Muon


def rate(step: int, *, steps: int, warmup: int, decay: float) -> float:
    """Linear warm-up, a plateau, then a straight fall to zero over the last `decay` of the steps."""
    fall = max(1, round(steps * decay))
    return min(1.0, (step + 1) / max(1, warmup)) * min(1.0, max(0.0, (steps - step) / fall))


class Loop(LightningModule):
    """The job draws its data from a generator seeded by (seed, step, rank), so a resumed run sees the data that an
    undisturbed one would have."""

    def __init__(self, job: TrainingJob, settings: Mapping, seed: int) -> None:
        super().__init__()
        self.job, self.settings, self.seed = job, settings, seed
        self.average = copy.deepcopy(job.networks()).requires_grad_(False)

    def training_step(self, _batch: Tensor, _index: int) -> Tensor:
        rng = Generator().manual_seed((self.seed * 1_000_003 + self.global_step) * 64 + self.global_rank)
        loss = self.job.loss(rng)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        shape = {key: self.settings[key] for key in ("steps", "warmup", "decay")}
        optimiser = Muon(self.job.groups(self.settings["matrix_lr"], self.settings["vector_lr"]))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, **shape))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(self, *args, **kwargs) -> None:
        """The average follows here, not in a batch-end hook: checkpoints are written before those run."""
        super().optimizer_step(*args, **kwargs)
        keep = min(self.settings["average"], (self.global_step + 1) / (self.global_step + 10))
        now, mean = self.job.networks().state_dict(), self.average.state_dict()
        for name, value in mean.items():
            if value.is_floating_point():
                value.lerp_(now[name].to(value.dtype), 1 - keep)
            else:
                value.copy_(now[name])


class Endless(torch.utils.data.IterableDataset):
    """Lightning wants data; the job draws its own. The trainer stops at its number of steps."""

    def __iter__(self) -> Iterator[int]:
        return itertools.repeat(0)


def fit(build: Callable[[], TrainingJob], settings: Mapping, folder: Path, run: Mapping) -> Loop:
    """Train to the configured number of steps, continuing from the last checkpoint in `folder`."""
    torch.manual_seed(run["seed"])
    torch.set_num_threads(1)
    loop = Loop(build(), settings, run["seed"])
    last = folder / "last.ckpt"
    if run["fresh"]:
        last.unlink(missing_ok=True)
    saver = ModelCheckpoint(
        folder,
        filename="step",
        save_last=True,
        every_n_train_steps=settings["save_every"],
        enable_version_counter=False,
    )
    if run["logger"] == "wandb":
        log = WandbLogger(project="freemask", name=folder.name, save_dir=str(folder))
    else:
        log = CSVLogger(folder, name="log")
    trainer = Trainer(
        max_steps=settings["steps"],
        accelerator=run["accelerator"],
        devices=run["processes"],
        strategy="ddp" if run["processes"] > 1 else "auto",
        callbacks=[saver, TQDMProgressBar(refresh_rate=10)],
        logger=log,
        gradient_clip_val=1.0,
        log_every_n_steps=10,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    loader = torch.utils.data.DataLoader(Endless(), batch_size=1)
    trainer.fit(loop, loader, ckpt_path=last if last.exists() else None, weights_only=False)
    return loop
