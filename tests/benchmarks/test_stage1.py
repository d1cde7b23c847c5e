"""The timed forms of BLIP-2's first stage compute the same, and each can be timed."""

import pytest

from benchmarks.stage1 import ARMS, TINY, check_equal, gflop_a_pair, measure


def test_all_forms_give_equal_losses_and_gradients() -> None:
    assert check_equal(TINY) < 1e-3


@pytest.mark.parametrize("name", ARMS)
def test_each_form_can_be_timed(name: str) -> None:
    assert measure(name, TINY, steps=1)["pairs_per_s"] > 0


def test_work_is_counted() -> None:
    assert 0 < gflop_a_pair(TINY) < 0.1
