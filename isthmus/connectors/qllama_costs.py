"""What QLLaMA's passes over images and captions cost, in closed form.

Checked against: torch's FlopCounterMode over the objectives (tests/measure/test_alignment_cost.py).
"""

from typing import TYPE_CHECKING

from isthmus.connectors.reading import Passes
from isthmus.features import FeatureShape

if TYPE_CHECKING:
    from isthmus.connectors.qllama import QLlamaConfig


def qllama_passes(
    config: "QLlamaConfig", source: FeatureShape, passes: Passes, *, text_tokens: int, pairs: int
) -> dict[str, int]:
    """FLOPs by pass: contrast, given pairs and writing are one pass, a row each, unless contrast is alone."""
    m, t, d, e = config.num_queries, text_tokens, config.width, config.embedding
    n, d_v = source.prefix + source.grid.size, source.width
    look = config.num_cross * 4 * n * d_v * d
    crossing = config.num_cross * (4 * m * d * d + 4 * m * n * d)

    def stack(places: int) -> int:
        return config.layers * (8 * places * d * d + 4 * places * places * d + 6 * places * d * config.ffn_width)

    both = stack(m + t) + crossing
    found: dict[str, int] = {}
    joint = passes.write or (passes.match > 0 and not passes.mined)
    if passes.features:
        found["features, pooled"] = _pool(n, d_v, e)
    if joint:
        rows = passes.contrast + passes.write + (0 if passes.mined else passes.match)
        found["image and captions in one pass"] = look + rows * both
    else:
        found |= {"queries alone": look + stack(m) + crossing} if passes.queries else {}
        found |= {"caption alone": stack(t)} if passes.contrast else {}
    if passes.mined:
        found["image and caption, judged"] = look + passes.match * both
    heads = (_pool(m, d, e) if passes.queries else 0) + passes.match * 4 * m * d
    heads += 2 * d * e + 4 * pairs * e if passes.contrast else 0
    found["heads"] = heads + ((t - 1) * 2 * d * config.vocabulary if passes.write else 0)
    return found


def _pool(tokens: int, width: int, embedding: int) -> int:
    """`MeanQueryPool` over so many tokens."""
    return 2 * (2 * tokens + 1) * width * width + 4 * tokens * width + 2 * width * embedding
