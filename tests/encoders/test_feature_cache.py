"""The feature cache on disk: bit-equal, bounded, safe when written twice at once, and robust to broken files."""

import multiprocessing
import os
import warnings
from pathlib import Path

import pytest
import torch

from isthmus.encoders import FeatureCache
from isthmus.encoders.cache import default_folder
from isthmus.features import Features, Grid


def features(seed: int = 0, views: int = 1, prefix: int = 1, scale: float = 1.0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    grid = Grid(1, 2, 3)
    tokens = torch.randn(views, prefix + 6, 8, generator=generator) * scale
    levels = (torch.randn(views, 6, 8, generator=generator), torch.randn(views, 6, 4, generator=generator))
    return Features(tokens=tokens, grid=grid, prefix=prefix, levels=levels)


def same(first: Features, second: Features) -> bool:
    return (
        (first.grid, first.prefix, len(first.levels)) == (second.grid, second.prefix, len(second.levels))
        and torch.equal(first.tokens, second.tokens)
        and all(torch.equal(one, other) for one, other in zip(first.levels, second.levels, strict=True))
    )


@pytest.mark.parametrize("storage", ["float16", "float32"])
def test_what_is_read_is_what_was_returned(tmp_path: Path, storage: str) -> None:
    cache = FeatureCache(tmp_path, max_gib=1, storage=storage)
    assert cache.get("eye", "picture") is None
    put = cache.put("eye", "picture", features(views=2), (640, 480))
    got = FeatureCache(tmp_path, max_gib=1, storage=storage).get("eye", "picture")
    assert got is not None
    assert got.size == (640, 480)
    assert same(got.features, put.features)
    assert got.features.tokens.dtype == torch.float32
    exact = torch.equal(got.features.tokens, features(views=2).tokens)
    assert exact is (storage == "float32")


def test_encoder_key_view_and_storage_are_told_apart(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, max_gib=1)
    cache.put("eye", "picture", features(), (1, 1))
    for other in (("other", "picture", 0), ("eye", "another", 0), ("eye", "picture", 1)):
        assert cache.get(*other) is None
    assert FeatureCache(tmp_path, max_gib=1, storage="float32").get("eye", "picture") is None


def test_a_number_that_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"which float16 cannot hold. Store them as float32"):
        FeatureCache(tmp_path).put("eye", "picture", features(scale=1e6), (1, 1))
    stored = FeatureCache(tmp_path, storage="float32").put("eye", "picture", features(scale=1e6), (1, 1))
    assert torch.equal(stored.features.tokens, features(scale=1e6).tokens)
    with pytest.raises(ValueError, match="NaN or infinity"):
        FeatureCache(tmp_path, storage="float32").put("eye", "picture", features(scale=float("inf")), (1, 1))


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "longer", "header"])
def test_a_broken_file_counts_as_absent(tmp_path: Path, harm: str) -> None:
    cache = FeatureCache(tmp_path)
    cache.put("eye", "picture", features(), (7, 9))
    path = cache.path("eye", "picture")
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[-5] ^= 1
    if harm == "header":
        data[9] ^= 1
    path.write_bytes({"cut": data[:-3], "empty": b"", "longer": data + b"x"}.get(harm, data))
    assert cache.get("eye", "picture") is None
    assert not path.exists()
    assert same(cache.put("eye", "picture", features(), (7, 9)).features, cache.get("eye", "picture").features)


def test_the_oldest_go_when_the_bound_is_reached(tmp_path: Path) -> None:
    one = len(_file_of(tmp_path / "probe"))
    cache = FeatureCache(tmp_path / "cache", max_gib=4.5 * one / 2**30)
    for number in range(4):
        cache.put("eye", f"picture {number}", features(number), (1, 1))
        os.utime(cache.path("eye", f"picture {number}"), (1_000 + number, 1_000 + number))
    assert cache.get("eye", "picture 0") is not None  # used: no longer the oldest
    cache.put("eye", "picture 4", features(4), (1, 1))
    assert cache.size_bytes() <= cache.max_bytes
    kept = [number for number in range(5) if cache.get("eye", f"picture {number}") is not None]
    assert kept == [0, 2, 3, 4] or kept == [0, 3, 4]


def test_a_bound_too_small_for_one_run_is_said_once(tmp_path: Path) -> None:
    one = len(_file_of(tmp_path / "probe"))
    cache = FeatureCache(tmp_path / "cache", max_gib=2.5 * one / 2**30)
    for number in range(2):
        cache.put("eye", f"picture {number}", features(number), (1, 1))
    with pytest.warns(UserWarning, match=r"encoded again each epoch. Give it a larger max_gib"):
        cache.put("eye", "picture 2", features(2), (1, 1))
    for number in range(3, 8):  # a second warning would be an error here
        cache.put("eye", f"picture {number}", features(number), (1, 1))
    assert 0 < cache.size_bytes() <= cache.max_bytes


def _file_of(folder: Path) -> bytes:
    cache = FeatureCache(folder)
    cache.put("eye", "picture", features(), (1, 1))
    return cache.path("eye", "picture").read_bytes()


def _write_many(folder: Path) -> None:
    cache = FeatureCache(folder, max_gib=1)
    for number in range(40):
        cache.put("eye", f"picture {number}", features(number), (1, 1))
        assert cache.get("eye", f"picture {number}") is not None


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn about forking a process with threads
        workers = [context.Process(target=_write_many, args=(tmp_path,)) for _ in range(2)]
        for worker in workers:
            worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    cache = FeatureCache(tmp_path)
    for number in range(40):
        got = cache.get("eye", f"picture {number}")
        assert got is not None
        torch.testing.assert_close(got.features.tokens, features(number).tokens, atol=2e-3, rtol=1e-3)
    assert [path for path in tmp_path.rglob(".*") if path.is_file()] == []


def test_a_full_disk_costs_the_cache_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match=r"No space left.*ISTHMUS_CACHE"):
        stored = cache.put("eye", "picture", features(), (3, 2))
    assert stored.size == (3, 2)
    again = cache.put("eye", "picture", features(), (3, 2))  # says so once
    assert same(stored.features, again.features)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_padded_features_and_no_room_are_refused(tmp_path: Path) -> None:
    padded = Features(tokens=torch.zeros(1, 2, 3), grid=Grid(1, 1, 2), valid=torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="Padded features"):
        FeatureCache(tmp_path).put("eye", "picture", padded, (1, 1))
    with pytest.raises(ValueError, match="can hold nothing"):
        FeatureCache(tmp_path, max_gib=0)


def test_the_default_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("ISTHMUS_CACHE")
    assert default_folder() == Path.home() / ".cache" / "isthmus" / "features"
