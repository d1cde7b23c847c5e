"""What the passes of the Q-Former's first stage cost, in closed form.

Checked against: torch's FlopCounterMode over the objectives (tests/measure/test_alignment_cost.py).
"""

from typing import TYPE_CHECKING

from isthmus.connectors.reading import Passes
from isthmus.features import FeatureShape

if TYPE_CHECKING:
    from isthmus.connectors.qformer import QFormerConfig


def qformer_passes(
    config: "QFormerConfig", source: FeatureShape, passes: Passes, *, text_tokens: int, pairs: int
) -> dict[str, int]:
    """FLOPs by pass. Every part of a pass that no objective asks for is left out, as the module does."""
    m, t, d, e = config.num_queries, text_tokens, config.width, config.embedding
    n, layers, crossed = source.prefix + source.grid.size, config.layers, config.num_cross
    through = 4 * d * d + 4 * d * config.ffn_width
    token = 4 * d * d + through
    """One token's keys, values and queries, output and feed-forward in one layer."""
    crossing = crossed * (4 * m * d * d + 4 * m * n * d)
    found: dict[str, int] = {}
    if passes.queries or passes.match or passes.write:
        found["keys and values of the image"] = crossed * 4 * n * source.width * d
    if passes.queries or passes.write:
        compared = 2 * m * d * e if passes.queries else 0
        found["queries alone"] = layers * (m * token + 4 * m * m * d) + crossing + compared
    if passes.contrast:
        last = 4 * t * d * d + through + 4 * t * d
        alone = (layers - 1) * (t * token + 4 * t * t * d) + last
        found["caption alone"] = alone + 2 * d * e + 4 * pairs * m * e
    if passes.match:
        queries = layers * (m * token + 4 * m * (m + t) * d) + crossing + 4 * m * d
        text = layers * 4 * t * d * d + (layers - 1) * (t * through + 4 * t * (m + t) * d)
        found["image and caption, judged"] = passes.match * (queries + text)
    if passes.write:
        told = t - 1
        writing = told * (2 * d * d + 2 * d * config.vocabulary)
        found["caption, written"] = layers * (told * token + 4 * told * (m + told) * d) + writing
    return found
