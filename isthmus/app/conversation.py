"""A conversation with a trained model: pictures, videos and sounds in any turn, nothing seen or read twice.

Visual tokens are kept by input, and the language model's keys and values by position, so that a further question costs
its own words alone. Answers equal those of a model that keeps nothing (tests/app).
"""

from collections.abc import Generator, Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from isthmus.app.files import MARK_OF, with_marks
from isthmus.branches import Looked, join_placed
from isthmus.data.collate import Batch, Views
from isthmus.data.interleave import few_shot
from isthmus.data.sample import ImageRef, Input, Sample, SoundRef, Turn, VideoRef, with_turns
from isthmus.encoders import Untiled
from isthmus.features import BranchName, Placed, Plan
from isthmus.llms import Generation
from isthmus.llms.causal import CausalLanguageModel
from isthmus.llms.streaming import ReadSoFar, stream
from isthmus.model import VisionLanguageModel, _stop_ids

LONG = Generation(max_new_tokens=256)


class Conversation:
    """Turns so far, and what the model keeps of them. `keep=False` sees and reads everything again each time.

    `examples` stand first, and stay when the rest is forgotten.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        options: Generation = LONG,
        *,
        examples: Sequence[Sample] = (),
        keep: bool = True,
        seed: int = 0,
    ) -> None:
        if options.num_beams > 1:
            raise ValueError(f"A chat writes word by word, which takes one beam, got num_beams={options.num_beams}.")
        self.model, self.options, self.keep, self.seed = model, options, keep, seed
        self._opening = few_shot(examples, Sample(id="examples", turns=()))
        self.turns: list[Turn] = list(self._opening.turns)
        self.inputs: list[Input] = list(self._opening.inputs)
        self.attached: list[Input] = []
        """What goes with the next question."""
        self._seen: dict[str, Batch] = {}
        self._placed: dict[tuple[Hashable, ...], Placed] = {}
        self._read: ReadSoFar | None = None

    def attach(self, kind: BranchName, ref: ImageRef | VideoRef | SoundRef) -> None:
        """Put a picture, a video or a sound before the next question.

        Raises:
            ValueError: it cannot be read, or it is a sound and the model has no branch that hears.
        """
        if kind == "audio" and "audio" not in self.model.branches:
            raise ValueError("This model has no audio branch, so it hears nothing. Attach pictures or videos.")
        ref.load()
        self.attached.append(Input(kind, ref))

    def clear(self) -> None:
        """Forget every turn and input but those of the examples."""
        self.turns, self.inputs, self.attached = list(self._opening.turns), list(self._opening.inputs), []
        self._forget()

    def ask(self, words: str) -> Generator[str, None, None]:
        """The answer piece by piece; an answer that is left before its end stays in the history as far as it came.

        What is attached goes in front, or each where `<image>`, `<video>` or `<audio>` stands for it in the words.

        Raises:
            ValueError: marks that are not those of what is attached, or a conversation that is longer than the model
                takes; the question is then not part of the history, and its inputs stay attached.
        """
        asked = Turn(role="user", text=with_marks(words, [kind for kind, _ in self.attached]))
        batch, placed, names = self._prompt(self.sample(asked))
        self.turns.append(asked)
        self.inputs, self.attached = [*self.inputs, *self.attached], []
        said = ""
        try:
            for piece in self._answer(batch, placed, names):
                said += piece
                yield piece
        finally:
            self.turns.append(Turn(role="assistant", text=said))

    def say(self, words: str) -> str:
        """The whole answer."""
        return "".join(self.ask(words))

    def sample(self, *further: Turn) -> Sample:
        """The conversation as a sample, with further turns and what is attached to them."""
        inputs = (*self.inputs, *(self.attached if further else ()))
        return with_turns(Sample(id="conversation", turns=()), (*self.turns, *further), inputs)

    @property
    def num_visual_tokens(self) -> int:
        """Positions that the inputs of the history take."""
        counts = (self.model.config.num_visual_tokens(batch.plans[0]) for batch in map(self._see, self._shown()))
        return sum(counts)

    def _forget(self) -> None:
        self._seen, self._placed, self._read = {}, {}, None

    def _shown(self, *attached: Input) -> list[Input]:
        """The inputs as they are seen: pictures that stand with others are not tiled where the encoder says so."""
        inputs = [*self.inputs, *attached]
        several = sum(kind == "image" for kind, _ in inputs) > 1
        whole = several and not self.model.config.encoder.tiles_several()
        return [Input(kind, _untiled(ref)) if whole and kind == "image" else Input(kind, ref) for kind, ref in inputs]

    @torch.no_grad()
    def _prompt(self, sample: Sample) -> tuple[Batch, Placed | None, list[Hashable]]:
        """The conversation as one row, its visual tokens, and a name for each of them."""
        if not self.keep:
            self._forget()
        shown = self._shown(*self.attached)
        plans = [self._see(one).plans[0] for one in shown]
        config = self.model.config
        # Each input was seen in a batch of its own, so that plans alone stand for them here.
        batch = config.batch([sample], tokenizer=self.model.tokenizer, plans=plans, for_generation=True)
        batch = batch.to(self._device)
        parts: list[Placed] = []
        names: list[Hashable] = []
        for one, plan in zip(shown, plans, strict=True):
            reads = batch.text is not None and plan.branch == "image"
            asked = tuple(batch.text.ids.flatten().tolist()) if batch.text is not None and reads else None
            key = (one.ref.key, asked)
            if key not in self._placed:
                found = self.model._placed(replace(self._see(one), text=batch.text if reads else None))
                assert found is not None
                self._placed[key] = found
            parts.append(self._placed[key])
            names += [(*key, place) for place in range(len(parts[-1].tokens))]
        return batch, _joined(plans, parts), names

    def _see(self, one: Input) -> Batch:
        """An input as a batch of its own, with its features."""
        key = one.ref.key
        if key not in self._seen:
            model = self.model
            name = getattr(one.ref, "path", one.kind)
            alone = with_turns(Sample(id=name, turns=()), (Turn(role="user", text=MARK_OF[one.kind]),), (one,))
            looked: Looked = model.look([alone])
            batch = model.config.batch(
                [alone],
                tokenizer=model.tokenizer,
                plans=looked.plans,
                pixels=looked.image.pixels,
                others=looked.others,
                for_generation=True,
            ).to(self._device)
            with torch.no_grad():
                features = None if batch.pixels is None else model.features(batch)
                others = {
                    name: Views(features=model.branches[name].features(views)) for name, views in batch.others.items()
                }
            self._seen[key] = replace(batch, features=features, pixels=None, others=others)
        return self._seen[key]

    def _answer(self, batch: Batch, placed: Placed | None, names: list[Hashable]) -> Generator[str, None, None]:
        model, stop, tokenizer = self.model, self.model.config.prompt.stop, self.model.tokenizer
        with torch.no_grad():
            embedded = model.embed(batch, placed)
            model._open_door(batch, placed)
        stops = _stop_ids(stop, tokenizer)
        if not isinstance(model.llm, CausalLanguageModel):
            written = model.llm.generate(embedded, batch.ids, batch.mask, self.options, stops)
            yield _cleaned(tokenizer.decode(written[0], skip_special_tokens=True), stop)
            return
        if self._read is None:
            self._read = ReadSoFar(model.llm)
        positions = _positions(batch.ids, batch.visual, names)
        seed = self.seed + len(self.turns)
        ids: list[int] = []
        shown = ""
        for token in stream(self._read, embedded, batch.ids, positions, self.options, stops, seed=seed):
            ids.append(token)
            text = tokenizer.decode(ids, skip_special_tokens=True)
            whole = _cleaned(text.rstrip("\ufffd"), stop)  # the rest of a letter of several bytes is still to come
            if whole.startswith(shown) and len(whole) > len(shown):
                yield whole[len(shown) :]
                shown = whole
            if stop and stop in text.strip():
                return
        rest = _cleaned(tokenizer.decode(ids, skip_special_tokens=True), stop)
        if rest.startswith(shown) and len(rest) > len(shown):
            yield rest[len(shown) :]

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def _untiled(ref: Any) -> Any:
    return Untiled(of=ref)


def _joined(plans: Sequence[Plan], parts: Sequence[Placed]) -> Placed | None:
    """The visual tokens of several inputs as those of one batch; None when there are none."""
    if not parts:
        return None
    mine: dict[BranchName, list[Placed]] = {}
    for plan, part in zip(plans, parts, strict=True):
        mine.setdefault(plan.branch, []).append(part)
    return join_placed(plans, {name: _concatenated(some) for name, some in mine.items()})


def _concatenated(parts: Sequence[Placed]) -> Placed:
    memories = [part.memory for part in parts if part.memory is not None]
    owners: list[int] = []
    inputs = 0
    for part in parts:
        owners += [inputs + owner for owner in part.owner]
        inputs += len(part.lengths)
    return Placed(
        tokens=torch.cat([part.tokens for part in parts]),
        lengths=tuple(length for part in parts for length in part.lengths),
        deeper=tuple(torch.cat(level) for level in zip(*(part.deeper for part in parts), strict=True)),
        layers=parts[0].layers,
        memory=torch.cat(memories) if memories else None,
        owner=tuple(owners),
    )


def _positions(ids: Tensor, visual: Tensor, names: list[Hashable]) -> list[Hashable]:
    """What stands at every position: a token's id, or the name of a visual token."""
    rest = iter(names)
    pairs = zip(ids[0].tolist(), visual[0].tolist(), strict=True)
    return [next(rest) if seen else token for token, seen in pairs]


def _cleaned(text: str, stop: str) -> str:
    text = text.strip()
    return text.split(stop)[0].strip() if stop else text
