"""What a model is shown: features from the cache or from an encoder as it stands, or the mean of many inputs."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from isthmus.branches import pixels_of
from isthmus.encoders import CachedEncoder, Encoder, FeatureCache, ImageSource, VisionEncoder
from isthmus.encoders.cache import default_folder
from isthmus.encoders.tiles import DynamicTiles, TokenPackerTiles
from isthmus.encoders.vision import VisionTower
from isthmus.features import Features, Plan
from isthmus.llms.base import read_config
from isthmus.model import Model, VisionLanguageModel
from isthmus.runs import Run
from isthmus.weights import resolve_model

MEAN_OF = 64
"""Inputs that the mean-image control averages over."""
_CHUNK = 16


@runtime_checkable
class SeesImages(Protocol):
    """Gives the features of images; `CachedEncoder` is one."""

    def features(self, images: Sequence[ImageSource]) -> tuple[Features, tuple[Plan, ...]]:
        """The rows of one image after those of another, and each image's plan."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unkept:
    """The features of images, clips or sounds, computed by a module each time they are asked for."""

    encoder: Encoder
    device: torch.device

    def features(self, images: Sequence[ImageSource]) -> tuple[Features, tuple[Plan, ...]]:
        """Features on the device; `valid` where one of them is padded."""
        views, plans = pixels_of(images, self.encoder)
        assert views.pixels is not None
        with torch.inference_mode():
            parts: list[Features] = [self.encoder(chunk.to(self.device)) for chunk in torch.split(views.pixels, _CHUNK)]
        levels = tuple(torch.cat(level) for level in zip(*(part.levels for part in parts), strict=True))
        padded = any(part.valid is not None for part in parts)
        valid = torch.cat([_real(part) for part in parts]) if padded else None
        tokens = torch.cat([part.tokens for part in parts])
        return dataclasses.replace(parts[0], tokens=tokens, levels=levels, valid=valid), plans


def _real(features: Features) -> Tensor:
    """Which patches are no padding."""
    if features.valid is not None:
        return features.valid
    rows, patches = features.patches.shape[:2]
    return torch.ones(rows, patches, dtype=torch.bool, device=features.tokens.device)


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
        self.encoder_calls += len(images)
        device = next(self.model.parameters()).device
        return Unkept(encoder=self.encoder, device=device).features(images)


def open_run(
    run: Run, device: str | torch.device = "cpu", *, max_tiles: int = 0
) -> tuple[VisionLanguageModel, SeesImages]:
    """A run's model and what it sees with: its own encoder where this or an earlier stage trained it, else the cache.

    A model with branches for videos or sounds brings all its encoders. `max_tiles` above 0 is as in `with_tiles`.

    Raises:
        ValueError: the run's weights do not fit its model, or tiles that it does not take.
    """
    own = run.has_own("encoder") or bool(run.model_config.branches)
    model = run.load_model(device, with_encoder=own)
    if max_tiles:
        see_tiles(model, max_tiles)
    if own:
        return model, OwnEncoder(model)
    return model, CachedEncoder(model.config.encoder, FeatureCache(default_folder()), device=device)


def with_tiles(config: Model, max_tiles: int) -> Model:
    """The model on pictures of up to so many tiles, in the number that InternVL 1.5 raises for its tests (12 to 40).

    Prompts may then be as long as the language model has positions.

    Raises:
        ValueError: an encoder whose tiles have no such number, or a number that they do not take.
    """
    encoder = config.encoder
    tiles = encoder.tiles if isinstance(encoder, VisionEncoder) else None
    if not isinstance(encoder, VisionEncoder) or not isinstance(tiles, DynamicTiles | TokenPackerTiles):
        raise ValueError(
            f"max_tiles={max_tiles} is for encoders that choose a number of tiles (DynamicTiles, TokenPackerTiles), "
            f"and this run has {type(encoder).__name__}, tiles={type(tiles).__name__}. Leave it out."
        )
    finer = dataclasses.replace(tiles, max_tiles=max_tiles)
    llm = config.llm
    if llm is not None:
        positions = getattr(read_config(resolve_model(llm.name)), "max_position_embeddings", llm.max_tokens)
        llm = dataclasses.replace(llm, max_tokens=max(llm.max_tokens, int(positions)))
    return dataclasses.replace(config, encoder=dataclasses.replace(encoder, tiles=finer), llm=llm)


def see_tiles(model: VisionLanguageModel, max_tiles: int) -> None:
    """Let a loaded model see pictures in up to so many tiles. Raises ValueError as `with_tiles` does."""
    model.config = with_tiles(model.config, max_tiles)
    if isinstance(model.encoder, VisionTower):
        assert isinstance(model.config.encoder, VisionEncoder)
        model.encoder.config = model.config.encoder


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
    """One view: the mean over the views of up to 64 different images, position by position, padding left out."""
    distinct = list({image.key: image for image in images}.values())[:MEAN_OF]
    features, _ = encoder.features(distinct)
    real, every = features.valid, features.valid_tokens
    levels = tuple(_mean(level, real) for level in features.levels)
    return dataclasses.replace(features, tokens=_mean(features.tokens, every), levels=levels, valid=None)


def _mean(tokens: Tensor, real: Tensor | None) -> Tensor:
    if real is None:
        return tokens.mean(dim=0, keepdim=True)
    weights = real.to(tokens.dtype)[:, :, None]
    mean: Tensor = (tokens * weights).sum(dim=0, keepdim=True) / weights.sum(dim=0, keepdim=True).clamp_min(1)
    return mean
