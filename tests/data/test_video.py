"""Video files: the right frames, upright, with bounded memory, and errors that name the file."""

import contextlib
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from making import level, tone, turn_portrait, write_sound, write_video
from PIL import Image

from isthmus.data.frames import FramesPerSecond, Keyframes, UniformFrames
from isthmus.data.media import moving
from isthmus.data.video import FileVideo, FrameMosaic, VideoFrame, mosaic

CLIP = "classroom.mp4"
MEDIA = Path(__file__).parent / "media"
GREYS = list(range(20, 240, 10))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("videos")
    write_video(made / "greys.mp4", GREYS)
    write_video(made / "uneven.mp4", [40, 80, 120, 160, 200], stamps=[0, 1, 2, 40, 80])
    write_video(made / "portrait.mp4", [20] * 3, corner=True)
    write_sound(made / "sound.wav", tone(0.2, 8_000), 8_000)
    return made


def greys(video: FileVideo) -> list[int]:
    return [level(frame) for frame in video.load().frames]


def near(found: list[int], wanted: list[int]) -> bool:
    return len(found) == len(wanted) and all(abs(one - other) <= 4 for one, other in zip(found, wanted, strict=True))


def test_chosen_frames_are_the_right_ones(folder: Path) -> None:
    video = FileVideo(root=str(folder), path="greys.mp4")
    for num in (1, 2, 5, 22, 30):
        chosen = np.linspace(0, 21, num, dtype=int)
        assert near(greys(replace(video, frames=UniformFrames(num=num))), [GREYS[place] for place in chosen])
    assert near(greys(replace(video, frames=FramesPerSecond(rate=2.0))), [GREYS[place] for place in (0, 5, 10, 15, 20)])
    assert near(greys(replace(video, frames=Keyframes())), GREYS[::4])
    clip = replace(video, frames=UniformFrames(num=2)).load()
    assert clip.times_s == pytest.approx((0.0, 2.1))
    assert clip.frames[0].size == (32, 16)
    assert clip.frames[0].mode == "RGB"


@pytest.mark.parametrize(
    ("name", "form", "codec"),
    [
        ("b.mp4", "mp4", "mpeg4"),
        ("b.mkv", "matroska", "mpeg4"),
        ("b.avi", "avi", "mpeg4"),
        ("b.ts", "mpegts", "mpeg2video"),
        ("b.mpg", "vob", "mpeg2video"),
    ],
)
def test_frames_that_are_stored_late_are_found_in_every_container(
    folder: Path, name: str, form: str, codec: str
) -> None:
    """MPEG streams and AVI are sought by when a frame is decoded, which is before it is shown."""
    write_video(folder / name, GREYS, form=form, codec=codec, rate=25, between=2)
    video = FileVideo(root=str(folder), path=name, frames=UniformFrames(num=22))
    assert near(greys(video), GREYS)
    assert near([level(video.frame(number)) for number in (3, 10, 21)], [GREYS[number] for number in (3, 10, 21)])


