"""The stored masks of a Video-P2P case: put in the place of ours, and compared with them. Rows are source and target;
the target's binary mask is the union of both."""

from dataclasses import dataclass, replace

from torch import Tensor

from freemask.attention.record import Recording
from freemask.masks.heat import running, text_layers
from freemask.masks.plan import Keeps, MaskPlan, Wanted
from freemask.masks.strategies.official import HEAT
from freemask.types import Grid
from tests.official.case import Edit
from tests.official.ledger import FORCED, furthest
from tests.official.tuned import Scene

MARGIN = 1e-4  # how near to the threshold a pixel may differ
STRIDE = 4  # of the layers whose maps make masks
USES = ("self", "latent")  # what our plan answers of the source alone, and of both


@dataclass(frozen=True)
class StoredMasks:
    """`ours`: the plan of our own edit."""

    scene: Scene
    edit: Edit
    ours: MaskPlan | None

    def plan(self) -> MaskPlan:
        """The stored ones."""
        assert self.ours is not None

        def mask(wanted: Wanted) -> Tensor:
            i = self.scene.steps - 1 - self.scene.times.index(wanted.t)
            return self.scene.case[f"edit/blend_mask/step{i:02d}"][-1].float()

        return replace(self.ours, mask=mask)

    def judge(self, i: int) -> None:
        name, scene = f"edit/blend_soft/step{i:02d}", self.scene
        if name not in scene.case:
            return
        if self.ours is None or self.ours.soft is None:
            scene.exactly("edit: masks, share wrong", f"step {i}: ours has none", 1.0)
            return
        soft = scene.case[name].nan_to_num(0)
        near = ((soft - self.edit.threshold).abs() < MARGIN).any(0)
        for row in range(len(USES)):
            wanted, where = self._wanted(i, row, soft[row]), f"step {i} {('source', 'union')[row]}"
            error = furthest(self.ours.soft(wanted), soft[: row + 1].amax(0))
            scene.ledger.note("edit: soft masks", FORCED, where, error, 1e-4)
            wrong = self._differs(i, row) & ~near
            scene.exactly("edit: masks, share wrong", where, float(wrong.float().mean()))

    def judge_word_maps(self, keeps: Keeps, source: Recording, target: Recording) -> None:
        """The stored map is called the first, and is the last: the sum over all steps."""
        case, layers = self.scene.case, text_layers(self.scene.backbone.sites, (STRIDE,))
        for row, (side, heard) in enumerate(((keeps.source, source), (keeps.target, target))):
            if side and "edit/blend_word_map_first" in case:
                heat, theirs = (
                    running(heard, layers, self.scene.times[0], HEAT),
                    case["edit/blend_word_map_first"],
                )
                self.scene.judge("edit: word maps", ("source", "target")[row], heat, theirs[row])

    def flipped(self, i: int) -> bool:
        """Whether a pixel of our union is not the stored one's."""
        stored = f"edit/blend_mask/step{i:02d}" in self.scene.case and self.ours is not None
        return stored and bool(self._differs(i, 1).any())

    def _differs(self, i: int, row: int) -> Tensor:
        assert self.ours is not None
        theirs = self.scene.case[f"edit/blend_mask/step{i:02d}"][row].float()
        return self.ours(self._wanted(i, row, theirs)) != theirs

    def _wanted(self, i: int, row: int, like: Tensor) -> Wanted:
        return Wanted(USES[row], self.scene.place(i).t, Grid(*like.shape))
