"""Resizing, padding and normalising, against literal values and the public processors' rules."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle_files import oracle
from PIL import Image

from isthmus.encoders.pixels import Normalisation, fit_image, read_normalisation, to_pixels
from isthmus.encoders.views import crop_view, view_box

PLAIN = Normalisation(mean=(0.5, 0.25, 0.75), std=(0.5, 0.5, 0.5), resample=3)


def halves(width: int, height: int) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    return image


def test_squash_keeps_both_sides_of_the_picture() -> None:
    fitted = fit_image(halves(40, 10), 10, "squash", PLAIN)
    assert fitted.size == (10, 10)
    assert fitted.getpixel((0, 5)) == (255, 0, 0)
    assert fitted.getpixel((9, 5)) == (0, 0, 255)


def test_crop_keeps_the_centre() -> None:
    image = Image.new("RGB", (40, 10), (255, 0, 0))
    image.paste((0, 255, 0), (15, 0, 25, 10))
    assert np.unique(np.array(fit_image(image, 10, "crop", PLAIN)).reshape(-1, 3), axis=0).tolist() == [[0, 255, 0]]


def test_pad_widens_with_the_mean_colour() -> None:
    fitted = fit_image(halves(20, 10), 20, "pad", PLAIN)
    assert fitted.getpixel((3, 0)) == (127, 63, 191)
    assert fitted.getpixel((3, 4)) == (127, 63, 191)
    assert fitted.getpixel((3, 10)) == (255, 0, 0)
    assert fitted.getpixel((3, 19)) == (127, 63, 191)


def test_an_image_of_the_right_size_is_not_touched() -> None:
    image = halves(16, 16)
    for fit in ("squash", "crop", "pad"):
        assert np.array_equal(np.array(fit_image(image, 16, fit, PLAIN)), np.array(image))


def test_pixels_are_normalised_by_channel() -> None:
    pixels = to_pixels(Image.new("RGB", (2, 1), (255, 0, 255)), PLAIN)
    assert pixels.shape == (3, 1, 2)
    torch.testing.assert_close(pixels[:, 0, 0], torch.tensor([1.0, -0.5, 0.5]))


def test_other_modes_become_rgb() -> None:
    assert to_pixels(fit_image(Image.new("L", (4, 4), 255), 4, "squash", PLAIN), PLAIN).shape == (3, 4, 4)


@pytest.mark.parametrize(("file", "wrap"), [("preprocessor_config.json", False), ("processor_config.json", True)])
def test_reads_the_processors_numbers(tmp_path: Path, file: str, wrap: bool) -> None:
    data = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2}
    (tmp_path / file).write_text(json.dumps({"image_processor": data} if wrap else data))
    said = read_normalisation(str(tmp_path))
    assert said == Normalisation(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), resample=2)


def test_a_rescale_factor_and_no_normalisation_are_honoured(tmp_path: Path) -> None:
    data = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3, "rescale_factor": 1 / 127.5}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(data))
    white = Image.new("RGB", (1, 1), (255, 255, 255))
    assert to_pixels(white, read_normalisation(str(tmp_path))).flatten().tolist() == pytest.approx([2.0] * 3)
    data = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(data))
    assert to_pixels(white, read_normalisation(str(tmp_path))).flatten().tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"image_mean": [0.5], "image_std": [0.5]}, "three numbers"),
        ({"image_mean": [0.5] * 3, "image_std": [0.5, 0.0, 0.5]}, "above zero"),
        ({"size": 224}, "without a processor file"),
    ],
)
def test_a_useless_processor_file_is_refused(tmp_path: Path, data: dict[str, object], message: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message):
        read_normalisation(str(tmp_path))


def test_views_are_fixed_by_key_and_number() -> None:
    boxes = [view_box((100, 80), "picture", view) for view in range(6)]
    assert boxes == [view_box((100, 80), "picture", view) for view in range(6)]
    assert len(set(boxes)) == 6
    assert view_box((100, 80), "another", 0) != boxes[0]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 100
        assert 0 <= top < bottom <= 80
        assert 0.48 <= (right - left) * (bottom - top) / 8_000 <= 1.0
        assert 0.7 <= (right - left) / (bottom - top) <= 1.4


def test_a_view_is_a_crop_and_never_mirrored() -> None:
    for view in range(8):
        cropped = np.array(crop_view(halves(64, 64), "k", view)).astype(int)
        blue = cropped[:, :, 2].mean(axis=0)
        assert bool((np.diff(blue) >= 0).all())


def test_a_very_long_image_still_has_views() -> None:
    assert view_box((1_000, 2), "k", 0) == (0, 0, 1_000, 2)


def test_pad_gives_llavas_numbers() -> None:
    tensors, config = oracle("llava_expand2square")
    for number, (width, height) in enumerate(config["sizes_wh"]):
        image = Image.fromarray(tensors[f"inputs/image_{number}"].numpy().astype(np.uint8))
        for name, colour in config["backgrounds"].items():
            mean = tuple((value + 0.5) / 255 for value in colour)
            normalisation = Normalisation(mean=mean, std=(1.0, 1.0, 1.0), resample=3)
            fitted = fit_image(image, max(width, height), "pad", normalisation)
            expected = tensors[f"outputs/square_{name}_{number}"]
            assert np.array_equal(np.array(fitted), expected.numpy())
