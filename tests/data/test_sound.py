"""Sound files: resampled, mixed to one channel, cut to a stretch; errors name the file."""

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


def test_files_without_sound_are_named(folder: Path) -> None:
    (folder / "noise.wav").write_bytes(np.random.default_rng(0).bytes(999))
    with pytest.raises(ValueError, match=r"silent\.mp4.*holds no sound"):
        FileSound(root=str(folder), path="silent.mp4").load()
    with pytest.raises(ValueError, match=r"noise\.wav"):
        FileSound(root=str(folder), path="noise.wav").load()
