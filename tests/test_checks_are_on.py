"""Shapes in annotations are checked in this test run; without this proof the annotations would be comments."""

from dataclasses import dataclass

import checked
import pytest
import torch
from beartype import beartype
from checked import jaxtyped
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from evaluation import ops
from experiments.jobs import pictures
from freemask.data.geometry import Geometry
from freemask.types import Clip


def test_the_library_refuses_a_wrong_shape():
    with pytest.raises(TypeCheckError):
        Geometry().frames(torch.zeros(8, 64, 64))


def test_the_library_refuses_a_wrong_dtype():
    with pytest.raises(TypeCheckError):
        Geometry().masks(torch.zeros(8, 64, 64))


def test_a_value_refuses_a_wrong_shape():
    with pytest.raises(TypeCheckError):
        Clip("c", torch.zeros(8, 4, 64, 64))


def test_evaluation_refuses_sizes_that_differ():
    with pytest.raises(TypeCheckError):
        ops.psnr(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 9))


def test_experiments_refuse_a_wrong_shape():
    with pytest.raises(TypeCheckError):
        pictures.veiled(torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 9))


def test_plain_types_are_checked_too():
    with pytest.raises(TypeCheckError):
        Geometry().fit("8", 8)


@jaxtyped(typechecker=beartype)
def shortened(x: Float[Tensor, "f c"], by: int = 0) -> Float[Tensor, "f c"]:
    return x[by:]


def test_a_result_is_held_to_the_axes_of_the_arguments():
    assert shortened(torch.ones(3, 2)).shape == shortened(by=0, x=torch.ones(3, 2)).shape == (3, 2)
    assert shortened(torch.ones(4, 2)).shape == (4, 2)  # what an axis is, a call says anew
    with pytest.raises(TypeCheckError, match="shortened.* return ") as told:
        shortened(torch.ones(3, 2), 1)
    assert "f=3" in told.value.__notes__[0]


def test_what_is_refused_is_told_in_words_and_a_call_that_does_not_fit_is_none_of_it():
    with pytest.raises(TypeCheckError, match="shortened.* parameter x="):
        shortened(torch.ones(3))
    with pytest.raises(TypeError, match="unexpected keyword argument 'buy'"):
        shortened(torch.ones(3, 2), buy=1)


def test_functions_within_others_are_checked_as_they_are_now(monkeypatch):
    def made(kind, axes, more):
        @jaxtyped(typechecker=beartype)
        def inner(x: Float[Tensor, axes], y: int = 0) -> kind:
            return x.sum().item() + y + more

        return inner

    for kind, axes in [(float, " a"), (int, " a"), (float, "a b"), (float, " a")]:
        inner = made(kind, axes, 1)
        with monkeypatch.context() as patch:
            patch.setattr(checked, "beartype", lambda **_: pytest.fail("made again"))
            others = made(kind, axes, 2), made(kind, axes, 3)
        for x in (torch.ones(2), torch.ones(2, 2)):
            for more, each in enumerate((inner, *others), 1):
                if kind is float and x.ndim == len(axes.split()):
                    assert each(x) == x.numel() + more and each(x, y=2) == x.numel() + more + 2
                else:
                    with pytest.raises(TypeCheckError):
                        each(x)


def test_functions_without_axes_are_checked_and_those_without_annotations_are_left_alone():
    def two(k):
        @jaxtyped(typechecker=beartype)
        def typed(x: int) -> str:
            return str(x + k)

        @jaxtyped(typechecker=beartype)
        def free(x):
            return x + k

        return typed, free

    for k in (1, 2):
        typed, free = two(k)
        assert typed(2) == str(2 + k) and free(2) == 2 + k and free("2" if k > 3 else 2.5) == 2.5 + k
        with pytest.raises(TypeCheckError):
            typed("2")


def test_values_and_those_that_have_more_are_checked_when_they_are_made():
    @jaxtyped(typechecker=beartype)
    @dataclass
    class Plain:
        x: Float[Tensor, "a b"]

    @jaxtyped(typechecker=beartype)
    class More(Plain):
        pass

    for kind in (Plain, More):
        kind(torch.ones(1, 2))
        with pytest.raises(TypeCheckError):
            kind(torch.ones(1))


def test_nothing_stays_behind_after_an_error():
    @jaxtyped(typechecker=beartype)
    def outer(x: Float[Tensor, " a"], y: Float[Tensor, " b"]) -> Float[Tensor, " a"]:
        with pytest.raises(TypeCheckError):
            shortened(x)
        with pytest.raises(RuntimeError, match="own"):
            failing(y)
        return x

    @jaxtyped(typechecker=beartype)
    def failing(x: Float[Tensor, " a"]) -> None:
        raise RuntimeError("own")

    assert outer(torch.ones(2), torch.ones(3)).shape == (2,)
