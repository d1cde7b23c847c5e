"""Before the first step: which samples of those that a run will read would the model refuse, as too long above all?

A conversation that is too long loses its last exchanges, a single one the end of its answer (`data/tokens.py`). What is
still too long then, or leaves nothing to learn, would end the run at the step that meets it.

Most samples are counted without opening a picture, and without a tokenizer where their text is ASCII: a token holds one
character of it or more, and a picture takes no more places than the encoder's tiles can make of any. Only what might
not fit by that count is laid out in full.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from isthmus.branches import inputs_of, plan_inputs
from isthmus.data.mixture import Mixture
from isthmus.data.prompts import Segment, split_turns
from isthmus.data.sample import Input, Sample
from isthmus.data.sources.base import Dataset, Source
from isthmus.data.video import FileVideo
from isthmus.encoders import EncoderConfig, ImageSource, Untiled, VideoEncoder
from isthmus.encoders.base import untiled_plan
from isthmus.features import BranchName, Plan
from isthmus.model import Model
from isthmus.train.drawn import at_most
from isthmus.train.remember import remembered

MOST_CHECKED = 1_000_000
"""Samples of one process that are looked at before the first step."""
_SIDE = 4096
"""Pixels of a tile's side in the pictures that are tried for the most tokens."""

Work = tuple[tuple[Source, ...], Mixture, range]
"""Sources, the mixture of them, and the positions of it that are read."""


class Fits:
    """Tells samples that the model takes in training from those that it refuses."""

    def __init__(self, model: Model, tokenizer: Any) -> None:
        self.model, self.tokenizer = at_most(model), tokenizer
        self.encoders: dict[BranchName, EncoderConfig] = {"image": model.encoder}
        self.encoders |= {name: branch.encoder for name, branch in model.branches.items()}
        self._most: dict[tuple[BranchName, int], int] = {}

    def __call__(self, sample: Sample) -> None:
        """Raises ValueError, with the sample's name and tokens, where the model refuses it.

        Inputs that cannot be read, or that no branch takes, are no matter here: their sample is skipped.
        """
        several = self.model.encoder.tiles_several()
        try:
            shown = inputs_of(sample, self.encoders, tile_several=several)
        except ValueError:
            return
        if self._surely(sample, shown):
            return
        try:
            plans = plan_inputs([sample], self.encoders, tile_several=several)
        except (ValueError, OSError):
            return
        self.model.batch([sample], tokenizer=self.tokenizer, plans=plans)

    def _surely(self, sample: Sample, shown: Sequence[tuple[BranchName, ImageSource]]) -> bool:
        """Whether what cannot be cut away (`_uncut`) fits by the highest count, and has words to learn behind it."""
        llm = self.model.llm
        assert llm is not None
        segments = self.model.prompt.render(sample, self.tokenizer)
        kept = _uncut(segments, causal=llm.kind == "causal")
        if kept is None or sum(segment.image for segment in segments) != len(shown):
            return False
        counts = [
            self._tokens(one, branch, untiled=isinstance(ref, Untiled))
            for one, (branch, ref) in zip(sample.inputs, shown, strict=True)
        ][: sum(segment.image for segment in kept)]
        # A text may get a space before it and an end after it; the row a beginning, an end, and a word to learn.
        length = 3 + sum(self._length(segment.text) + 2 for segment in kept)
        return None not in counts and length + sum(count or 0 for count in counts) <= llm.max_tokens

    def _length(self, text: str) -> int:
        """No fewer than the tokens of a text."""
        return len(text) if text.isascii() else len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _tokens(self, one: Input, branch: BranchName, *, untiled: bool) -> int | None:
        """The most places that an input can take; None where only the opened input tells."""
        encoder = self.encoders[branch]
        if one.kind == "image" and branch == "image":
            views = 1 if untiled else 0
        elif branch == "image":
            if not isinstance(one.ref, FileVideo):
                return None
            views = 1 if isinstance(encoder, VideoEncoder) else one.ref.frames.most
        else:
            views = encoder.most_views()
        if (branch, views) not in self._most:
            plans = [untiled_plan((_SIDE, _SIDE), views)] if views else list(_layouts(encoder))
            counts = [self.model.num_visual_tokens(replace(plan, branch=branch)) for plan in plans]
            self._most[branch, views] = max(counts)
        return self._most[branch, views]


def unfit(work: Sequence[Work], fits: Fits, tell: Callable[[int, int], None]) -> list[str]:
    """Why the model refuses samples at these positions of mixtures, each sample once.

    Sources that leave such samples out, and samples that cannot be read, are passed over: the mixture skips them. Of
    each mixture a million samples are looked at, the first ones. `tell` is given how many of all positions are done.
    """
    total = sum(len(positions) for _, _, positions in work)
    reasons: list[str] = []
    done = 0
    for sources, mixture, positions in work:
        datasets = [source.of.build() for source in remembered(sources)]
        seen: set[tuple[int, int]] = set()
        for position in positions:
            done += 1
            tell(done, total)
            source, index = mixture.place(position)
            if (source, index) not in seen and sources[source].unfit == "refuse" and len(seen) < MOST_CHECKED:
                seen.add((source, index))
                reasons += _refused(datasets[source], index, fits)
    return reasons


def _refused(dataset: Dataset, index: int, fits: Fits) -> list[str]:
    """Why a sample is refused, if it is; for an encoder-decoder, which reads exchanges alone, why each of them is."""
    try:
        sample = dataset[index]
    except (ValueError, OSError):
        return []
    llm = fits.model.llm
    single = llm is not None and llm.kind == "encoder-decoder"
    reasons: list[str] = []
    for part in split_turns(sample, history=False) if single else [sample]:
        try:
            fits(part)
        except ValueError as error:
            reasons.append(str(error))
    return reasons


def _uncut(segments: Sequence[Segment], *, causal: bool) -> Sequence[Segment] | None:
    """What stands before the first words to learn, and before the last image, of the first exchange; for an
    encoder-decoder all that its encoder reads. None where the exchange has no words to learn."""
    if not causal:
        learnt = any(segment.supervised and segment.text.strip() for segment in segments)
        return [segment for segment in segments if not segment.supervised] if learnt else None
    first = [segment for segment in segments if segment.exchange == 0]
    words = [place for place, segment in enumerate(first) if segment.supervised and segment.text.strip()]
    images = [place + 1 for place, segment in enumerate(first) if segment.image]
    return first[: max([words[0], *images])] if words else None


def _layouts(encoder: EncoderConfig) -> Iterator[Plan]:
    """Plans of pictures that fill every layout of so many tiles as the encoder may cut."""
    most = encoder.most_views()
    for rows in range(1, most + 1):
        for columns in range(1, most // rows + 1):
            yield encoder.plan((_SIDE * columns, _SIDE * rows))
