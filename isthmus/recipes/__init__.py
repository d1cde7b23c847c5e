"""Recipes and studies by name. The table is light: a recipe's module is imported when the recipe is called."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from isthmus.config import did_you_mean

if TYPE_CHECKING:
    from isthmus.compare.study import Study
    from isthmus.train.stage import Stage

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe(Generic[T]):
    """A function of no arguments, `isthmus.recipes.MODULE.FUNCTION`, that returns a stage or a study."""

    module: str
    function: str
    summary: str
    """One line for lists; the first line of the function's docstring."""

    @property
    def make(self) -> Callable[[], Any]:
        """The function itself. Its docstring cites paper and code and says where each number comes from."""
        made: Callable[[], Any] = getattr(importlib.import_module(f"isthmus.recipes.{self.module}"), self.function)
        return made

    def __call__(self) -> T:
        """The stage or study."""
        value: T = self.make()
        return value


RECIPES: "dict[str, Recipe[Stage]]" = {
    "quickstart": Recipe(
        "quickstart",
        "stage",
        "Train a connector between the bundled eye and speaker, both frozen, in minutes on a CPU.",
    ),
    "llava15/stage1": Recipe("llava15", "stage1", "Align: train the MLP alone on 558k captioned images."),
    "llava15/stage2": Recipe("llava15", "stage2", "Instruct: train the MLP and the LLM on 665k conversations."),
    "llava15/tiny-stage1": Recipe(
        "llava15", "tiny_stage1", "LLaVA-1.5's first stage on the bundled backbones and data."
    ),
    "llava15/tiny-stage2": Recipe(
        "llava15", "tiny_stage2", "LLaVA-1.5's second stage on the bundled backbones and data."
    ),
    "blip2/stage1": Recipe(
        "blip2",
        "stage1",
        "Align: the Q-Former compares, matches and writes captions over a frozen ViT-g, as the paper says.",
    ),
    "blip2/stage1-lavis": Recipe(
        "blip2",
        "stage1_lavis",
        "Align as the released configuration does: 10 epochs of COCO and Visual Genome captions, other rates.",
    ),
    "blip2/tiny-stage1": Recipe(
        "blip2", "tiny_stage1", "BLIP-2's first stage on the bundled eye and reader, and the bundled data."
    ),
}

STUDIES: "dict[str, Recipe[Study]]" = {
    "quickstart": Recipe("studies", "quickstart", "Four connectors, two seeds, in minutes on two CPU cores."),
    "shelf": Recipe("studies", "shelf", "Every connector there is, two seeds, in under two hours on two CPU cores."),
    "readme": Recipe("studies", "readme", "The study of the README's table: the quickstart, longer, with five seeds."),
}


def find(name: str, table: Mapping[str, Recipe[T]], kind: str) -> Recipe[T]:
    """The entry of this exact name.

    Raises:
        ValueError: no such name, with the nearest ones.
    """
    if name not in table:
        raise ValueError(f"Unknown {kind} {name!r}.{did_you_mean(name, table)} There are: {', '.join(table)}.")
    return table[name]
