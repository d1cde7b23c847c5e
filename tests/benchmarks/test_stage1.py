"""The timed forms of BLIP-2's first stage compute the same, and each can be timed."""

import pytest

from benchmarks.stage1 import ARMS, TINY, check_equal, gflop_a_pair, measure, profile


def test_all_forms_give_equal_losses_and_gradients() -> None:
    assert check_equal(TINY) < 1e-3


@pytest.mark.parametrize("name", ARMS)
def test_each_form_can_be_timed(name: str) -> None:
    found = measure(name, TINY, steps=2)
    assert len(found.seconds) == 2
    assert min(found.seconds) > 0
    assert found.extra_mib >= 0


def test_work_is_counted() -> None:
    work = {name: gflop_a_pair(name, TINY) for name in ARMS}
    assert 0 < work["isthmus"] < work["shared"] < work["released"] < 0.1


def test_a_profile_names_what_takes_the_time() -> None:
    lines = profile("isthmus", TINY, rows=3).splitlines()
    assert lines[0].startswith("isthmus: ")
    assert len(lines) == 4
