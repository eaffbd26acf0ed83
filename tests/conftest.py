"""What all tests share: one thread (two fight on a busy machine), and the folder of real clips where it is given."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real clips and the authors' numbers, named by FREEMASK_SHARED; the test is skipped where there are none."""
    place = os.environ.get("FREEMASK_SHARED")
    if not place or not Path(place).is_dir():
        pytest.skip("FREEMASK_SHARED names no folder: real clips and stored numbers are not tested")
    return Path(place)
