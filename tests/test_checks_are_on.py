"""Shapes in annotations are checked in this test run; without this proof the annotations would be comments."""

import pytest
import torch
from jaxtyping import TypeCheckError

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
