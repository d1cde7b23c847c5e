"""The values that cross rooms say what they hold and refuse what does not fit."""

import re

import pytest
import torch

from isthmus.features import Features, Grid, Text


def test_patches_leave_the_class_token_out() -> None:
    tokens = torch.arange(10.0).reshape(1, 5, 2)
    features = Features(tokens=tokens, grid=Grid(1, 2, 2), prefix=1)
    assert features.patches.tolist() == [[[2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]]


def test_a_grid_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="need 5 tokens a view, but 6 came"):
        Features(tokens=torch.zeros(1, 6, 2), grid=Grid(1, 2, 2), prefix=1)


@pytest.mark.usefixtures("unannotated")
@pytest.mark.parametrize("shape", [(5,), (5, 2), (1, 5, 1, 2), ()])
def test_tokens_that_are_no_rows_of_vectors_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"\[views, tokens, channels\], but {re.escape(str(shape))} came.*a row"):
        Features(tokens=torch.zeros(shape), grid=Grid(1, 1, 5))


@pytest.mark.usefixtures("unannotated")
@pytest.mark.parametrize(
    ("valid", "came"),
    [
        (torch.ones(2, 5, dtype=torch.bool), "torch.bool of shape (2, 5)"),
        (torch.ones(1, 4, dtype=torch.bool), "torch.bool of shape (1, 4)"),
        (torch.ones(4, dtype=torch.bool), "torch.bool of shape (4,)"),
        (torch.ones(2, 4, dtype=torch.long), "torch.int64 of shape (2, 4)"),
    ],
)
def test_a_mask_that_is_not_one_bool_a_patch_is_refused(valid: torch.Tensor, came: str) -> None:
    said = rf"`valid` of bool and shape \(2, 4\), but {re.escape(came)} came.*none for prefix tokens"
    with pytest.raises(ValueError, match=said):
        Features(tokens=torch.zeros(2, 5, 3), grid=Grid(1, 2, 2), prefix=1, valid=valid)


@pytest.mark.usefixtures("unannotated")
@pytest.mark.parametrize("shape", [(2, 5, 3), (1, 4, 3), (4, 3)])
def test_levels_on_another_grid_are_refused(shape: tuple[int, ...]) -> None:
    levels = (torch.zeros(2, 4, 7), torch.zeros(shape))
    said = rf"levels of shape \[2, 4, channels\], but levels\[1\] has {re.escape(str(shape))}.*the same grid"
    with pytest.raises(ValueError, match=said):
        Features(tokens=torch.zeros(2, 5, 3), grid=Grid(1, 2, 2), prefix=1, levels=levels)


def test_what_fits_is_taken_with_and_without_content() -> None:
    for device in ("cpu", "meta"):
        with torch.device(device):
            valid, level = torch.ones(2, 4, dtype=torch.bool), torch.zeros(2, 4, 7)
            made = Features(tokens=torch.zeros(2, 5, 3), grid=Grid(1, 2, 2), prefix=1, valid=valid, levels=(level,))
        assert made.valid_tokens is not None
        assert made.valid_tokens.shape == (2, 5)


@pytest.mark.usefixtures("unannotated")
@pytest.mark.parametrize(
    ("ids", "mask", "came"),
    [
        ((3,), torch.ones(3, dtype=torch.bool), "shape (3,) and a mask of torch.bool and shape (3,)"),
        ((2, 3), torch.ones(2, 4, dtype=torch.bool), "shape (2, 3) and a mask of torch.bool and shape (2, 4)"),
        ((2, 3), torch.ones(2, 3, dtype=torch.long), "shape (2, 3) and a mask of torch.int64 and shape (2, 3)"),
    ],
)
def test_text_whose_mask_does_not_fit_is_refused(ids: tuple[int, ...], mask: torch.Tensor, came: str) -> None:
    with pytest.raises(ValueError, match=rf"{re.escape(came)} came.*attention_mask\.bool\(\)"):
        Text(ids=torch.ones(ids, dtype=torch.long), mask=mask)


def test_grid_size_counts_frames() -> None:
    assert Grid(frames=3, rows=4, columns=5).size == 60
