"""What is added to the logits of attention: against the softmax written out, by streams, and a piece at a time."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from freemask.attention import math
from freemask.attention.bias import Additive, KeyMask, Regions
from freemask.attention.math import attend, probabilities, word_mass
from freemask.types import QKV, Bias

S, B, HEADS, N, M, R = 3, 2, 2, 6, 7, 3


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def qkv(bias=None):
    return QKV(random(S, B, HEADS, N, 4), random(S, B, HEADS, M, 4, seed=1), random(S, B, HEADS, M, 5, seed=2), 0.7,
               bias=bias)  # fmt: skip


def regions(s=S, b=B):
    """Every query and every key has a strength in each region, of either sign."""
    return Regions(random(s, b, N, R, seed=3), random(s, b, M, R, seed=4))


def apart(s=S, b=B):
    """Every query in one region, every key in one or two: what shares none cannot see each other."""
    owner = torch.arange(s * b * N).reshape(s, b, N) % R
    keys = (random(s, b, M, R, seed=4) > 0.5).double()
    keys[..., 0, :] = 1
    return Regions(torch.nn.functional.one_hot(owner, R).double(), keys, only=True)


def key_mask(s=S, b=B):
    allowed = random(s, b, M, seed=7) > -0.3
    allowed[..., 2] = True
    return KeyMask(allowed)


# Each with its meaning for one query and one key, whose first two places may be shared by all.
def said_by(bias):
    def one(x, i, j):
        return x[i if len(x) > 1 else 0][j if x.shape[1] > 1 else 0]

    def allowed(i, j, h, n, m):
        return 0.0 if one(bias.allowed, i, j)[m] else float("-inf")

    def added(i, j, h, n, m):
        values = one(bias.values, i, j)
        return float(values[h if len(values) > 1 else 0][n if values.shape[1] > 1 else 0][m])

    def together(i, j, h, n, m):
        found = sum(
            q * k
            for q, k in zip(
                one(bias.queries, i, j)[n].tolist(), one(bias.keys, i, j)[m].tolist(), strict=True
            )
        )
        if bias.only:
            return 0.0 if found != 0 else float("-inf")
        return found

    return {KeyMask: allowed, Additive: added, Regions: together}[type(bias)]


def written_out(given):
    """softmax(q k^T scale + bias), number by number."""
    say, matrix = said_by(given.bias), torch.zeros(S, B, HEADS, N, M, dtype=torch.float64)
    for i, j, h, n in torch.cartesian_prod(*map(torch.arange, (S, B, HEADS, N))).tolist():
        logits = [
            float(given.q[i, j, h, n] @ given.k[i, j, h, m]) * given.scale + say(i, j, h, n, m)
            for m in range(M)
        ]
        if max(logits) == float("-inf"):
            continue  # nothing to look at
        weights = torch.tensor(
            [2.718281828459045 ** (each - max(logits)) for each in logits], dtype=torch.float64
        )
        matrix[i, j, h, n] = weights / weights.sum()
    return matrix


BIASES = {
    "keys": key_mask(),
    "keys, the same for all": key_mask(1, 1),
    "keys by streams": key_mask(S, 1),
    "keys by frames": key_mask(1, B),
    "numbers": Additive(random(S, B, HEADS, N, M, seed=8)),
    "numbers, the same for all queries": Additive(random(S, B, HEADS, 1, M, seed=8)),
    "numbers, the same for all heads": Additive(random(S, B, 1, N, M, seed=8)),
    "numbers, one row for all": Additive(random(1, 1, 1, 1, M, seed=8)),
    "numbers by frames and heads": Additive(random(1, B, HEADS, N, M, seed=8)),
    "regions": regions(),
    "regions, the same for all": regions(1, 1),
    "regions by streams": regions(S, 1),
    "regions that see only each other": apart(),
    "regions by streams that see only each other": apart(S, 1),
    "no keys at all for some": KeyMask(torch.arange(S * B * M).reshape(S, B, M) > 2 * M),
}


@pytest.mark.parametrize("name", BIASES)
def test_attention_with_a_bias_is_the_softmax_written_out(name):
    given = qkv(BIASES[name])
    matrix = written_out(given)
    torch.testing.assert_close(attend(given), matrix @ given.v, atol=1e-14, rtol=0)
    torch.testing.assert_close(attend(replace(given, rows=1)), matrix @ given.v, atol=1e-14, rtol=0)
    torch.testing.assert_close(probabilities(given), matrix, atol=1e-14, rtol=0)
    assert float((matrix - probabilities(qkv())).abs().max()) > 0.1


@pytest.mark.parametrize("name", BIASES)
def test_the_mass_of_words_counts_the_bias(name):
    given, groups = qkv(BIASES[name]), [[1], [2, 3], [0, 5, 6]]
    mass = word_mass(given, groups)
    for place, columns in enumerate(groups):
        expected = probabilities(given)[..., columns].sum(-1)
        torch.testing.assert_close(mass[..., place], expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("part", [slice(0, 1), slice(1, 3), slice(2, None), slice(0, 0)], ids=str)
@pytest.mark.parametrize("name", BIASES)
def test_some_streams_keep_their_part_of_the_bias(name, part):
    given = qkv(BIASES[name])
    if part != slice(0, 0):
        torch.testing.assert_close(attend(given.streams(part)), attend(given)[part], atol=1e-14, rtol=0)
        torch.testing.assert_close(probabilities(given.streams(part)), probabilities(given)[part])
    whole, own = given.bias.rows(slice(2, 4)), given.streams(part).bias.rows(slice(2, 4))
    assert isinstance(given.bias, Bias) and isinstance(given.streams(part).bias, type(given.bias))
    torch.testing.assert_close(own, whole if len(whole) == 1 else whole[part], atol=0, rtol=0)


def test_one_bias_is_shared_not_copied():
    given = qkv(regions(1, 1))
    assert given.stream(1).bias.queries.data_ptr() == given.bias.queries.data_ptr()
    several = qkv(regions())
    assert several.stream(1).bias.keys.data_ptr() == several.bias.keys[1].data_ptr()


@pytest.mark.parametrize("name", sorted(set(BIASES) - {"no keys at all for some"}))
def test_gradients_flow_with_a_bias(name):
    given = qkv(BIASES[name])
    leaves = [each.clone().requires_grad_(True) for each in (given.q, given.k, given.v)]
    grads = []
    for answer in (attend, lambda each: probabilities(each) @ each.v):
        out = answer(replace(given, q=leaves[0], k=leaves[1], v=leaves[2]))
        grads.append(torch.autograd.grad(out.square().sum(), leaves))
    for ours, expected in zip(*grads, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)


# --- a piece at a time ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noting(Bias):
    """Notes how many numbers it was asked for at once, and by which rows."""

    of: Bias
    asked: list

    def rows(self, part):
        made = self.of.rows(part)
        self.asked.append((made.numel(), part))
        return made

    def streams(self, part):
        return Noting(self.of.streams(part), self.asked)


@pytest.mark.parametrize("most", [1, S * B * M, 2 * S * B * M + 3, 10**6])
@pytest.mark.parametrize(
    "name", ["regions", "numbers", "numbers, the same for all queries", "keys by frames"]
)
def test_no_more_than_a_piece_is_made_at_once(monkeypatch, name, most):
    given = qkv(BIASES[name])
    expected, asked = attend(given), []
    monkeypatch.setattr(math, "PIECE", most)
    made = attend(replace(given, bias=Noting(given.bias, asked)))
    torch.testing.assert_close(made, expected, atol=1e-14, rtol=0)
    first = given.bias.rows(slice(0, 1))  # copied for every row of the batch, unless it is one for all
    row = first.numel() if first.shape[:2] == (1, 1) else first[0, 0].numel() * S * B
    assert max(count for count, _ in asked) <= max(most, row)
    covered = [i for _, part in asked[1:] for i in range(*part.indices(N))]
    assert covered == list(range(N))
    for_all = given.bias.rows(slice(0, 2)).shape[3] == 1  # one row for all queries: nothing is cut
    assert len(asked) - 1 == (1 if for_all else -(-N // max(1, min(N, most // row))))


class Largest(TorchDispatchMode):
    """The most numbers that any tensor holds that is computed meanwhile; kernels count by what they give back."""

    def __init__(self):
        super().__init__()
        self.numbers, self.by = 0, ""

    def __torch_dispatch__(self, called, types, args=(), kwargs=None):
        made = called(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if (
                isinstance(each, torch.Tensor)
                and each.untyped_storage().nbytes() // each.itemsize > self.numbers
            ):
                self.numbers, self.by = each.untyped_storage().nbytes() // each.itemsize, str(called)
        return made


@pytest.mark.parametrize("only", [False, True])
def test_regions_of_many_tokens_are_never_formed_whole(only):
    """4096 queries and keys (64 x 64), where queries by keys are 2^24 numbers; the probabilities neither."""
    n = 4096
    rng = torch.Generator().manual_seed(0)
    owner = torch.nn.functional.one_hot(torch.randint(0, 2, (1, 1, n), generator=rng), 2).float()
    q, k, v = torch.randn(3, 1, 1, 2, n, 8, generator=rng)
    given = QKV(q, k, v, 0.35, bias=Regions(owner, owner, only))
    with Largest() as watch:
        made = attend(given)
    assert watch.numbers <= n * n // 4, watch.by
    rows = slice(1000, 1008)
    some = replace(given, q=q[:, :, :, rows], bias=Regions(owner[:, :, rows], owner, only))
    torch.testing.assert_close(made[:, :, :, rows], probabilities(some) @ v, atol=1e-5, rtol=0)


def test_the_watch_sees_what_is_formed_whole():
    q = torch.randn(1, 1, 1, 300, 8)
    with Largest() as watch:
        probabilities(QKV(q, q, q, 1.0))
    assert watch.numbers >= 300 * 300
