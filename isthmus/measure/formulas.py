"""The formulas behind a cost, as the configs state them where they compute them."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.measure.cost import Cost, causal_flops
from isthmus.measure.inputs import input_plans
from isthmus.model import Model

SYMBOLS = (
    "N patch tokens of a view (with prefix tokens where the connector reads them), M visual tokens, d_v encoder width, "
    "d (d_l) embedding width of the language model, T positions read, L layers, f feed-forward width; one multiply-add "
    "is 2 FLOPs"
)
"""What the letters stand for."""


@dataclass(frozen=True)
class Formula:
    """One quantity of one part, in words or letters."""

    part: str
    quantity: str
    text: str


def formulas(model: Model) -> Iterator[Formula]:
    """Token count, parameters and FLOPs of every part of a model."""
    asked = {
        "encoder": ("parameters", "flops"),
        "connector": ("num_tokens", "parameters", "flops" if model.llm is not None else "alignment_flops"),
        "arrange": ("num_tokens", "parameters"),
        "llm": ("parameters", "flops", "kv_bytes"),
    }
    for part, quantities in asked.items():
        config = getattr(model, part)
        for quantity in quantities:
            if config is not None and (model.llm is not None or part in ("encoder", "connector")):
                yield Formula(part, quantity, _stated(getattr(type(config), quantity)))
    for name, branch in model.branches.items():
        for part in ("encoder", "connector", "arrange"):
            for quantity in asked[part]:
                yield Formula(f"{name} {part}", quantity, _stated(getattr(type(getattr(branch, part)), quantity)))
    if model.llm is not None and model.llm.kind == "causal":
        yield Formula("llm", "causal flops", _stated(causal_flops))
    if model.llm is not None:
        yield Formula("all", "visual tokens", _stated(input_plans))
        yield Formula("all", "prefill flops", _stated(Cost.prefill_flops))
    yield Formula("all", "training flops", "forward of what is frozen in front, 3 x what learns, 2 x what is behind it")


def _stated(function: object) -> str:
    text = inspect.getdoc(function) or ""
    return " ".join(text.split("Raises:")[0].split())
