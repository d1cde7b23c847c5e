"""Mean-query pooling: one vector for many tokens, by one cross-attention whose query is their mean.

Source: InternVL (arXiv:2312.14238), section 3.2.
Checked against: OpenGVLab/InternVL `MeanQueryPoolBlock` (oracles `internvl_g_*`).
"""

from jaxtyping import Float
from torch import Tensor, nn

from isthmus.connectors.attention import attend

NORM_EPS = 1e-5


class MeanQueryPool(nn.Module):
    """[rows, tokens, width] -> [rows, embedding]. Norms of its own for query, keys and values; no residual, no MLP."""

    def __init__(self, width: int, embedding: int, *, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"Attention pooling over width {width} does not divide by pool_heads={heads}.")
        self.heads = heads
        self.query_norm, self.key_norm, self.value_norm = (nn.LayerNorm(width, eps=NORM_EPS) for _ in range(3))
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.project = nn.Linear(width, embedding)

    @staticmethod
    def count(width: int, embedding: int) -> int:
        """Parameters: 3 (2 d + d d + d) + d e + e."""
        return 3 * (3 * width + width * width) + width * embedding + embedding

    def forward(self, tokens: Float[Tensor, "rows tokens width"]) -> Float[Tensor, "rows embedding"]:
        """Not normalised."""
        query = self.query(self.query_norm(tokens.mean(dim=1, keepdim=True)))
        keys, values = self.key(self.key_norm(tokens)), self.value(self.value_norm(tokens))
        pooled: Tensor = self.project(attend(query, keys, values, heads=self.heads)[:, 0])
        return pooled
