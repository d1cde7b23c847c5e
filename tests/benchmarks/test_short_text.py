"""Fused attention is timed against plain products, on the speaker and on a model of another width."""

import pytest

from benchmarks.short_text import main, wider


@pytest.mark.parametrize("width", ["0", "128"])
def test_both_ways_are_timed_in_both_formats(width: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--tiny", "--width", width])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[:2] for line in lines] == [["float32", "32"], ["float32", "64"], ["bf16", "32"], ["bf16", "64"]]
    for line in lines:
        fused, plain, ratio = map(float, line[2:])
        assert ratio == pytest.approx(fused / plain, rel=0.05)


def test_the_other_model_has_that_width() -> None:
    assert wider(128).head.weight.shape == (8_000, 128)
