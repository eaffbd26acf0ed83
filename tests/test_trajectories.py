"""Trajectories against brute force, by hand, and as the released code has them; attention along them against loops."""

import time

import pytest
import torch

from freemask.attention import along
from freemask.attention.along import of_sites
from freemask.optical.trajectories import neighbours, on_cells, trajectories
from freemask.types import Grid, OpticalFlow
from tests.given import seeded


def flow_of(frames, height, width, seed=0, size=3.0, hidden=0.2):
    rng = seeded(seed)
    forth = size * torch.randn(frames - 1, 2, height, width, generator=rng)
    return OpticalFlow(forth, torch.rand(frames - 1, height, width, generator=rng) >= hidden)


def brute(flow, grid, variant, order=None):
    """Lists of cells (frame, row, column) of each point, by loops over points."""
    frames, height, width = grid
    high, wide = flow.forth.shape[-2:]
    middle = 0.5 if variant == "paper" else 0
    last, ended = [[((0, y, x), (0.0, 0.0))] for y in range(height) for x in range(width)], []
    points = last
    for t in range(frames - 1):
        into = {}
        for point in points:
            (_, y, x), (rest_y, rest_x) = point[-1]
            at = int((y + middle) * high / height), int((x + middle) * wide / width)
            dx, dy = (float(flow.forth[t, i][at]) for i in (0, 1))
            dx, dy = dx * width / wide, dy * height / high
            if variant == "paper":
                dy, dx = dy + rest_y, dx + rest_x
                row, column = int((y + dy + 0.5) // 1), int((x + dx + 0.5) // 1)
                alive, cost = bool(flow.seen[t][at]), (y + dy - row) ** 2 + (x + dx - column) ** 2
            else:
                row, column = y + round(dy), x + round(dx)
                alive, cost = True, float(order[t, y, x])
            if alive and 0 <= row < height and 0 <= column < width:
                rest = (y + dy - row, x + dx - column) if variant == "paper" else (0.0, 0.0)
                into.setdefault((row, column), []).append((cost, y * width + x, point, rest))
            else:
                ended.append(point)
        points = []
        for y in range(height):
            for x in range(width):
                came = sorted(into.get((y, x), ()), key=lambda each: each[:2])
                ended += [each[2] for each in came[1:]]
                points.append(
                    [*(came[0][2] if came else ()), ((t + 1, y, x), came[0][3] if came else (0, 0))]
                )
    return [[cell for cell, _ in point] for point in ended + points]


def cells_of(point, grid):
    return [(t * grid.height + y) * grid.width + x for t, y, x in point]


GRIDS = [(Grid(4, 6, 10), (24, 40)), (Grid(3, 5, 8), (13, 20)), (Grid(2, 7, 3), (7, 3))]


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize(("grid", "size"), GRIDS, ids=str)
def test_they_are_those_of_loops_over_points(grid, size, variant):
    flow = flow_of(grid.frames, *size)
    order = torch.rand(grid.frames - 1, *grid[1:], generator=seeded(7), dtype=torch.float64)
    found = trajectories(flow, grid, variant=variant, rng=seeded(7))
    expected = sorted(cells_of(point, grid) for point in brute(flow, grid, variant, order))
    made = [[int(cell) for cell in row if cell >= 0] for row in found.sites]
    assert sorted(made) == expected
    assert all(int(cell) in made[number] for cell, number in enumerate(found.of))
    lengths = {cell: len(point) for point in expected for cell in point}
    assert len(lengths) == grid.frames * grid.height * grid.width == len(found.of)
    assert found.mean_length == pytest.approx(sum(lengths.values()) / len(lengths))


def steady(dx, dy=0.0, frames=5, size=(16, 32)):
    forth = torch.tensor([dx, dy]).float()[None, :, None, None].expand(frames - 1, 2, *size)
    return OpticalFlow(forth.clone(), torch.ones(frames - 1, *size, dtype=torch.bool))


def path_of(found, cell):
    width = found.grid.width
    return [(int(each) % (found.grid.height * width)) % width for each in found.sites[found.of[cell].long()]]


def test_what_rounding_leaves_over_is_kept_for_the_next_step():
    """1.5 pixels are 3/8 of a cell: the released code never moves, the other is never more than half a cell off."""
    grid = Grid(5, 4, 8)
    assert path_of(trajectories(steady(1.5), grid), 2) == [2, 2, 3, 3, 4]
    assert path_of(trajectories(steady(1.5), grid, variant="official", rng=seeded(0)), 2) == [2] * 5
    halves = trajectories(steady(2.0, frames=2), Grid(2, 4, 8))  # all that move alike stay apart
    assert len(halves.sites) == 4 * 8 + 4 and path_of(halves, 3) == [3, 4] and path_of(halves, 4) == [4, 5]


def test_of_points_that_meet_the_nearest_goes_on_and_where_none_comes_one_begins():
    flow = steady(0.0, frames=2, size=(1, 4))
    flow.forth[0, 0, 0] = torch.tensor([1.0, 0.25, -0.75, 9.0])  # to 1, 1.25, 1.25, and out of the picture
    found = trajectories(flow, Grid(2, 1, 4))
    assert found.of.tolist() == [0, 1, 2, 3, 4, 0, 5, 6]
    flow.seen[0, 0, 0] = False  # hidden: of the others, which are as near, the first goes on
    assert trajectories(flow, Grid(2, 1, 4)).of.tolist() == [0, 1, 2, 3, 4, 1, 5, 6]


def test_the_flow_of_a_cell_is_that_of_its_middle_pixel_in_cells():
    forth = torch.arange(2 * 8 * 12).reshape(1, 2, 8, 12).float()
    flow = OpticalFlow(forth)
    middle, seen = on_cells(flow, Grid(2, 2, 3), middle=True)
    first, _ = on_cells(flow, Grid(2, 2, 3), middle=False)
    assert torch.equal(middle[0], forth[0, :, 2::4, 2::4].double() / 4) and bool(seen.all())
    assert torch.equal(first[0], forth[0, :, ::4, ::4].double() / 4)


@pytest.mark.parametrize("frames", [3, 5, 12])
def test_neighbours_fill_in_where_no_point_lasts_in_the_released_code_alone(frames):
    """The last frames - 1 entries of [itself, its neighbours, nothing for those outside, its point elsewhere]."""
    grid, window = Grid(frames, 3, 4), 1
    flow = flow_of(frames, 3, 4, size=9.0)  # nearly everything leaves the picture
    found = trajectories(flow, grid, variant="official", rng=seeded(1), window=window)
    longest = int(found.lengths.max())
    assert longest < frames
    rows = found.rows(slice(5, 30))
    for cell, row in zip(range(5, 30), rows.tolist(), strict=True):
        t, y, x = cell // 12, cell // 4 % 3, cell % 4
        beside = [
            (t * 3 + y + i) * 4 + x + j
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            if (i, j) != (0, 0) and 0 <= y + i < 3 and 0 <= x + j < 4
        ]
        beside += [-1] * (8 - len(beside))
        assert neighbours(torch.tensor([cell]), grid, window)[0].tolist() == beside
        others = [int(each) for each in found.sites[found.of[cell].long()] if each not in (-1, cell)]
        whole = [cell, *beside, *others, *[-1] * (longest - 1 - len(others))]
        expected = [cell, *whole[-(frames - 1) :]]
        assert sorted(each for each in row if each >= 0) == sorted(each for each in expected if each >= 0)
    plain = trajectories(flow, grid, variant="paper", window=window)
    assert plain.lacking == 0 and plain.rows(slice(0, 4)).shape == (4, frames)


def test_one_frame_and_many():
    still = trajectories(OpticalFlow(torch.zeros(0, 2, 4, 4)), Grid(1, 2, 2))
    assert still.of.tolist() == [0, 1, 2, 3] and still.sites.tolist() == [[0], [1], [2], [3]]
    began, grid = time.process_time(), Grid(64, 64, 64)
    many = trajectories(flow_of(64, 128, 128, size=1.0), grid)
    assert many.sites.numel() <= len(many.of) * 64 and time.process_time() - began < 5


def test_other_motion_has_another_digest():
    grid = Grid(3, 4, 4)
    first, again, other = (trajectories(flow_of(3, 8, 8, seed=seed), grid).digest for seed in (0, 0, 1))
    assert first == again != other


# --- attention ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_attention_along_them_is_that_of_loops(monkeypatch, variant):
    """In pieces of a few queries; the official ones with neighbours."""
    monkeypatch.setattr(along, "PIECE", 200)
    grid = Grid(4, 3, 5)
    found = trajectories(
        flow_of(4, 12, 20, size=12.0),
        grid,
        variant=variant,
        rng=seeded(0),
        window=2 if variant == "official" else 0,
    )
    q, k, v = torch.randn(3, 2, 3, 60, 4, generator=seeded(3), dtype=torch.float64)
    made = of_sites(q, k, v, 0.5, found.rows)
    for cell, row in enumerate(found.rows(slice(None))):
        sites = row[row >= 0].long()
        for stream in range(2):
            for head in range(3):
                weights = (k[stream, head, sites] @ q[stream, head, cell] * 0.5).softmax(0)
                expected = weights @ v[stream, head, sites]
                torch.testing.assert_close(made[stream, head, cell], expected, atol=1e-12, rtol=0)
