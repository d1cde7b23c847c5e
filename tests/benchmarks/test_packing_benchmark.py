"""Training with packed rows is timed against rows apart, over the same batches and with the same losses."""

from pathlib import Path

import pytest

from benchmarks.packing import ARMS, Measured, Places, measure, table


def test_both_arms_take_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path))
    found = measure("uneven", steps=1, rounds=2, batch_size=4)
    assert set(found.seconds) == set(ARMS)
    assert all(len(some) == 2 and min(some) > 0 for some in found.seconds.values())
    assert found.places.samples == 4
    assert 0 < found.places.tokens <= min(found.places.packed, found.places.apart)
    assert found.difference < 1e-4


def test_the_table_states_rates_and_their_ratio_by_round() -> None:
    places = Places(tokens=900, samples=6, apart=1_200, packed=1_000)
    found = Measured(seconds={"apart": [3.0, 4.0, 9.0], "packed": [2.0, 2.0, 10.0]}, places=places, difference=1e-7)
    said = table("uneven", found)
    assert "6 samples of 150 tokens" in said
    assert "1,200 apart (25% padding), 1,000 packed (10%)" in said
    assert "225 tokens/s (100 to 300),   1.50 samples/s" in said
    assert "packed is 1.50 times as fast as apart (0.90 to 2.00)" in said
