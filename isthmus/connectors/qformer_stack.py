"""Q-Former layers over given queries, without text; and over steps in time. Parts of the connectors built on them.

Source: BLIP-2 (arXiv:2301.12597), section 3.1; Video-LLaMA (arXiv:2306.02858), section 2.1, for steps in time.
"""

from functools import partial

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from isthmus.connectors.dropout import Dropout
from isthmus.connectors.qformer import QFormerConfig, initialise
from isthmus.connectors.qformer_layers import NORM_EPS, QFormerLayer, Sight
from isthmus.features import Features


class QueryStack(nn.Module):
    """LayerNorm on the queries, then the layers; cross-attention in layers 0, cross_every, 2 * cross_every, ..."""

    def __init__(self, config: QFormerConfig, source: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            QFormerLayer(
                config.width,
                source if number % config.cross_every == 0 else None,
                heads=config.heads,
                inner=config.ffn_width,
                dropout=config.dropout,
                text=False,
            )
            for number in range(config.layers)
        )
        self.apply(partial(initialise, std=config.initializer_range))

    def forward(
        self,
        queries: Float[Tensor, "rows queries width"],
        source: Float[Tensor, "rows sources channels"],
        valid: Bool[Tensor, "rows sources"] | None = None,
    ) -> Float[Tensor, "rows queries width"]:
        """The queries after looking at `source`, padding (not `valid`) left out."""
        hidden: Tensor | None = self.dropout(self.norm(queries))
        sight = Sight(pattern="uni-modal", patches=None if valid is None else valid[:, None])
        for layer in self.layers:
            assert isinstance(layer, QFormerLayer)
            pair = None if layer.cross is None else layer.cross.source(source, queries=queries.shape[1])
            hidden, _, _ = layer(hidden, None, sight, pair, None)
        assert hidden is not None
        return hidden


class FrameQueries(nn.Module):
    """The image Q-Former of BLIP-2 on every frame of a clip, without a projection: `ln_vision`, queries, layers."""

    def __init__(self, config: QFormerConfig, source: int) -> None:
        super().__init__()
        self.ln_vision = nn.LayerNorm(source)
        self.queries = nn.Parameter(torch.empty(config.num_queries, config.width).normal_(std=0.02))
        self.stack = QueryStack(config, source)

    def forward(self, features: Features) -> Float[Tensor, "views frames queries width"]:
        """Prefix tokens are those of the frames, in their order, equally many each."""
        frames = features.grid.frames
        tokens = _by_frame(features.tokens, features.prefix, frames)
        valid = features.valid_tokens
        if valid is not None:
            valid = _by_frame(valid, features.prefix, frames)
            valid = rearrange(valid, "views frames patches -> (views frames) patches")
        seen = self.ln_vision(rearrange(tokens, "views frames patches c -> (views frames) patches c"))
        answer = self.stack(self.queries.expand(len(seen), -1, -1), seen, valid)
        split: Tensor = rearrange(answer, "(views frames) queries c -> views frames queries c", frames=frames)
        return split


class TimedQueries(nn.Module):
    """Learned queries over steps in time (frames, audio windows); each step's tokens carry its position."""

    def __init__(self, config: QFormerConfig, source: int, *, steps: int) -> None:
        super().__init__()
        self.positions = nn.Embedding(steps, source)
        self.queries = nn.Parameter(torch.empty(config.num_queries, config.width).normal_(std=0.02))
        self.stack = QueryStack(config, source)

    def place(
        self, tokens: Float[Tensor, "views steps tokens channels"]
    ) -> Float[Tensor, "views steps_tokens channels"]:
        """The tokens of all steps with their step's position, step after step."""
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        placed = tokens + self.positions(steps)[:, None]
        flat: Tensor = rearrange(placed, "views steps tokens channels -> views (steps tokens) channels")
        return flat

    def forward(
        self,
        tokens: Float[Tensor, "views steps tokens channels"],
        valid: Bool[Tensor, "views steps tokens"] | None = None,
    ) -> Float[Tensor, "views queries width"]:
        """The queries of every view after looking at all its steps."""
        seen = None if valid is None else rearrange(valid, "views steps tokens -> views (steps tokens)")
        answer: Tensor = self.stack(self.queries.expand(len(tokens), -1, -1), self.place(tokens), seen)
        return answer


def check_steps(config: object, frames: int, limit: int, field: str) -> None:
    """Raises ValueError when a clip has more steps than positions were made for."""
    if frames > limit:
        raise ValueError(
            f"{type(config).__name__}({field}={limit}) has positions for {limit} steps in time, but the encoder gives "
            f"{frames}. Raise {field}, or sample fewer frames."
        )


def _by_frame(tokens: Tensor, prefix: int, frames: int) -> Tensor:
    """[views, prefix + frames * patches, ...] -> [views, frames, (prefix + patches of one frame), ...]."""
    own = rearrange(tokens[:, :prefix], "views (frames own) ... -> views frames own ...", frames=frames)
    patches = rearrange(tokens[:, prefix:], "views (frames patches) ... -> views frames patches ...", frames=frames)
    return torch.cat([own, patches], dim=2)
