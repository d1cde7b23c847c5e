"""Images from hostile places, and keys that name pixels."""

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isthmus.data.images import FileImage, PackedImage, decode
from isthmus.data.sources.scene_image import SceneImage
from isthmus.data.sources.world import make_scene


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds ten bytes of pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(10))
    chunks = (
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in (header, pixels)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))


@pytest.mark.parametrize("side", [9_500, 12_000, 40_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(ValueError, match=r"bomb\.png.*(too large|more than the 90000000 allowed)"):
        decode(png_header(side, side), "bomb.png", max_pixels=90_000_000)


def test_the_limit_is_the_callers() -> None:
    content = encoded(NOISE, "PNG")
    assert decode(content, "a.png", max_pixels=2_400).size == (60, 40)
    with pytest.raises(ValueError, match="60 x 40 pixels by its header"):
        decode(content, "a.png", max_pixels=2_399)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_image_is_an_error_with_its_name(form: str) -> None:
    content = encoded(NOISE, form)
    with pytest.raises(ValueError, match=r"cut\.img"):
        decode(content[: len(content) // 2], "cut.img")


@pytest.mark.parametrize("content", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a readable"):
        decode(content, "x")


def test_random_damage_never_raises_anything_else() -> None:
    rng = np.random.default_rng(1)
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        good = np.frombuffer(encoded(NOISE, form), dtype=np.uint8)
        for _ in range(30):
            bad = good.copy()
            bad[rng.integers(0, len(bad), 12)] = rng.integers(0, 255, 12, dtype=np.uint8)
            with contextlib.suppress(ValueError):
                assert decode(bad.tobytes(), "damaged").mode == "RGB"


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(NOISE, "JPEG", exif=exif), "a").size == (40, 60)


def test_transparency_is_flattened_onto_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert decode(encoded(clear, "PNG"), "a").getpixel((1, 1)) == (255, 255, 255)
    half = Image.new("LA", (4, 4), (0, 128))
    assert decode(encoded(half, "PNG"), "a").getpixel((1, 1)) == (127, 127, 127)
    palette = Image.new("P", (4, 4), 3)
    palette.putpalette([200, 0, 0] * 4)
    assert decode(encoded(palette, "PNG", transparency=3), "a").getpixel((1, 1)) == (255, 255, 255)


def test_sixteen_bits_become_eight() -> None:
    deep = Image.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16))
    assert decode(encoded(deep, "PNG"), "a").getpixel((1, 1)) == (128, 128, 128)


def test_sixteen_bits_a_channel_become_eight() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">6H", 0xFFFF, 0x8000, 0, 0x1234, 0, 0xFFFF)
    chunks = (
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        for body in (header, b"IDAT" + zlib.compress(row), b"IEND")
    )
    image = decode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), "deep.png")
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 128, 0), (18, 0, 255)]


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(form: str) -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    pixel = decode(encoded(red, form), "print").getpixel((8, 8))
    assert isinstance(pixel, tuple)
    assert pixel[0] > 230
    assert max(pixel[1:]) < 40


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_seen(form: str) -> None:
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 200))
    lossless = {"lossless": True} if form == "WEBP" else {}
    moving = encoded(first, form, save_all=True, append_images=[second], duration=100, **lossless)
    assert decode(moving, "moving").getpixel((4, 4)) == (200, 0, 0)


@pytest.mark.parametrize(("mode", "kind"), [("F", "floating-point"), ("I", "32-bit")])
def test_pixels_of_no_known_range_are_refused_by_name(mode: str, kind: str) -> None:
    content = encoded(Image.new(mode, (4, 4), 200), "TIFF")
    with pytest.raises(ValueError, match=rf"depth\.tif.*{kind} values"):
        decode(content, "depth.tif")


def test_the_clear_grey_of_sixteen_bits_is_white() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(b"\0" + struct.pack(">2H", 0x8000, 0x4000))
    chunks = (
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        for body in (header, b"tRNS" + struct.pack(">H", 0x8000), pixels, b"IEND")
    )
    image = decode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), "clear.png")
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (64, 64, 64)]


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, (0, 0)), (2, (7, 0)), (3, (7, 3)), (4, (0, 3)), (5, (0, 0)), (6, (3, 0)), (7, (3, 7)), (8, (0, 7))],
)
def test_every_exif_orientation_is_upright(orientation: int, corner: tuple[int, int]) -> None:
    stored = Image.new("RGB", (8, 4))
    stored.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode(encoded(stored, "PNG", exif=exif), "phone.png")
    assert upright.size == ((8, 4) if orientation < 5 else (4, 8))
    assert upright.getpixel(corner) == (255, 255, 255)


def test_paths_stay_inside_their_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    NOISE.save(tmp_path / "secret.png")
    NOISE.save(root / "sub" / "a.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "near.png").symlink_to(root / "sub" / "a.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    os.mkfifo(root / "pipe.png")
    refused = {
        "../secret.png": "leaves its root",
        "sub/../../secret.png": "leaves its root",
        "link.png": "leaves its root",
        str(tmp_path / "secret.png"): "relative to its root",
        "": "relative to its root",
        "a\x00.png": "relative to its root",
        "none.png": "No image at",
        "sub": "not a plain file",
        "pipe.png": "not a plain file",
        "loop.png": r"loop\.png",
    }
    for path, message in refused.items():
        image = FileImage(root=str(root), path=path)
        with pytest.raises(ValueError, match=message):
            image.load()
        with pytest.raises(ValueError, match=message):
            assert image.key
    for path in ("sub/a.png", "near.png", "sub/../sub/a.png"):
        assert FileImage(root=str(root), path=path).load().size == (60, 40)


def test_a_files_key_follows_its_bytes(tmp_path: Path) -> None:
    NOISE.save(tmp_path / "a.png")
    NOISE.save(tmp_path / "b.png")
    first, second = (FileImage(root=str(tmp_path), path=name) for name in ("a.png", "b.png"))
    before = first.key
    assert before == second.key
    NOISE.rotate(90).save(tmp_path / "a.png")
    assert first.key != before == second.key


def test_a_packed_image_is_read_at_its_place(tmp_path: Path) -> None:
    content = encoded(NOISE, "PNG")
    (tmp_path / "pack.zip").write_bytes(b"1234567" + content)
    packed = PackedImage(archive=str(tmp_path / "pack.zip"), offset=7, size=len(content))
    assert packed.load().tobytes() == NOISE.tobytes()
    (tmp_path / "alone.png").write_bytes(content)
    assert packed.key == FileImage(root=str(tmp_path), path="alone.png").key
    for offset, size in ((7, len(content) + 1), (-1, 5), (0, 0), (10**9, 5), (0, 10**12)):
        with pytest.raises(ValueError, match=r"pack\.zip"):
            PackedImage(archive=str(tmp_path / "pack.zip"), offset=offset, size=size).load()


def test_a_scenes_key_names_its_pixels() -> None:
    one, same, other = (SceneImage(scene=make_scene(seed, "train"), size=96) for seed in (1, 1, 2))
    assert one.key == same.key
    assert one.load().tobytes() == same.load().tobytes()
    assert one.key != other.key
    assert one.key != SceneImage(scene=one.scene, size=112).key
    assert one.load().size == (96, 96)
