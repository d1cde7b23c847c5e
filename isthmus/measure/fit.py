"""What fits into a given memory: for each precision, with and without checkpointing, how many samples at a time."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from isthmus.connectors.reading import Passes
from isthmus.encoders import EncoderConfig
from isthmus.measure.alignment import alignment_memory
from isthmus.measure.inputs import ONE_IMAGE, Inputs
from isthmus.measure.memory import TrainingMemory, training_memory
from isthmus.model import Model

Precision = Literal["float32", "bfloat16"]
_UNITS = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One way to train: the number format of encoder and language model, checkpointing, and what then fits."""

    precision: Precision
    checkpointing: bool
    samples: int
    """The largest micro-batch that fits; 0 when not even one sample does."""
    memory: TrainingMemory
    """At that micro-batch, or at one sample when none fits."""


def read_bytes(text: str) -> int:
    """Bytes from '24GiB', '800 MB' and the like.

    Raises:
        ValueError: no number with a unit of bytes, or nothing at all.
    """
    word = text.strip().lower().replace(" ", "")
    unit = next((unit for unit in _UNITS if word.endswith(unit)), None)
    try:
        size = float(word.removesuffix(unit)) if unit else 0.0
    except ValueError:
        size = 0.0
    if unit is None or not size > 0:
        raise ValueError(f"{text!r} is no size of memory. Write a number and a unit, such as 24GiB or 800MB.")
    return int(size * _UNITS[unit])


def fits(
    model: Model,
    budget: int,
    *,
    train: tuple[str, ...] = ("connector",),
    text_tokens: int = 64,
    image: tuple[int, int] | None = None,
    inputs: Inputs = ONE_IMAGE,
    passes: Passes | None = None,
) -> tuple[Fit, ...]:
    """Every combination of precision and checkpointing, with the largest micro-batch that `budget` bytes hold.

    The connector stays in float32. Activations grow with the samples, everything else does not. Without a language
    model `passes` is what the objectives ask for.

    Raises:
        ValueError: as `cost` does.
    """
    found = []
    for precision in ("float32", "bfloat16"):
        for checkpointing in (False, True):
            variant = _variant(model, precision, checkpointing)
            if passes is None:
                one = training_memory(variant, train=train, text_tokens=text_tokens, image=image, inputs=inputs)
            else:
                one = alignment_memory(variant, passes, train=train, text_tokens=text_tokens)
            fixed = one.total - one.activations
            samples = max(0, (budget - fixed) // max(1, one.activations))
            memory = replace(one, activations=one.activations * max(1, samples))
            found.append(Fit(precision=precision, checkpointing=checkpointing, samples=samples, memory=memory))
    return tuple(found)


def _variant(model: Model, precision: str, checkpointing: bool) -> Model:
    """The model with these choices in every part that has them."""
    wanted = {"precision": precision, "checkpointing": checkpointing}

    def changed(config: Any) -> Any:
        known = {field.name: getattr(config, field.name) for field in fields(config)}
        towers = {name: changed(one) for name, one in known.items() if isinstance(one, EncoderConfig)}
        return replace(config, **towers, **{name: value for name, value in wanted.items() if name in known})

    llm = None if model.llm is None else changed(model.llm)
    return replace(model, encoder=changed(model.encoder), llm=llm)
