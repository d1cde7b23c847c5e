"""Cross-attention from queries that are the same for every view to its patches: what one-layer resamplers share."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from isthmus.connectors.attention import attend
from isthmus.connectors.key_map import Entry


class CrossAttention(nn.Module):
    """torch's `nn.MultiheadAttention` in four linear layers, the queries projected once for all views."""

    def __init__(self, width: int, *, heads: int, source: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source, width)
        self.value = nn.Linear(source, width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        queries: Float[Tensor, "places width"],
        keys: Float[Tensor, "views patches source"],
        values: Float[Tensor, "views patches source"],
        valid: Bool[Tensor, "views patches"] | None = None,
    ) -> Float[Tensor, "views places width"]:
        """What the queries find in each view; patches that are not `valid` are not looked at."""
        asked = self.query(queries).expand(len(keys), -1, -1)
        mask = None if valid is None else valid[:, None]
        seen = attend(asked, self.key(keys), self.value(values), heads=self.heads, mask=mask)
        out: Tensor = self.out(seen)
        return out


def initialise_like_torch(attention: CrossAttention) -> None:
    """The initial values of `nn.MultiheadAttention`: Xavier for queries, keys and values, no biases."""
    for part in (attention.query, attention.key, attention.value):
        nn.init.xavier_uniform_(part.weight)
    for part in (attention.query, attention.key, attention.value, attention.out):
        nn.init.zeros_(part.bias)


def initialise_narrow(module: nn.Module) -> None:
    """Truncated N(0, 0.02) for the weights of a linear layer, zero for its bias; use with `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def attention_parameters(width: int, source: int) -> int:
    """Weights and biases of `CrossAttention`."""
    return 2 * (width * width + width) + 2 * (source * width + width)


def attention_flops(places: int, patches: int, width: int, source: int) -> int:
    """FLOPs of `CrossAttention` for one view."""
    return 4 * places * width * width + 4 * patches * source * width + 4 * places * patches * width


def torch_attention(official: str, ours: str) -> tuple[Entry, ...]:
    """The entries of a key map for an `nn.MultiheadAttention` whose three inputs have one width."""
    parts = [f"{ours}.{part}" for part in ("query", "key", "value")]
    return (
        Entry(f"{official}.in_proj_weight", tuple(f"{part}.weight" for part in parts)),
        Entry(f"{official}.in_proj_bias", tuple(f"{part}.bias" for part in parts)),
        Entry(f"{official}.out_proj", (f"{ours}.out",)),
    )


def heads_of_width(width: int, head_width: int, config: object) -> int:
    """width / head_width rounded down, at least one. Raises ValueError when the width does not divide by it."""
    heads = max(1, width // head_width)
    if width % heads:
        near = max(one for one in range(1, head_width + 1) if width % one == 0)
        raise ValueError(
            f"{type(config).__name__}(head_width={head_width}) gives {heads} heads, which a width of {width} does not "
            f"divide by. Use head_width={near}."
        )
    return heads


def fresh_queries(count: int, width: int) -> nn.Parameter:
    """Queries at truncated N(0, 0.02)."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(count, width), std=0.02))
