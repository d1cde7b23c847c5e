"""A model that a class cannot hold is refused with the class that can, or with the nearest, and no reason twice."""

from dataclasses import replace
from typing import Any

import pytest
import transformers

from isthmus.branches import Branch
from isthmus.connectors import (
    CONNECTORS,
    AveragePoolConfig,
    LinearConfig,
    MlpConfig,
    PixelShuffleConfig,
    Qwen3VlConfig,
    TokenPackerConfig,
    WindowedStreamsConfig,
)
from isthmus.connectors.arrange import Anyres
from isthmus.encoders import VideoEncoder, VisionEncoder
from isthmus.encoders.tiles import AnyresTiles
from isthmus.exchange import GOALS, find_goal
from isthmus.exchange.goals import NEAREST, NO_EXPORT, lacks
from isthmus.model import Model

ANYRES = VisionEncoder(name="bundled/eye", image_size=32, layers=(-2,), tiles=AnyresTiles(grids=((1, 2),)))


def refusal(to: str, change: dict[str, Any]) -> str:
    with pytest.raises(ValueError, match=r"cannot hold this model|No export to") as refused:
        find_goal(to, replace(Model(), **change))
    return str(refused.value)


@pytest.mark.parametrize(
    ("to", "change", "wanted"),
    [
        ("blip2", {}, "It can go out as 'llava'"),
        ("llava", {"connector": PixelShuffleConfig(factor=2)}, "the nearest: 'internvl' (InternVL holds InternViT"),
        ("internvl", {"connector": PixelShuffleConfig(factor=2)}, "holds InternViT alone"),
        ("llava", {"connector": AveragePoolConfig(side=3)}, "known here can; this is the nearest."),
        ("idefics2", {"connector": LinearConfig()}, "the nearest: 'llava' (Llava's connector is MlpConfig(depth=2)"),
        ("llava", {"placement": "before-bos"}, "in place of the mark"),
        ("llava", {"encoder": ANYRES}, "the nearest: 'llava-next' (LlavaNext's arrangement"),
        (
            "llava-next",
            {"encoder": ANYRES, "arrange": Anyres(max_tiles=2)},
            "this is Anyres(unpad=True, newline=True, max",
        ),
        (
            "llava-next",
            {"encoder": ANYRES, "arrange": Anyres(digits=3)},
            "rounds to 7 digits before it truncates, this",
        ),
        ("llava", {"connector": Qwen3VlConfig()}, "that of Qwen3VLForConditionalGeneration, to which no export is"),
        ("llava", {"connector": WindowedStreamsConfig()}, "that of Granite4VisionForConditionalGeneration, to which"),
        ("llava", {"connector": TokenPackerConfig()}, "none has a connector like TokenPackerConfig"),
        ("llava", {"video": Branch(encoder=VideoEncoder(), connector=LinearConfig())}, "no branch of its own for vid"),
        ("lava", {}, "Did you mean 'llava'"),
    ],
)
def test_what_has_no_class_is_said(to: str, change: dict[str, Any], wanted: str) -> None:
    assert wanted in refusal(to, change)


@pytest.mark.parametrize("to", list(GOALS))
@pytest.mark.parametrize("connector", [LinearConfig(), MlpConfig(depth=3), PixelShuffleConfig(factor=2, order="v1")])
def test_no_reason_is_given_twice(to: str, connector: Any) -> None:
    change = {"connector": connector, "encoder": replace(ANYRES, final_norm=True)}
    said, reason = refusal(to, change), lacks(to, replace(Model(), **change))
    assert said.count(reason) == 1


def test_classes_of_connectors_are_there() -> None:
    names = {config.__name__ for config in CONNECTORS.values()}
    assert set(NEAREST) | set(NO_EXPORT) <= names
    assert not set(NEAREST) & set(NO_EXPORT)
    assert set(NEAREST.values()) <= set(GOALS)
    assert all(hasattr(transformers, name) for name in NO_EXPORT.values())
