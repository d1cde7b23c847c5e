"""The heads of the Q-Former's first stage: two projections to compare, a judge of pairs, and a writer.

Source: BLIP-2 (arXiv:2301.12597), section 3.2; salesforce/LAVIS `blip2_qformer.py` and BertLMHeadModel in `Qformer.py`.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.connectors.qformer_layers import NORM_EPS


class AlignmentHeads(nn.Module):
    """Contrast, matching and writing. The writer's last matrix is that of the word embeddings."""

    def __init__(self, width: int, embedding: int, vocabulary: int, *, temperature: float) -> None:
        super().__init__()
        self.image = nn.Linear(width, embedding)
        self.text = nn.Linear(width, embedding)
        self.match = nn.Linear(width, 2)
        self.temperature = nn.Parameter(torch.tensor(temperature))
        self.transform = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    @staticmethod
    def count(width: int, embedding: int, vocabulary: int) -> int:
        """Parameters: 2 (d e + e) + 2 d + 2 + 1 + d d + d + 2 d + V."""
        return 2 * (width * embedding + embedding) + 2 * width + 3 + width * width + 3 * width + vocabulary

    def image_vectors(self, queries: Float[Tensor, "rows queries width"]) -> Float[Tensor, "rows queries embedding"]:
        """A vector of length 1 for each query."""
        return functional.normalize(self.image(queries), dim=-1)

    def text_vectors(self, text: Float[Tensor, "rows length width"]) -> Float[Tensor, "rows embedding"]:
        """A vector of length 1 for each text, from its first token ([CLS])."""
        return functional.normalize(self.text(text[:, 0]), dim=-1)

    def judge(self, queries: Float[Tensor, "rows queries width"]) -> Float[Tensor, "rows 2"]:
        """Logits of "does not match" and "matches", the mean over the queries."""
        judged: Tensor = self.match(queries).mean(dim=1)
        return judged

    def write(
        self, hidden: Float[Tensor, "*places width"], words: Float[Tensor, "vocabulary width"]
    ) -> Float[Tensor, "*places vocabulary"]:
        """Logits of the next token."""
        return functional.linear(self.norm(functional.gelu(self.transform(hidden))), words, self.bias)
