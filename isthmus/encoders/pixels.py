"""From an RGB image to the pixels a tower was trained on: resize, then the processor's own mean and deviation."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers.utils import cached_file

Fit = Literal["squash", "crop", "pad"]


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What a model's processor says: mean and deviation of each channel (of 0..1), PIL's resampling filter."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: int


_TIMM = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
"""PIL's numbers of the filters that timm names."""


def read_normalisation(name: str) -> Normalisation:
    """The normalisation in the processor file of a model folder or hub id, or in the config of a timm model.

    Raises:
        ValueError: the processor file is missing, or names no mean and deviation for three channels.
    """
    for file in ("preprocessor_config.json", "processor_config.json", "config.json"):
        path = cached_file(
            name,
            file,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
        if path is None:
            continue
        data = json.loads(Path(path).read_text())
        data = data.get("image_processor", data)
        if "mean" in (timm := data.get("pretrained_cfg") or {}):
            data = {"image_mean": timm["mean"], "image_std": timm.get("std"), "resample": _TIMM[timm["interpolation"]]}
        if "image_mean" in data and "image_std" in data:
            return _normalisation(data, f"{name}/{file}")
    raise ValueError(
        f"The model {name!r} comes without a processor file, so the mean and deviation of its pixels are unknown. Put "
        f'a preprocessor_config.json with "image_mean" and "image_std" beside its config.json (a processor\'s '
        f"save_pretrained(folder) writes one)."
    )


def _normalisation(data: dict[str, Any], source: str) -> Normalisation:
    mean, std = data["image_mean"], data["image_std"]
    channels = [len(value) if isinstance(value, list) else 0 for value in (mean, std)]
    if channels != [3, 3]:
        raise ValueError(f"{source} must give image_mean and image_std as three numbers each, but gives {mean}, {std}.")
    if any(float(value) <= 0 for value in std):
        raise ValueError(f"{source} gives image_std {std}: every deviation must be above zero.")
    factor = float(data.get("rescale_factor", 1 / 255))
    if data.get("do_normalize") is False:
        mean, std = [0.0] * 3, [1.0] * 3
    scale = factor * 255
    return Normalisation(
        mean=(float(mean[0]) / scale, float(mean[1]) / scale, float(mean[2]) / scale),
        std=(float(std[0]) / scale, float(std[1]) / scale, float(std[2]) / scale),
        resample=int(data.get("resample", Image.Resampling.BICUBIC)),
    )


def fit_image(image: Image.Image, side: int, fit: Fit, normalisation: Normalisation) -> Image.Image:
    """A square RGB image of `side` pixels.

    `squash` resizes both sides to `side`; `crop` resizes the shorter side and keeps the centre (CLIP); `pad` first
    widens to a centred square on the mean colour (LLaVA-1.5, `expand2square`).
    """
    image = image if image.mode == "RGB" else image.convert("RGB")
    width, height = image.size
    resample = Image.Resampling(normalisation.resample)
    if fit == "crop" and width != height:
        scale = side / min(width, height)
        wide, high = max(side, int(width * scale)), max(side, int(height * scale))
        left, top = (wide - side) // 2, (high - side) // 2
        return image.resize((wide, high), resample).crop((left, top, left + side, top + side))
    if fit == "pad" and width != height:
        red, green, blue = (int(value * 255) for value in normalisation.mean)
        image = expand_to_square(image, (red, green, blue))
    return image if image.size == (side, side) else image.resize((side, side), resample)


def expand_to_square(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """The RGB image in the middle of a square of this colour (LLaVA-1.5, oracle `llava_expand2square`)."""
    width, height = image.size
    longer = max(width, height)
    square = Image.new("RGB", (longer, longer), background)
    square.paste(image, ((longer - width) // 2, (longer - height) // 2))
    return square


def to_pixels(image: Image.Image, normalisation: Normalisation) -> Float[Tensor, "3 height width"]:
    """Channels first, float32, (value / 255 - mean) / deviation."""
    values = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)
    mean = torch.tensor(normalisation.mean)[:, None, None] * 255
    std = torch.tensor(normalisation.std)[:, None, None] * 255
    return ((values - mean) / std).contiguous()
