"""The formulas behind a cost, as the configs state them where they compute them."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.encoders import EncoderConfig
from isthmus.llms import LLMConfig
from isthmus.measure.closed_forms import decoder_form, tower_form
from isthmus.measure.cost import Cost, causal_flops
from isthmus.measure.inputs import input_plans
from isthmus.measure.known import offline
from isthmus.measure.memory import held, llm_activations, tower_activations
from isthmus.model import Model

SYMBOLS = (
    "N patch tokens of a view (with prefix tokens where the connector reads them), M visual tokens, d_v encoder width, "
    "d (d_l) embedding width of the language model, T positions read, L layers, f feed-forward width; one multiply-add "
    "is 2 FLOPs. Whole words are names in a model's config.json: head_dim is hidden_size // num_attention_heads where "
    "it has none, num_hidden_layers of a tower are the blocks that are run"
)
"""What the letters stand for."""


@dataclass(frozen=True)
class Formula:
    """One quantity of one part, in words or letters."""

    part: str
    quantity: str
    text: str


def formulas(model: Model) -> Iterator[Formula]:
    """Token count, parameters, FLOPs and training memory of every part of a model."""
    model = offline(model)
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
                yield Formula(part, quantity, _of(config, quantity))
    for name, branch in model.branches.items():
        for part in ("encoder", "connector", "arrange"):
            for quantity in asked[part]:
                yield Formula(f"{name} {part}", quantity, _of(getattr(branch, part), quantity))
    if model.llm is not None and model.llm.kind == "causal":
        yield Formula("llm", "causal flops", _stated(causal_flops))
    if model.llm is not None:
        yield Formula("all", "visual tokens", _stated(input_plans))
        yield Formula("all", "prefill flops", _stated(Cost.prefill_flops))
    yield Formula("all", "training flops", "forward of what is frozen in front, 3 x what learns, 2 x what is behind it")
    yield Formula("all", "training memory", _stated(held))
    yield Formula("encoder", "activations", _stated(tower_activations))
    yield Formula("connector", "activations", "what autograd keeps of it over all views, its own weights left out")
    if model.llm is not None:
        yield Formula("llm", "activations", _stated(llm_activations))


def _of(config: object, quantity: str) -> str:
    """What a part's config states of a quantity; its parameters in closed form, where there is one."""
    form = None
    if quantity == "parameters" and isinstance(config, EncoderConfig):
        form = tower_form(config)
    elif quantity == "parameters" and isinstance(config, LLMConfig):
        form = decoder_form(config)
    return form if form is not None else _stated(getattr(type(config), quantity))


def _stated(function: object) -> str:
    text = inspect.getdoc(function) or ""
    return " ".join(text.split("Raises:")[0].split())
