"""A frozen encoder that answers from the feature cache, and encodes only what it has not seen."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from isthmus.encoders.base import Encoder, EncoderConfig, Prepared, Untiled, untiled_plan
from isthmus.encoders.cache import FeatureCache, Stored
from isthmus.encoders.steps import cut_steps, join_features
from isthmus.encoders.views import crop_view
from isthmus.features import Clip, Features, FeatureShape, Plan, Sound


@runtime_checkable
class ImageSource(Protocol):
    """An image, clip or sound that is not loaded yet, under a content address: equal keys mean equal pixels."""

    @property
    def key(self) -> str:
        """The content address."""
        ...

    def load(self) -> Image.Image | Clip | Sound:
        """The RGB image, clip or sound. Raises ValueError (naming it) when it cannot be read safely."""
        ...


class CachedEncoder:
    """Features of images by their keys. The encoder's weights are loaded when the first image must be encoded.

    `views` says how images are augmented: 1, the plain image; k > 1, k fixed random resized crops an image (their
    number is part of the key); 0, nothing is stored, `view` 0 is the plain image and every other number a crop of its
    own, encoded each time. `encoder_calls` counts the images that were encoded.

    Views go through the encoder `chunk` at a time, always exactly so many on an accelerator (the last chunk is filled
    up), so that the features of an image do not depend on what else was asked for.
    """

    def __init__(
        self,
        config: EncoderConfig,
        cache: FeatureCache | None,
        *,
        views: int = 1,
        chunk: int = 16,
        device: str | torch.device = "cpu",
    ) -> None:
        if views < 0 or chunk < 1:
            raise ValueError(f"CachedEncoder needs views >= 0 and chunk >= 1, but views={views}, chunk={chunk} came.")
        if views > 0 and cache is None:
            raise ValueError(f"views={views} keeps features, so a cache is needed. Give one, or views=0.")
        self.config = config
        self.cache = cache if views > 0 else None
        self.views = views
        self.chunk = chunk
        self.device = torch.device(device)
        self.encoder_calls = 0
        self._encoder: Encoder | None = None
        self._fingerprint: str | None = None

    @property
    def shape(self) -> FeatureShape:
        """The shape of the features, from the config alone."""
        return self.config.shape()

    @property
    def fingerprint(self) -> str:
        """The encoder's fingerprint, computed once."""
        if self._fingerprint is None:
            self._fingerprint = self.config.fingerprint()
        return self._fingerprint

    def features(self, images: Sequence[ImageSource], view: int = 0) -> tuple[Features, tuple[Plan, ...]]:
        """Float32 features on the CPU, the rows of one image after those of another, and each image's plan.

        Raises:
            ValueError: no images, a view that does not exist, or an image that cannot be read.
        """
        if not images:
            raise ValueError("features() needs at least one image: a batch of text alone asks for none.")
        if view < 0 or (self.views > 0 and view >= self.views):
            raise ValueError(f"With views={self.views}, view goes from 0 to {max(self.views - 1, 0)}, not {view}.")
        stored = [self._get(image.key, view) for image in images]
        missing = {images[i].key: images[i] for i, found in enumerate(stored) if found is None}
        fresh = self._encode(list(missing.values()), view) if missing else {}
        whole = [fresh[image.key] if found is None else found for image, found in zip(images, stored, strict=True)]
        return self._join(images, whole)

    def _join(self, images: Sequence[ImageSource], stored: list[Stored]) -> tuple[Features, tuple[Plan, ...]]:
        plans: list[Plan] = []
        for image, one in zip(images, stored, strict=True):
            rows, first = one.features.tokens.shape[0], plans[-1].views.stop if plans else 0
            untiled = isinstance(image, Untiled)
            plan = untiled_plan(one.size, rows, first) if untiled else self.config.plan(one.size, first)
            assert len(plan.views) == rows, "a plan counts the views that were encoded"
            plans.append(plan)
        return join_features([one.features for one in stored], self.config.shape().grid.frames), tuple(plans)

    def _name(self, view: int) -> str:
        return "plain" if self.views == 1 else f"{view}/{self.views}"

    def _get(self, key: str, view: int) -> Stored | None:
        return None if self.cache is None else self.cache.get(self.fingerprint, key, self._name(view))

    def _encode(self, images: list[ImageSource], view: int) -> dict[str, Stored]:
        """Encodes images and stores them, with the pixels of a bounded number of views in memory."""
        fresh: dict[str, Stored] = {}
        waiting: list[tuple[ImageSource, Prepared]] = []
        for number, image in enumerate(images, 1):
            waiting.append((image, self._prepare(image, view)))
            if number == len(images) or sum(len(one.pixels) for _, one in waiting) >= max(self.chunk, 32):
                fresh |= self._encode_prepared(waiting, view)
                self.encoder_calls += len(waiting)
                waiting = []
        return fresh

    def _encode_prepared(self, prepared: list[tuple[ImageSource, Prepared]], view: int) -> dict[str, Stored]:
        said = self._run(torch.cat([one.pixels for _, one in prepared]))
        fresh: dict[str, Stored] = {}
        row = 0
        for image, one in prepared:
            rows = slice(row, row + one.pixels.shape[0])
            row = rows.stop
            fresh[image.key] = self._put(image.key, cut_steps(said, rows), one.size, view)
        return fresh

    def _put(self, key: str, features: Features, size: tuple[int, int], view: int) -> Stored:
        if self.cache is None:
            return Stored(features=features, size=size)
        return self.cache.put(self.fingerprint, key, features, size, self._name(view))

    def _prepare(self, image: ImageSource, view: int) -> Prepared:
        pixels = image.load()
        plain = self.views == 1 or (self.views == 0 and view == 0)
        if plain or not isinstance(pixels, Image.Image):
            return self._built().prepare(pixels)
        return self._built().prepare(crop_view(pixels, image.key, view))

    def _built(self) -> Encoder:
        if self._encoder is None:
            self._encoder = self.config.build().to(self.device).eval()
        return self._encoder

    def _shape(self) -> FeatureShape:
        return self._built().shape

    def _run(self, pixels: Tensor) -> Features:
        """Features of all views, in chunks of `chunk` views."""
        encoder, views = self._built(), pixels.shape[0]
        filled = 0 if self.device.type == "cpu" else -views % self.chunk
        pixels = torch.cat([pixels, pixels.new_zeros(filled, *pixels.shape[1:])]) if filled else pixels
        parts: list[tuple[Tensor, ...]] = []
        valid: list[Tensor] = []
        with torch.inference_mode():
            for chunk in torch.split(pixels, self.chunk):
                said = encoder(chunk.to(self.device))
                parts.append(tuple(part.to("cpu", torch.float32) for part in (said.tokens, *said.levels)))
                real = torch.ones(len(chunk), said.grid.size, dtype=torch.bool)
                valid.append(real if said.valid is None else said.valid.cpu())
        joined = [torch.cat(part)[:views].clone() for part in zip(*parts, strict=True)]
        shape = self._shape()
        return Features(
            tokens=joined[0],
            grid=shape.grid,
            prefix=shape.prefix,
            levels=tuple(joined[1:]),
            valid=torch.cat(valid)[:views],
        )
