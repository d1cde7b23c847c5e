"""Everything a judged run without a language model is asked: galleries both ways, and descriptions against wrong ones.

A gallery's score is R@1 over the queries of both ways together, each query one saved answer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor

from isthmus.compare.asking import Asking, items_of
from isthmus.compare.jobs import AskedToAlign
from isthmus.data.captions import caption_of
from isthmus.data.sample import Sample
from isthmus.evaluate.benchmarks.alignment import ALIGNMENT
from isthmus.evaluate.gallery import Gallery, make_gallery, retrieve_both_ways, wrong_ahead
from isthmus.evaluate.levels import Levels
from isthmus.evaluate.pairs import prefer
from isthmus.evaluate.record import Answer, accuracy, read_answers, write_answers

AFTER = "watched"
Scored = Literal["none", "compared"]
"""With everything that the score takes; by comparison alone."""


class Aligning(Asking[Scored, AskedToAlign]):
    """A run that tells which texts and images belong together."""

    @property
    def ways(self) -> tuple[Scored, ...]:
        """The score; and comparison alone beside it, where the best are judged again."""
        return ("none", "compared") if self.asked.judge else ("none",)

    def fresh(self, way: Scored, report: Callable[[float], None]) -> list[Answer]:
        """Every task."""
        answers: list[Answer] = []
        for place, (task, num) in enumerate(self.asked.tasks):
            report(place / len(self.asked.tasks))
            answers += self._asked(task, items_of(task, num), self.asked.judge if way == "none" else 0)
        return answers

    def watch(self) -> list[Answer]:
        """Each headline task's first items: galleries of their own, so that before and after search among the same."""
        few = self.asked.watch_items
        return [
            one for task, num in self.chief for one in self._asked(task, items_of(task, num)[:few], self.asked.judge)
        ]

    def watched_accuracy(self) -> float:
        """These once more, after training."""
        path = self.folder / f"{AFTER}.jsonl"
        if not path.is_file():
            write_answers(self.watch(), path)
        return accuracy(read_answers(path))

    def _asked(self, task: str, items: Sequence[Sample], judge: int) -> list[Answer]:
        if ALIGNMENT[task].form == "pairs":
            won = prefer(self.model, items, encoder=self.encoder, judge=judge > 0, vectors=self.run.vectors).judged
            return [_preferred(item, score) for item, score in zip(items, won, strict=True)]
        gallery = make_gallery(items)
        found = retrieve_both_ways(self.model, gallery, encoder=self.encoder, k=judge, vectors=self.run.vectors)
        return [*found_texts(items, gallery, found.to_text), *found_images(items, gallery, found.to_image)]


def found_texts(items: Sequence[Sample], gallery: Gallery, scores: Tensor) -> Iterator[Answer]:
    """For each image of a gallery the description that was found, by scores of images with texts."""
    first = _first(items, lambda item: item.images[0].key)
    asked = [(first[image.key], "Which description belongs to this picture?") for image in gallery.images]
    return _found(asked, [caption_of(text) for text in gallery.texts], scores, gallery.belongs)


def found_images(items: Sequence[Sample], gallery: Gallery, scores: Tensor) -> Iterator[Answer]:
    """For each description the picture that was found, under the name of a sample that shows it."""
    first, told = _first(items, lambda item: item.images[0].key), _first(items, caption_of)
    captions = [caption_of(text) for text in gallery.texts]
    asked = [
        (replace(told[caption], id=f"{told[caption].id}/picture"), f"Which picture belongs to this? {caption}")
        for caption in captions
    ]
    return _found(asked, [first[image.key].id for image in gallery.images], scores.T, gallery.belongs.T)


def _first(items: Sequence[Sample], key: Callable[[Sample], str]) -> dict[str, Sample]:
    return {key(item): item for item in reversed(items)}


def _found(
    asked: Sequence[tuple[Sample, str]], names: Sequence[str], scores: Tensor, right: Tensor
) -> Iterator[Answer]:
    """One answer a query: the best of the right ones where none that is wrong comes near, else the best wrong one."""
    won = wrong_ahead(scores, right) == 0
    best = scores.masked_fill(right != won[:, None], float("-inf")).argmax(dim=1).tolist()
    for (item, prompt), belongs, score, place in zip(asked, right, won.tolist(), best, strict=True):
        answers = tuple(names[one] for one in belongs.nonzero()[:, 0].tolist())
        yield _answer(item, prompt, names[place], answers, float(score))


def _preferred(item: Sample, score: float) -> Answer:
    told, wrong = caption_of(item), str(item.meta["wrong"])
    said = "neither stands out" if score == 0.5 else told if score else wrong
    return _answer(item, "Which of the two belongs to this picture?", said, (told,), score)


def _answer(item: Sample, prompt: str, prediction: str, answers: tuple[str, ...], score: float) -> Answer:
    return Answer(
        item=item.id,
        family=str(item.meta["family"]),
        group=str(item.meta.get("group", item.id)),
        control="none",
        prompt=prompt,
        prediction=prediction,
        answers=answers,
        score=score,
    )


def chance_in(task: str, num: int) -> tuple[int, Levels]:
    """How many queries a task has, and what a blind guess is worth: nothing else can be had without looking."""
    items = items_of(task, num)
    count, chance = len(items), 0.5
    if ALIGNMENT[task].form == "gallery":
        gallery = make_gallery(items)
        count, chance = sum(gallery.belongs.shape), gallery.chance
    return count, Levels(chance=chance, majority=chance, question_only=chance)
