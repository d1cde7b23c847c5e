"""Feed a model: the batches of any step, as a pure function of the stage and the step, with features from the cache."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from isthmus.branches import inputs_of, look
from isthmus.data.captions import styled_caption
from isthmus.data.collate import Batch
from isthmus.data.mixture import Mixture
from isthmus.data.sample import Sample
from isthmus.encoders.base import Encoder, EncoderConfig
from isthmus.encoders.cache import FeatureCache, default_folder
from isthmus.encoders.cached import CachedEncoder, ImageSource
from isthmus.features import BranchName
from isthmus.model import Model, VisionLanguageModel
from isthmus.train.drawn import at_step
from isthmus.train.lengths import Fits, unfit
from isthmus.train.progress import Progress, ProgressDisplay
from isthmus.train.randomness import seed_of
from isthmus.train.remember import remembered
from isthmus.train.stage import Stage

CACHE_GIB = 8.0
"""Features that would take more than this are not kept: images are then encoded at each step."""
_BYTES = 2
_WARM_AT_ONCE = 64


class Seen:
    """Accepts samples whose images can be encoded (or, where pixels are fed, opened); each image is tried once.

    `check` raises ValueError for a sample that is unfit for another reason.
    """

    def __init__(self, looks: "Looks", check: Callable[[Sample], object]) -> None:
        self.looks, self.check = looks, check
        self.good: set[str] = set()
        self.bad: dict[str, str] = {}

    def __call__(self, sample: Sample) -> None:
        """Raises ValueError, with the reason, when the sample or an image of it cannot be used."""
        self.check(sample)
        for branch, ref in self.looks.inputs(sample):
            key = ref.key
            if key not in self.good:
                self.try_all(branch, [ref])
            if key in self.bad:
                raise ValueError(self.bad[key])

    def try_all(self, branch: BranchName, images: Sequence[ImageSource]) -> None:
        """Find out about these inputs of one branch, together where that works."""
        encoder = self.looks.encoders[branch]
        try:
            if not isinstance(encoder, CachedEncoder) or encoder.cache is None:
                for image in images:
                    image.load()
            else:
                for view in range(encoder.views):
                    encoder.features(images, view)
            self.good.update(image.key for image in images)
        except ValueError as error:
            if len(images) == 1:
                self.bad[images[0].key] = str(error)
            else:
                for image in images:
                    self.try_all(branch, [image])


@dataclass(frozen=True, kw_only=True)
class Looks:
    """The encoder of every branch: with features kept, or (where it learns) the module that takes pixels."""

    encoders: Mapping[BranchName, CachedEncoder | Encoder]
    tile_several: bool

    @property
    def kept(self) -> list[CachedEncoder]:
        """The encoders whose features are kept."""
        return [one for one in self.encoders.values() if isinstance(one, CachedEncoder) and one.cache is not None]

    def inputs(self, sample: Sample) -> list[tuple[BranchName, ImageSource]]:
        """The inputs of a sample, each with its branch."""
        return inputs_of(sample, self.encoders, tile_several=self.tile_several)


class Feed:
    """The batches of one process. `rank` of `num_ranks` processes share every step's samples evenly.

    Raises:
        ValueError: the processes do not divide the batch.
    """

    def __init__(
        self,
        stage: Stage,
        model: VisionLanguageModel,
        *,
        device: torch.device,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        if stage.batch_size % num_ranks:
            raise ValueError(f"batch_size={stage.batch_size} cannot be shared by {num_ranks} processes evenly.")
        self.stage, self.model, self.rank, self.num_ranks = stage, model, rank, num_ranks
        self.share = stage.batch_size // num_ranks
        self.micro = min(self.share, stage.micro_batch_size or self.share)
        single = stage.model.llm is None or stage.model.llm.kind == "encoder-decoder"
        self.fits = None if stage.model.llm is None else Fits(stage.model, model.tokenizer)
        mixed = partial(
            Mixture,
            remembered(stage.data),
            seed=stage.seed,
            single_exchange=single,
            block=stage.block,
        )
        plain = mixed(accept=_accept_all)
        self.num_steps = stage.num_steps(len(plain))
        self.looks, self.plain_looks = self._encoders(device, num_samples=len(plain))
        check = partial(styled_caption, style=stage.model.captions) if stage.model.llm is None else _accept_all
        self.seen = Seen(self.looks, check)
        self.seen_plain = self.seen if self.looks is self.plain_looks else Seen(self.plain_looks, check)
        self.unchecked = plain
        self.mixture = mixed(accept=self.seen, fits=self.fits)
        self.held_out: Mixture | None = None
        if stage.validation:
            self.held_out = Mixture(
                remembered(stage.validation),
                seed=0,
                accept=self.seen_plain,
                fits=self.fits,
                single_exchange=single,
            )

    def step(self, step: int) -> list[Batch]:
        """This process's micro-batches of a step (0 is the first), on the CPU."""
        first = step * self.stage.batch_size
        positions = range(first + self.rank, first + self.stage.batch_size, self.num_ranks)
        samples = [self.mixture[position] for position in positions]
        view, model = self._view(step), at_step(self.stage.model, self.stage.seed, step)
        return [self._batch(some, self.looks, view, model) for some in _chunks(samples, self.micro)]

    def validation(self) -> Iterator[Batch]:
        """This process's share of the held-out samples, each once, plain views."""
        assert self.held_out is not None
        positions = range(self.rank, len(self.held_out), self.num_ranks)
        for chunk in _chunks(positions, max(self.micro, 8)):
            samples = [self.held_out[position] for position in chunk]
            yield self._batch(samples, self.plain_looks, 0, self.stage.model)

    def warm(self, display: ProgressDisplay, first_step: int = 0) -> int:
        """Encode every input the coming steps read that is not in the cache yet; returns how many were encoded."""
        kept = [*self.looks.kept, *self.plain_looks.kept]
        if not kept:
            return 0
        once = list({id(one): one for one in kept}.values())
        before = sum(one.encoder_calls for one in once)
        first = first_step * self.stage.batch_size
        last = min(self._end, first + len(self.unchecked))
        work = [(self.seen, self.unchecked, range(first + self.rank, last, self.num_ranks))]
        if self.held_out is not None:
            ahead = Mixture(remembered(self.stage.validation), seed=0, accept=_accept_all)
            work.append((self.seen_plain, ahead, range(self.rank, len(ahead), self.num_ranks)))
        total = sum(len(positions) for _, _, positions in work)
        done = 0
        for seen, mixture, positions in work:
            for chunk in _chunks(positions, _WARM_AT_ONCE):
                _try(seen, [mixture[position] for position in chunk])
                done += len(chunk)
                display.update(Progress(name=self.stage.name, phase="features", done=done, total=total))
        return sum(one.encoder_calls for one in once) - before

    def unfit(self, display: ProgressDisplay, first_step: int = 0) -> list[str]:
        """Why the model refuses samples that the coming steps and validation read, of this process's share.

        Without a language model there is no such length.
        """
        if self.fits is None:
            return []
        coming = range(first_step * self.stage.batch_size + self.rank, self._end, self.num_ranks)
        work = [(self.stage.data, self.unchecked, coming)]
        if self.held_out is not None:
            work.append((self.stage.validation, self.held_out, range(self.rank, len(self.held_out), self.num_ranks)))

        def tell(done: int, total: int) -> None:
            if done == total or display.due:
                display.update(Progress(name=self.stage.name, phase="lengths", done=done, total=total))

        return unfit(work, self.fits, tell)

    @property
    def _end(self) -> int:
        """The position behind the run's last."""
        return self.num_steps * self.stage.batch_size

    def skipped(self) -> list[str]:
        """Which samples this process could not use so far: `source/number`, of training and of validation."""
        found = [f"data {source}/{index}" for source, index in self.mixture.skipped]
        if self.held_out is not None:
            found += [f"validation {source}/{index}" for source, index in self.held_out.skipped]
        return found

    def _view(self, step: int) -> int:
        views = self.stage.cached_views
        encoder = self.looks.encoders["image"]
        if not isinstance(encoder, CachedEncoder) or encoder.views == views == 1 or self.looks is self.plain_looks:
            return 0
        drawn = seed_of(self.stage.seed, "view", step)
        return drawn % views if views else 1 + drawn % (2**31)

    def _batch(self, samples: Sequence[Sample], looks: Looks, view: int, model: Model) -> Batch:
        seen = look(samples, looks.encoders, view=view, tile_several=looks.tile_several)
        return model.batch(
            samples,
            tokenizer=self.model.tokenizer,
            plans=seen.plans,
            features=seen.image.features,
            pixels=seen.image.pixels,
            others=seen.others,
        )

    def _encoders(self, device: torch.device, num_samples: int) -> tuple[Looks, Looks]:
        """The encoders of training and of validation."""
        model, learns = self.model, self.stage.learns_in
        seen: dict[BranchName, CachedEncoder | Encoder] = {}
        plain: CachedEncoder | Encoder
        if model.encoder is not None:  # it learns, or an earlier stage has tuned it
            seen["image"] = plain = model.encoder
        else:
            seen["image"], plain = self._cached(self.stage.model.encoder, device, num_samples, self.stage.cached_views)
        for name, branch in self.stage.model.branches.items():
            own = learns(f"{name}.encoder")
            seen[name] = (
                model.branches[name].built_encoder() if own else self._cached(branch.encoder, device, num_samples, 1)[1]
            )
        several = self.stage.model.encoder.tiles_several()
        looks = Looks(encoders=seen, tile_several=several)
        return looks, looks if plain is seen["image"] else replace(looks, encoders={**seen, "image": plain})

    def _cached(
        self, config: EncoderConfig, device: torch.device, num_samples: int, views: int
    ) -> tuple[CachedEncoder, CachedEncoder]:
        """A frozen encoder with `views` augmented views, and with plain ones."""
        stage = self.stage
        shape = config.shape()
        channels = shape.width * (shape.grid.size + shape.prefix) + sum(shape.level_widths) * shape.grid.size
        images = min(num_samples, self.num_steps * stage.batch_size)
        channels *= config.most_views()
        fits = images * max(1, views) * channels * _BYTES <= CACHE_GIB * 2**30
        cache = FeatureCache(default_folder(), max_gib=CACHE_GIB) if fits else None
        chunk = 1 if device.type == "cpu" else 32
        plain = CachedEncoder(config, cache, views=1 if fits else 0, chunk=chunk, device=device)
        if views == 1 or (views > 1 and not fits):
            return plain, plain
        return CachedEncoder(config, cache if views else None, views=views, chunk=chunk, device=device), plain


def _chunks(values: Sequence, size: int) -> Iterator[Sequence]:
    return (values[first : first + size] for first in range(0, len(values), size))


def _accept_all(sample: Sample) -> None:
    """Opens nothing: for looking ahead."""


def _try(seen: Seen, samples: Sequence[Sample]) -> None:
    """Find out about the inputs of these samples that were not tried before."""
    found: dict[BranchName, dict[str, ImageSource]] = {}
    for sample in samples:
        with contextlib.suppress(ValueError):
            for branch, ref in seen.looks.inputs(sample):
                found.setdefault(branch, {}).setdefault(ref.key, ref)
    for branch, refs in found.items():
        new = [ref for key, ref in refs.items() if key not in seen.good and key not in seen.bad]
        if new:
            seen.try_all(branch, new)
