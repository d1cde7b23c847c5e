"""The values that cross rooms say what they hold and refuse what does not fit."""

import pytest
import torch

from isthmus.features import Features, Grid


def test_patches_leave_the_class_token_out() -> None:
    tokens = torch.arange(10.0).reshape(1, 5, 2)
    features = Features(tokens=tokens, grid=Grid(1, 2, 2), prefix=1)
    assert features.patches.tolist() == [[[2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]]


def test_a_grid_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="need 5 tokens a view, but 6 came"):
        Features(tokens=torch.zeros(1, 6, 2), grid=Grid(1, 2, 2), prefix=1)


def test_grid_size_counts_frames() -> None:
    assert Grid(frames=3, rows=4, columns=5).size == 60
