"""The exact world's question families, over scenes never seen in training."""

from collections.abc import Callable

from isthmus.data.sample import Sample
from isthmus.data.sources.world_boxes import boxed_items, grounding_items
from isthmus.data.sources.world_chat import questions
from isthmus.evaluate.task import Split, Task


def _family(family: str) -> Callable[[Split, int, int], list[Sample]]:
    def make(split: Split, num: int, seed: int) -> list[Sample]:
        return questions(family, num, split=split, seed=seed)

    return make


def _task(family: str, title: str) -> Task:
    return Task(name=f"world/{family}", title=title, kind="exact world", make=_family(family))


def _new_combinations(split: Split, num: int, seed: int) -> list[Sample]:
    """Attributes of scenes that hold a pair of colour and shape never trained on (training questions for "train")."""
    return questions("attribute", num, split="train" if split == "train" else "test_combos", seed=seed)


def _grounding(split: Split, num: int, seed: int) -> list[Sample]:
    return grounding_items(num, split=split, seed=seed)


def _in_box(split: Split, num: int, seed: int) -> list[Sample]:
    return boxed_items(num, split=split, seed=seed)


TASKS: tuple[Task, ...] = (
    _task("attribute", "Colour, shape, size"),
    _task("position", "Position"),
    _task("count", "Counting"),
    _task("relation", "Spatial relation"),
    _task("existence", "Existence"),
    _task("reading", "Reading a word or number"),
    _task("chart", "Small charts"),
    Task(name="world/grounding", title="Finding a named thing (IoU 0.5)", kind="exact world", make=_grounding),
    Task(name="world/in-box", title="What is in a box", kind="exact world", make=_in_box),
    Task(name="world/new-combinations", title="Unseen combinations", kind="exact world", make=_new_combinations),
)
