"""Groups of cells by k-means of self-attention, and which of them a word means."""

import pytest
import torch

from freemask.attention.record import Recording
from freemask.backbones.inflated2d import Inflated2D
from freemask.diffusion.inversions import Inversions, Wish
from freemask.errors import UserError
from freemask.masks.plan import Subject, Wanted
from freemask.masks.strategies.clusters import HEAT, WHO, Clusters, grouped, hottest, within_frames
from freemask.types import QKV, Clip, EditTask, Grid, Site, Where
from tests.given import seeded

TASK = EditTask("t", "c", "a red car", "a blue fish", {"car": "fish"}, "shape")


def planted(owner):
    """Cells look at those of their own group, and a little at all."""
    same = (owner[:, None] == owner[None]).double()
    rows = same / same.sum(1, keepdim=True) + 0.01 * torch.rand(len(owner), len(owner), generator=seeded(1))
    return rows.float()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_groups_are_found(seed):
    owner = torch.randint(0, 3, (40,), generator=seeded(seed))
    found = grouped(planted(owner), 3, seeded(seed + 7))
    for group in range(3):
        assert len(found[owner == group].unique()) == 1
    assert len(found.unique()) == 3


def test_rows_that_are_all_alike_are_one_group():
    found = grouped(torch.ones(6, 4), 3, seeded(0))
    assert len(found.unique()) == 1


def test_the_word_means_the_group_with_most_heat_on_average_not_in_all():
    groups = torch.tensor([0, 0, 0, 0, 0, 1])
    heat = torch.tensor([[0.3, 0.3, 0.3], [0.3, 0.3, 0.9]])
    assert hottest(groups, heat).tolist() == [[0, 0, 0], [0, 0, 1]]
    for nothing in (0.0, float("nan")):
        assert not hottest(groups, torch.full((2, 3), nothing)).any()


def test_each_frame_looks_at_itself_alone():
    q, k = torch.randn(2, 2, 3, 2, 5, 4, generator=seeded(0)).unbind(0)
    found = within_frames(
        Where(Site("x", "self", 1, look=("all",)), 1, Grid(3, 1, 5), ("a", "b")), QKV(q, k, k, 0.5)
    )
    assert found.shape == (3, 5, 5)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 5))
    one = torch.softmax(q[1, 2, 0] @ k[1, 2, 0].T * 0.5, -1) + torch.softmax(
        q[1, 2, 1] @ k[1, 2, 1].T * 0.5, -1
    )
    torch.testing.assert_close(found[2], one / 2)


def test_masks_of_a_clip_from_its_inversion():
    backbone = Inflated2D.random(0, max_tokens=20, attention="all", least_channels=0)
    clip = Clip("c", torch.rand(2, 3, 16, 16, generator=seeded(0)))
    subject = Subject.of(backbone, clip, TASK, backbone.noise_path.times(4))
    mask = Clusters(clusters=2, times=2)
    keeps = mask.keeps(subject)
    kept = (
        Inversions(None)
        .invert(
            backbone,
            backbone.encode(clip.frames),
            subject.given["source"],
            subject.times,
            wish=Wish(keeps.source),
        )
        .kept
    )
    assert {t for _, t in kept.all(WHO)} == {t for _, t in kept.all(HEAT)} == set(mask.chosen(subject.times))
    plan = mask.plan(subject, kept, Recording())
    found = plan(Wanted("latent", 1, Grid(2, 8, 8)))
    assert set(found.unique().tolist()) == {0.0, 1.0} and 0 < float(found.mean()) < 1
    assert torch.equal(found, mask.plan(subject, kept, Recording())(Wanted("self", 501, Grid(2, 8, 8))))


def test_which_times_are_taken():
    assert Clusters(times=2).chosen(list(range(10))) == [2, 7] and Clusters(times=9).chosen([1, 2]) == [1, 2]


@pytest.mark.parametrize("settings", [{"clusters": 1}, {"times": 0}, {"phrase": "some"}])
def test_settings_that_make_no_sense(settings):
    with pytest.raises(UserError):
        Clusters(**settings)


def test_a_word_that_the_prompt_has_not():
    backbone = Inflated2D.random(0, max_tokens=20)
    task = EditTask("t", "c", "a red car", "a blue fish", {"zebra": "fish"}, "shape")
    subject = Subject.of(backbone, Clip("c", torch.rand(1, 3, 16, 16)), task, [1])
    with pytest.raises(UserError, match="'zebra' is not in the prompt"):
        Clusters().keeps(subject)


def test_a_level_that_the_model_has_not():
    backbone = Inflated2D.random(0, max_tokens=20)
    subject = Subject.of(backbone, Clip("c", torch.rand(1, 3, 16, 16)), TASK, [1])
    with pytest.raises(UserError, match="stride"):
        Clusters(stride=64).keeps(subject)
