"""OpenFlamingo's checkpoint as one connector: resampler, gated blocks, and the embedding of `<image>`.

Source: mlfoundations/open_flamingo `src/{factory,flamingo,flamingo_lm}.py`.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from isthmus.model import Model

WORDS = re.compile(r"lang_encoder\.(?:.*\.)?(?:embed_tokens|embed_in|wte)\.weight")
"""The language model's word embeddings, which learnt rows for two new tokens."""
BLOCK = re.compile(r"lang_encoder\.(?:.*\.)?(?P<layer>\d+)\.gated_cross_attn_layer\.(?P<rest>.*)")
"""A block as it is named inside the decoder layer that it stands before; some checkpoints name it so alone."""
_BLOCKS = "lang_encoder.gated_cross_attn_layers."


def flamingo_part(state: Mapping[str, Tensor], model: Model) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The connector's tensors under the names of `FLAMINGO_KEYS`, and the rest.

    Raises:
        ValueError: the word embeddings did not come, or have no row for `<image>`.
    """
    mine = {key: value for key, value in state.items() if key.startswith(("perceiver.", _BLOCKS))}
    rest = {key: value for key, value in state.items() if key not in mine}
    for key in list(rest):
        if found := BLOCK.fullmatch(key):
            mine.setdefault(f"{_BLOCKS}{found['layer']}.{found['rest']}", rest.pop(key))
    return mine | {"image_token": _image_row(state, model)}, rest


def _image_row(state: Mapping[str, Tensor], model: Model) -> Tensor:
    """`<|endofchunk|>` and `<image>` were added, in this order, behind the words of the tokenizer."""
    assert model.llm is not None, "gated blocks stand in a language model"
    table = next((value for key, value in state.items() if WORDS.fullmatch(key)), None)
    row = len(model.llm.tokenizer()) + 1
    if table is None or table.dim() != 2 or row >= len(table):
        came = "no word embeddings" if table is None else f"word embeddings of shape {tuple(table.shape)}"
        raise ValueError(
            f"OpenFlamingo learns the embedding of <image>, which for {model.llm.name!r} is row {row} of the language "
            f"model's words, but {came} came. Name a recipe with the language model of that checkpoint."
        )
    return table[row]
