"""What a model is shown: features from the cache or from its own trained encoder, or the mean of many pictures."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch

from isthmus.branches import pixels_of
from isthmus.encoders import CachedEncoder, FeatureCache, ImageSource
from isthmus.encoders.cache import default_folder
from isthmus.features import Features, Plan
from isthmus.model import VisionLanguageModel
from isthmus.runs import Run

MEAN_OF = 64
"""Images that the mean-image control averages over."""
_CHUNK = 16


@runtime_checkable
class SeesImages(Protocol):
    """Gives the features of images; `CachedEncoder` is one."""

    def features(self, images: Sequence[ImageSource]) -> tuple[Features, tuple[Plan, ...]]:
        """The rows of one image after those of another, and each image's plan."""
        ...


class OwnEncoder:
    """The encoder inside a model, for one that was trained: its features cannot come from the cache."""

    def __init__(self, model: VisionLanguageModel) -> None:
        if model.encoder is None:
            raise ValueError("OwnEncoder needs a model that was loaded with its encoder (with_encoder=True).")
        self.model = model
        self.encoder = model.encoder
        self.encoder_calls = 0

    def features(self, images: Sequence[ImageSource]) -> tuple[Features, tuple[Plan, ...]]:
        """Features on the model's device."""
        views, plans = pixels_of(images, self.encoder)
        assert views.pixels is not None
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            parts = [self.encoder(chunk.to(device)) for chunk in torch.split(views.pixels, _CHUNK)]
        self.encoder_calls += len(images)
        levels = tuple(torch.cat(level) for level in zip(*(part.levels for part in parts), strict=True))
        return dataclasses.replace(parts[0], tokens=torch.cat([part.tokens for part in parts]), levels=levels), plans


def open_run(run: Run, device: str | torch.device = "cpu") -> tuple[VisionLanguageModel, SeesImages]:
    """A run's model and what it sees with: its own encoder where this or an earlier stage trained it, else the cache.

    A model with branches for videos or sounds brings all its encoders.

    Raises:
        ValueError: the run's weights do not fit its model.
    """
    own = run.has_own("encoder") or bool(run.model_config.branches)
    model = run.load_model(device, with_encoder=own)
    if own:
        return model, OwnEncoder(model)
    return model, CachedEncoder(model.config.encoder, FeatureCache(default_folder()), device=device)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sight:
    """An encoder, or one view that stands for every picture."""

    encoder: SeesImages
    mean: Features | None = None

    def features(self, images: Sequence[ImageSource]) -> tuple[Features, tuple[Plan, ...]]:
        """Features and plans of these images; every view is the mean view when there is one."""
        features, plans = self.encoder.features(images)
        if self.mean is None:
            return features, plans
        views = features.tokens.shape[0]
        levels = tuple(level.expand(views, -1, -1) for level in self.mean.levels)
        tokens = self.mean.tokens.expand(views, -1, -1)
        return dataclasses.replace(features, tokens=tokens, levels=levels, valid=None), plans


def mean_view(encoder: SeesImages, images: Sequence[ImageSource]) -> Features:
    """One view: the mean over the views of up to 64 different images, position by position."""
    distinct = list({image.key: image for image in images}.values())[:MEAN_OF]
    features, _ = encoder.features(distinct)
    levels = tuple(level.mean(dim=0, keepdim=True) for level in features.levels)
    return dataclasses.replace(features, tokens=features.tokens.mean(dim=0, keepdim=True), levels=levels, valid=None)
