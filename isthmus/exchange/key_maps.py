"""The names that published checkpoints give to the weights of the simplest connectors, against ours.

Sources: haotian-liu/LLaVA, OpenGVLab/InternVL, and the model classes of `transformers`. The other connectors keep their
key map in their own file; `official.py` and `native.py` list them all.
"""

from isthmus.connectors.key_map import Entry, KeyMap


def _pairs(pairs: dict[str, str]) -> tuple[Entry, ...]:
    return tuple(Entry(official, (ours,)) for official, ours in pairs.items())


LLAVA_LINEAR = KeyMap("model.mm_projector.", _pairs({"weight": "project.weight", "bias": "project.bias"}))
"""LLaVA's linear projector."""

LLAVA_MLP = KeyMap("model.mm_projector.", _pairs({"*": "project.*"}))
"""LLaVA-1.5's MLP: linear layers at 0, 2, 4, ..."""

TWO_LINEAR = KeyMap("model.multi_modal_projector.", _pairs({"linear_1": "project.0", "linear_2": "project.2"}))
"""`transformers` Llava, LlavaNext and PerceptionLM."""

INTERNVL = KeyMap("mlp1.", _pairs({"0": "project.0", "1": "project.1", "3": "project.3"}))
"""InternVL-Chat 1.2, 1.5 and later."""

INTERNVL_NATIVE = KeyMap(
    "model.multi_modal_projector.",
    _pairs({"layer_norm": "project.0", "linear_1": "project.1", "linear_2": "project.3"}),
)
"""`transformers` InternVL."""
