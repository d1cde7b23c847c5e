"""NLVR's boxes: human sentences that are true or false of a picture, and exact questions from its object lists.

Source: A. Suhr, M. Lewis, J. Yeh, Y. Artzi, "A Corpus of Natural Language for Visual Reasoning", ACL 2017 (CC BY 4.0).
The official dev part is `train`; halves of the official public test part are `val` and `test`. The six permutations of
an example's three boxes are six samples of one split.
"""

import random
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import permutations
from pathlib import Path
from typing import Literal, get_args

from PIL import Image

from isthmus.data.images import PackedImage, content_key
from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig, checked
from isthmus.data.sources.boxes import Boxes, Thing, ask_boxes
from isthmus.data.sources.packed import read_packed
from isthmus.data.sources.wordings import YES_NO, truth_question

FOLDER = Path(__file__).parents[2] / "bundled" / "nlvr"
ORDERS = tuple(permutations(range(3)))
"""`ORDERS[k][place]` is the box of the packed picture that stands at `place` in permutation k."""
_LEFT = (0, 150, 300)
_SIDE = 100
_GAP = (128, 128, 128)

NlvrTask = Literal["truth", "exact", "mixed"]
NlvrSplit = Literal["train", "val", "test"]
Layout = Literal["square", "strip"]


@dataclass(frozen=True, kw_only=True)
class BoxesImage:
    """The three boxes of a packed picture in another order.

    "strip" is the corpus's own 400 x 100 picture, which the bundled eye saw squashed to a square in its training;
    "square" sets the left box top left, the right one top right and the middle one below on 210 x 210 pixels, so that a
    square picture shows them undistorted.
    """

    packed: PackedImage
    order: tuple[int, ...]
    layout: Layout

    @cached_property
    def key(self) -> str:
        """The packed picture's key, the order and the layout."""
        return content_key(f"boxes 1 {self.packed.key} {self.order} {self.layout}".encode())

    def load(self) -> Image.Image:
        """The picture. Raises ValueError naming the archive and the offset."""
        packed = self.packed.load()
        size, corners = ((210, 210), ((0, 0), (55, 110), (110, 0))) if self.layout == "square" else _STRIP
        picture = Image.new("RGB", size, _GAP)
        for corner, box in zip(corners, self.order, strict=True):
            left = _LEFT[box]
            picture.paste(packed.crop((left, 0, left + _SIDE, _SIDE)), corner)
        return picture


_STRIP = ((400, 100), ((0, 0), (150, 0), (300, 0)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Example:
    id: str
    sentence: str
    label: bool
    boxes: Boxes
    packed: PackedImage

    def permuted(self, order: tuple[int, ...]) -> Boxes:
        return tuple(self.boxes[box] for box in order)

    def truth(self) -> tuple[str, str]:
        return truth_question(self.sentence), YES_NO[0 if self.label else 1]


@lru_cache(maxsize=8)
def _examples(split: str, folder: Path) -> tuple[_Example, ...]:
    if split not in get_args(NlvrSplit):
        raise ValueError(f"A split of NlvrBoxes is one of {get_args(NlvrSplit)}, got {split!r}.")
    examples = []
    for row, packed in read_packed(folder):
        if row["split"] != split:
            continue
        boxes = tuple(
            tuple(Thing(x=x, y=y, shape=shape, colour=colour, side=side) for x, y, shape, colour, side in box)
            for box in row["boxes"]
        )
        examples.append(
            _Example(id=row["id"], sentence=row["sentence"], label=row["label"], boxes=boxes, packed=packed)
        )
    return tuple(examples)


@dataclass(frozen=True, kw_only=True)
class NlvrBoxes(SourceConfig):
    """One sample an example and permutation. "mixed" asks the human sentence and `questions` exact ones in one go."""

    task: NlvrTask = "mixed"
    split: NlvrSplit = "train"
    questions: int = 4
    """Exact questions in a conversation."""
    permutations: int = 6
    """How many of the six orders of the boxes to use."""
    layout: Layout = "strip"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in get_args(NlvrTask) or self.layout not in get_args(Layout):
            raise ValueError(
                f"NlvrBoxes knows the tasks {get_args(NlvrTask)} and the layouts {get_args(Layout)}, "
                f"got {self.task!r} and {self.layout!r}."
            )
        if self.questions < 1 or not 1 <= self.permutations <= 6:
            raise ValueError(
                f"NlvrBoxes needs 1 question or more and 1 to 6 permutations, got questions={self.questions} and "
                f"permutations={self.permutations}."
            )

    def build(self) -> Dataset:
        """The conversations."""
        return _Conversations(self, _examples(self.split, FOLDER))


class _Conversations:
    def __init__(self, config: NlvrBoxes, examples: tuple[_Example, ...]) -> None:
        self._config = config
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples) * self._config.permutations

    def __getitem__(self, index: int) -> Sample:
        config = self._config
        which, number = divmod(checked(index, len(self)), config.permutations)
        example, order = self._examples[which], ORDERS[number]
        rng = random.Random(f"nlvr {config.seed} {example.id} {number}")
        asked: list[tuple[str, str]] = []
        if config.task != "exact":
            asked.append(example.truth())
        if config.task != "truth":
            asked += [one[:2] for one in ask_boxes(example.permuted(order), rng, config.questions)]
        rng.shuffle(asked)
        turns: list[Turn] = []
        for question, answer in asked:
            mark = "" if turns else f"{IMAGE_MARK}\n"
            turns += [Turn(role="user", text=mark + question), Turn(role="assistant", text=answer)]
        image = BoxesImage(packed=example.packed, order=order, layout=config.layout)
        return Sample(id=f"nlvr/{example.id}-{number}", turns=tuple(turns), images=(image,))


def questions(
    task: Literal["truth", "exact"],
    num: int,
    *,
    split: NlvrSplit = "test",
    seed: int = 0,
    layout: Layout = "strip",
) -> list[Sample]:
    """`num` held-out questions, or as many as the split has. The group is the set of boxes.

    "truth" asks each sentence of one permutation; "exact" takes the examples in turn, each time in another permutation.

    Raises:
        ValueError: an unknown task or split.
    """
    if task not in ("truth", "exact"):
        raise ValueError(f"Questions on NLVR are of the tasks 'truth' and 'exact', got {task!r}.")
    examples = list(_examples(split, FOLDER))
    random.Random(f"nlvr questions {split} {seed}").shuffle(examples)
    found: list[Sample] = []
    for number, order in enumerate(ORDERS):
        for example in examples:
            rng = random.Random(f"nlvr question {seed} {example.id} {number}")
            shown = rng.choice(ORDERS) if task == "truth" else order
            image = BoxesImage(packed=example.packed, order=shown, layout=layout)
            asked = ask_boxes(example.permuted(order), rng, 1) if task == "exact" else [(*example.truth(), YES_NO)]
            found += [_held_out(task, *one, image, f"{example.id}-{number}") for one in asked]
            if len(found) == num:
                return found
        if task == "truth":
            return found
    return found


def _held_out(task: str, question: str, answer: str, choices: tuple[str, ...], image: BoxesImage, name: str) -> Sample:
    example = name.rsplit("-", 1)[0]
    return Sample(
        id=f"nlvr/{task}/{name}",
        turns=(Turn(role="user", text=f"{IMAGE_MARK}\n{question}"),),
        images=(image,),
        meta={
            "family": f"nlvr {task}",
            "answers": (answer,),
            "choices": choices,
            "chance": 1 / len(choices),
            "metric": "exact",
            "group": f"nlvr/{example.rsplit('-', 1)[0]}",
            "detail": {},
        },
    )
