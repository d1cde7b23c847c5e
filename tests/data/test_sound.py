"""Sound files: resampled, mixed to one channel, cut to a stretch; errors name the file."""

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from making import tone, write_sound, write_video

from isthmus.data.sound import FileSound

MEDIA = Path(__file__).parent / "media"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sounds")
    write_sound(made / "tone.wav", tone(1.0, 8_000), 8_000)
    write_sound(made / "stereo.wav", tone(0.5, 16_000), 16_000, channels=2)
    write_video(made / "silent.mp4", [50, 60])
    return made


def test_a_sound_is_read_as_it_is(folder: Path) -> None:
    sound = FileSound(root=str(folder), path="tone.wav", rate=8_000).load()
    assert (sound.rate, sound.samples.shape, sound.samples.dtype) == (8_000, (8_000,), np.dtype(np.float32))
    np.testing.assert_allclose(sound.samples, tone(1.0, 8_000), atol=1e-4)


def test_a_sound_is_resampled(folder: Path) -> None:
    sound = FileSound(root=str(folder), path="tone.wav", rate=16_000).load()
    assert abs(len(sound.samples) - 16_000) < 50
    middle = slice(2_000, 14_000)
    np.testing.assert_allclose(sound.samples[middle], tone(1.0, 16_000)[middle], atol=0.01)


def test_channels_are_mixed(folder: Path) -> None:
    sound = FileSound(root=str(folder), path="stereo.wav").load()
    np.testing.assert_allclose(sound.samples, tone(0.5, 16_000), atol=1e-3)


def test_a_stretch_is_heard_alone(folder: Path) -> None:
    sound = FileSound(root=str(folder), path="tone.wav", rate=8_000, start_s=0.25, end_s=0.75).load()
    np.testing.assert_allclose(sound.samples, tone(1.0, 8_000)[2_000:6_000], atol=1e-4)
    with pytest.raises(ValueError, match=r"tone\.wav.*no sound from 3\.0 to 4\.0"):
        FileSound(root=str(folder), path="tone.wav", start_s=3.0, end_s=4.0).load()
    for start, end in ((2.0, 1.0), (-1.0, 1.0), (0.0, 9_999.0)):
        with pytest.raises(ValueError, match="a stretch of at most"):
            FileSound(root=str(folder), path="tone.wav", start_s=start, end_s=end)


def test_real_recordings() -> None:
    digit = FileSound(root=str(MEDIA), path="seven.wav").load()
    dog = FileSound(root=str(MEDIA), path="dog.ogg").load()
    assert 0.2 < len(digit.samples) / 16_000 < 1.0
    assert len(dog.samples) / 16_000 == pytest.approx(5.0, abs=0.05)
    assert min(float(one.samples.std()) for one in (digit, dog)) > 0.005
    assert max(float(np.abs(one.samples).max()) for one in (digit, dog)) <= 1.1


def test_keys_name_the_samples(folder: Path) -> None:
    one = FileSound(root=str(folder), path="tone.wav")
    assert len({one.key, FileSound(root=str(folder), path="tone.wav", rate=8_000).key}) == 2
    assert one.key == FileSound(root=str(folder), path="tone.wav").key


def test_what_goes_on_after_an_hour_is_not_cut_unasked(tmp_path: Path) -> None:
    write_sound(tmp_path / "long.wav", np.zeros(3_601_000), 1_000)
    with pytest.raises(ValueError, match=r"long\.wav' lasts more than 3600 s\. Choose a stretch"):
        FileSound(root=str(tmp_path), path="long.wav", rate=1_000).load()
    part = FileSound(root=str(tmp_path), path="long.wav", rate=1_000, start_s=3_590.0, end_s=3_601.0).load()
    assert len(part.samples) == 11_000


@pytest.mark.parametrize(
    ("name", "damage", "seconds"),
    [
        ("tone.wav", lambda whole: b"", None),
        ("tone.wav", lambda whole: whole[:40], None),
        ("tone.wav", lambda whole: whole[:78], None),
        ("tone.wav", lambda whole: whole[: len(whole) // 2], 0.5),
        ("tone.flac", lambda whole: whole[: len(whole) // 2], None),
        ("tone.flac", lambda whole: whole[:8] + bytes(34) + whole[42:], None),
        ("tone.mp4", lambda whole: whole[: len(whole) // 2], None),
    ],
    ids=["empty", "header", "no-samples", "cut-wav", "cut-flac", "damaged-flac", "cut-mp4"],
)
def test_a_broken_sound_is_named_or_heard_as_far_as_it_goes(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], seconds: float | None
) -> None:
    form, codec = {"wav": ("wav", "pcm_s16le"), "flac": ("flac", "flac"), "mp4": ("mp4", "aac")}[name.split(".")[1]]
    write_sound(tmp_path / name, tone(1.0, 16_000), 16_000, form=form, codec=codec)
    sound = FileSound(root=str(tmp_path), path=name)
    assert len(sound.load().samples) / 16_000 == pytest.approx(1.0, abs=0.15)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    if seconds is not None:
        assert len(sound.load().samples) / 16_000 == pytest.approx(seconds, abs=0.1)
        return
    with pytest.raises(ValueError, match=f"'{name}'"):
        sound.load()


def test_damage_to_a_sound_never_raises_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    write_sound(tmp_path / "good.flac", tone(1.0, 16_000), 16_000, form="flac", codec="flac")
    good = np.frombuffer((tmp_path / "good.flac").read_bytes(), dtype=np.uint8)
    read = 0
    for _ in range(30):
        bad = good.copy()
        bad[rng.integers(0, len(bad), 20)] = rng.integers(0, 255, 20, dtype=np.uint8)
        (tmp_path / "bad.flac").write_bytes(bad.tobytes())
        with contextlib.suppress(ValueError):
            assert np.isfinite(FileSound(root=str(tmp_path), path="bad.flac").load().samples).all()
            read += 1
    assert read < 30


def test_samples_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 8_000, 32_000, 4, 32)
    header = struct.pack("<4sI4s", b"RIFF", 436, b"WAVE") + form + struct.pack("<4sI", b"data", 400)
    (tmp_path / "nan.wav").write_bytes(header + np.full(100, np.nan, dtype="<f4").tobytes())
    with pytest.raises(ValueError, match=r"nan\.wav' holds samples that are no finite numbers"):
        FileSound(root=str(tmp_path), path="nan.wav", rate=8_000).load()


def test_files_without_sound_are_named(folder: Path) -> None:
    (folder / "noise.wav").write_bytes(np.random.default_rng(0).bytes(999))
    with pytest.raises(ValueError, match=r"silent\.mp4.*holds no sound"):
        FileSound(root=str(folder), path="silent.mp4").load()
    with pytest.raises(ValueError, match=r"noise\.wav"):
        FileSound(root=str(folder), path="noise.wav").load()