def test_a_broadcast_that_was_cut_begins_at_its_first_whole_frame(folder: Path) -> None:
    write_video(folder / "b.ts", GREYS, form="mpegts", codec="mpeg2video", rate=25, between=2)
    whole = (folder / "b.ts").read_bytes()
    packets = len(whole) // 188
    (folder / "cut.ts").write_bytes(whole[188 * (packets // 3) :])
    found = greys(FileVideo(root=str(folder), path="cut.ts", frames=UniformFrames(num=5)))
    assert found == sorted(found)
    assert found[0] >= GREYS[4]
    assert near(found[-1:], GREYS[-1:])


def test_a_stretch_of_a_video_is_seen_alone(folder: Path) -> None:
    video = FileVideo(root=str(folder), path="greys.mp4", frames=UniformFrames(num=3), start_s=0.95, end_s=1.45)
    assert near(greys(video), [GREYS[place] for place in (10, 12, 14)])
    with pytest.raises(ValueError, match=r"greys\.mp4.*lasts 2\.10 s and shows nothing from 5\.0"):
        replace(video, start_s=5.0, end_s=6.0).load()


def test_a_variable_frame_rate_is_seen_by_its_times(folder: Path) -> None:
    video = FileVideo(root=str(folder), path="uneven.mp4", frames=UniformFrames(num=5))
    assert near(greys(video), [40, 120, 160, 160, 200])


@pytest.mark.parametrize(("degrees", "white"), [(90, 1), (180, 3), (270, 2)])
def test_portrait_video_stands_upright(folder: Path, degrees: int, white: int) -> None:
    """The corner that is stored at the top left: at the top right of a phone's video, and so on round."""
    path = folder / f"turned{degrees}.mp4"
    path.write_bytes((folder / "portrait.mp4").read_bytes())
    turn_portrait(path, degrees)
    frame = FileVideo(root=str(folder), path=path.name, frames=UniformFrames(num=1)).load().frames[0]
    assert frame.size == ((32, 16) if degrees == 180 else (16, 32))
    wide, high = frame.size
    places = ((2, 3), (wide - 3, 3), (2, high - 4), (wide - 3, high - 4))
    corners = [frame.getpixel(place)[0] for place in places]  # type: ignore[index]
    assert corners[white] > 200 > 60 > max(value for place, value in enumerate(corners) if place != white)


def test_pixels_that_are_not_square_are_shown_in_their_shape(folder: Path) -> None:
    write_video(folder / "wide.mp4", [40, 90], pixel=2)
    video = FileVideo(root=str(folder), path="wide.mp4", frames=UniformFrames(num=2))
    assert [frame.size for frame in video.load().frames] == [(64, 16)] * 2
    assert near(greys(video), [40, 90])
    assert replace(video, max_side=32).load().frames[0].size == (32, 8)


def test_one_frame_is_an_image_of_its_own(folder: Path) -> None:
    video = FileVideo(root=str(folder), path="greys.mp4", frames=UniformFrames(num=3))
    frames = [VideoFrame(video=video, number=number) for number in range(3)]
    assert near([level(frame.load()) for frame in frames], greys(video))
    assert len({frame.key for frame in frames}) == 3
    with pytest.raises(ValueError, match=r"gives 3 frames, so there is none of number 3"):
        VideoFrame(video=video, number=3).load()


def test_a_mosaic_holds_the_frames_row_by_row(folder: Path) -> None:
    video = FileVideo(root=str(folder), path="greys.mp4", frames=UniformFrames(num=6))
    made = FrameMosaic(video=video, columns=3).load()
    assert made.size == (96, 32)
    tiles = [
        made.crop((32 * column, 16 * row, 32 * column + 32, 16 * row + 16)) for row in (0, 1) for column in range(3)
    ]
    assert near([level(tile) for tile in tiles], greys(video))
    five = mosaic([Image.new("RGB", (2, 2), "white")] * 5, 3)
    assert (five.getpixel((3, 3)), five.getpixel((5, 3))) == ((255, 255, 255), (0, 0, 0))


def test_chosen_frames_are_counted_without_decoding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = FileVideo(root=str(folder), path="greys.mp4")
    choices = (UniformFrames(num=3), FramesPerSecond(rate=2.0), Keyframes(), Keyframes(max_frames=2))
    wanted = [len(replace(video, frames=choice).load().frames) for choice in choices]
    monkeypatch.setattr("isthmus.data.video._decoded", None)
    assert [replace(video, frames=choice).num_frames() for choice in choices] == wanted == [3, 5, 6, 2]
    assert replace(video, path="none.mp4").num_frames() == 8
    with pytest.raises(ValueError, match=r"none\.mp4"):
        replace(video, path="none.mp4", frames=Keyframes()).num_frames()


def test_keys_name_the_frames(folder: Path) -> None:
    video = FileVideo(root=str(folder), path="greys.mp4")
    others = [
        replace(video, frames=UniformFrames(num=9)),
        replace(video, frames=Keyframes()),
        replace(video, start_s=0.5),
        replace(video, max_side=16),
        replace(video, path="uneven.mp4"),
    ]
    assert len({one.key for one in (video, *others)}) == 6
    assert video.key == replace(video).key


def test_real_footage(folder: Path) -> None:
    video = FileVideo(root=str(MEDIA), path=CLIP, frames=UniformFrames(num=4), max_side=96)
    clip = video.load()
    assert [frame.size for frame in clip.frames] == [(96, 54)] * 4
    assert clip.times_s == pytest.approx((0.0, 0.93, 1.93, 2.93), abs=0.07)
    values = np.array(clip.frames[0], dtype=float)
    assert values.std() > 20.0


def test_long_videos_take_no_more_memory(folder: Path) -> None:
    write_video(folder / "long.mp4", [60 + number % 100 for number in range(600)], every_key=12, size=(64, 48))
    video = FileVideo(root=str(folder), path="long.mp4", frames=UniformFrames(num=4))
    video.load()
    tracemalloc.start()
    clip = video.load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert near([level(frame) for frame in clip.frames], [60 + place % 100 for place in (0, 199, 399, 599)])
    assert peak < 600 * 64 * 48  # a third of the frames as RGB


def broken(folder: Path, kind: str) -> Path:
    good = (folder / "greys.mp4").read_bytes()
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(3_000))
    elif kind == "cut":
        path.write_bytes(good[: len(good) // 2])
    elif kind == "playlist":
        path.write_text("#EXTM3U\n#EXTINF:1,\ngreys.mp4\n")
    else:
        write_video(path, [])
    return path


@pytest.mark.parametrize("kind", ["empty", "noise", "cut", "playlist", "no-frames"])
def test_broken_files_are_named(folder: Path, kind: str) -> None:
    path = broken(folder, kind)
    with pytest.raises(ValueError, match=path.name):
        FileVideo(root=str(folder), path=path.name).load()


def test_damage_never_raises_anything_else(folder: Path) -> None:
    rng = np.random.default_rng(1)
    good = np.frombuffer((folder / "greys.mp4").read_bytes(), dtype=np.uint8)
    read = 0
    for _ in range(30):
        bad = good.copy()
        bad[rng.integers(0, len(bad), 20)] = rng.integers(0, 255, 20, dtype=np.uint8)
        (folder / "bad.mp4").write_bytes(bad.tobytes())
        with contextlib.suppress(ValueError):
            assert len(FileVideo(root=str(folder), path="bad.mp4").load().frames) == 8
            read += 1
    assert read < 30


def test_a_cover_picture_is_no_video() -> None:
    cover, film = SimpleNamespace(disposition="Disposition.attached_pic"), SimpleNamespace(disposition="default")
    assert moving([cover, film]) == [film]
    assert moving([SimpleNamespace()]) == [SimpleNamespace()]


def test_a_picture_in_a_videos_container_is_refused(folder: Path) -> None:
    """Of a phone's HEIC photo the first stream is one tile of the picture."""
    for brand in (b"heic", b"avif"):
        (folder / "photo.mp4").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(64))
        with pytest.raises(ValueError, match=r"photo\.mp4' is a HEIF or AVIF picture.* Save it as JPEG"):
            FileVideo(root=str(folder), path="photo.mp4").load()


def test_other_files_are_refused_with_the_way_out(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"sound\.wav.*holds no video.*FileSound"):
        FileVideo(root=str(folder), path="sound.wav").load()
    for path in ("../greys.mp4", "none.mp4", str(folder / "greys.mp4")):
        with pytest.raises(ValueError, match="mp4"):
            FileVideo(root=str(folder), path=path).load()
