"""One Lightning loop for every embedded model: averaged weights, exact resuming, progress, logs. On a GPU a whole step
is one graph: these networks are so small that launching their kernels one by one takes longer than the kernels."""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from torch import Generator, Tensor

from experiments.workshop.job import TrainingJob
from experiments.workshop.muon import Muon, foreach

STEEPEST = 1.0  # norm of all gradients together
WARM = 3  # steps before a graph is taken, which libraries use to choose their kernels


def rate(step: int, done: float, *, warmup: int, decay: float) -> float:
    """Linear warm-up, a plateau, then a straight fall to zero over the last `decay` of all. `done`: how much of it is
    behind, by steps or by the clock."""
    return min(1.0, (step + 1) / max(1, warmup)) * min(1.0, max(0.0, (1 - done) / max(decay, 1e-9)))


class Loop(LightningModule):
    """The job draws its data from a generator seeded by (seed, step, rank), so a resumed run sees the data that an
    undisturbed one would have. With `seconds` the clock says how far it is, over all starts together."""

    def __init__(self, job: TrainingJob, settings: Mapping, seed: int, *, graph: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.job, self.settings, self.seed = job, settings, seed
        self.average = copy.deepcopy(job.networks()).requires_grad_(False)
        self.earlier, self._begun, self._graphs = 0.0, None, graph
        self._graph: tuple[Any, tuple[Tensor, ...], Tensor] | None = None

    def configure_optimizers(self) -> Muon:
        return Muon(self.job.groups(self.settings["matrix_lr"], self.settings["vector_lr"]))

    def on_train_start(self) -> None:
        self.now, self.mean = list(self.job.networks().parameters()), list(self.average.parameters())
        self.learning = [each for each in self.now if each.requires_grad]
        for each in self.learning:
            each.grad = torch.zeros_like(each)
        self.factor, self.follow = torch.zeros(2, device=self.device).unbind()

    def training_step(self, _batch: Tensor, _index: int) -> None:
        step, done = self.global_step, self.done()
        if done >= 1:
            self.trainer.should_stop = True
            return
        shape = {key: self.settings[key] for key in ("warmup", "decay")}
        self.factor.fill_(rate(step, done, **shape))
        self.follow.fill_(1 - min(self.settings["average"], (step + 1) / (step + 10)))
        rng = Generator(self.device).manual_seed((self.seed * 1_000_003 + step) * 64 + self.global_rank)
        batch = self.job.batch(rng)
        optimiser: Any = self.optimizers()
        self.log("loss", optimiser.step(closure=lambda: self._one(batch)), prog_bar=True)
        self.log("done", done, prog_bar=True)

    def done(self) -> float:
        if self.settings.get("seconds") is None:
            return self.global_step / self.settings["steps"]
        self._begun = self._begun or monotonic()
        return (self.earlier + monotonic() - self._begun) / self.settings["seconds"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["seconds"] = self.earlier + (monotonic() - self._begun if self._begun else 0)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.earlier = checkpoint.get("seconds", 0.0)

    def _one(self, batch: tuple[Tensor, ...]) -> Tensor:
        if not self._graphs:
            return self._step(*batch)
        if self._graph is None:
            self._graph = self._captured(batch)
        graph, places, loss = self._graph
        for place, value in zip(places, batch, strict=True):
            place.copy_(value)
        graph.replay()
        return loss.clone()

    def _step(self, *batch: Tensor) -> Tensor:
        """Everything that changes, in order. The average follows here: checkpoints are written right after it."""
        gradients = [each.grad for each in self.learning if each.grad is not None]
        foreach._foreach_zero_(gradients)
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=on_gpu, cache_enabled=False):
            loss = self.job.loss(*batch)
        self.manual_backward(loss)
        with torch.no_grad():
            norm = torch.stack(foreach._foreach_norm(gradients)).norm()
            foreach._foreach_mul_(gradients, (STEEPEST / (norm + 1e-6)).clamp(max=1.0))
            self._optimiser().update(self.factor)
            moved = foreach._foreach_sub(self.now, self.mean)
            foreach._foreach_mul_(moved, self.follow)
            foreach._foreach_add_(self.mean, moved)
        return loss.detach()

    def _captured(self, batch: tuple[Tensor, ...]) -> tuple[Any, tuple[Tensor, ...], Tensor]:
        """A graph of the step, where its batch is to be put, and where it leaves the loss. Steps that warm up change
        nothing: all that they touch is put back."""
        places = tuple(each.clone() for each in batch)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        before = [each.detach().clone() for each in (*self.now, *self.mean)]
        remembered = [each.clone() for each in self._optimiser().tensors()]
        with torch.cuda.stream(side):
            for _ in range(WARM):
                self._step(*places)
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():
            foreach._foreach_copy_([*self.now, *self.mean], before)
            tensors = self._optimiser().tensors()
            foreach._foreach_copy_(tensors, remembered or [torch.zeros_like(each) for each in tensors])
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._step(*places)
        return graph, places, loss

    def _optimiser(self) -> Muon:
        found: Any = self.optimizers(use_pl_optimizer=False)
        return found


class Endless(torch.utils.data.IterableDataset):
    """Lightning wants data; the job draws its own. The trainer stops at its number of steps."""

    def __iter__(self) -> Iterator[int]:
        return itertools.repeat(0)


def fit(build: Callable[[], TrainingJob], settings: Mapping, folder: Path, run: Mapping) -> Loop:
    """Train to the configured number of steps, or by the clock, continuing from the last checkpoint in `folder`."""
    torch.manual_seed(run["seed"])
    on_gpu, processes = run["accelerator"] == "gpu", run["processes"]
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    else:
        torch.set_num_threads(1)
    loop = Loop(build(), settings, run["seed"], graph=on_gpu and processes == 1)
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
        max_epochs=-1,
        max_steps=-1 if settings.get("seconds") is not None else settings["steps"],
        accelerator=run["accelerator"],
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        callbacks=[saver, TQDMProgressBar(refresh_rate=10)],
        logger=log,
        log_every_n_steps=10,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    loader = torch.utils.data.DataLoader(Endless(), batch_size=1)
    trainer.fit(loop, loader, ckpt_path=last if last.exists() else None, weights_only=False)
    return loop
