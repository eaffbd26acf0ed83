"""What a stage of the training is to the loop: networks that are taught, a loss, rates."""

from torch import Generator, Tensor, nn

from experiments.workshop.muon import split_parameters


class TrainingJob(nn.Module):
    """`taught` names the attributes that hold the networks."""

    taught: tuple[str, ...]

    def networks(self) -> nn.ModuleDict:
        return nn.ModuleDict({name: getattr(self, name) for name in self.taught})

    def groups(self, matrix_lr: float, vector_lr: float) -> list[dict]:
        return split_parameters(self.networks(), matrix_lr=matrix_lr, vector_lr=vector_lr)

    def loss(self, rng: Generator) -> Tensor:
        """Of a batch that it draws itself, from this generator alone."""
        raise NotImplementedError
