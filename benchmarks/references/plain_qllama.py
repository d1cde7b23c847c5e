"""QLLaMA's pass over an image written straightforwardly, by the official names: what ours is timed against."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.references.plain_honeybee import heads_apart
from isthmus.connectors import QLlamaConfig


def rotary(places: int, inner: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines, [places, inner], once for all layers."""
    rates = theta ** (-torch.arange(0, inner, 2, device=like.device).float() / inner)
    angles = torch.outer(torch.arange(places, device=like.device).float(), rates).repeat(1, 2)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class LlamaAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        query, key, value = (heads_apart(part(x), self.heads) for part in (self.q_proj, self.k_proj, self.v_proj))
        seen = functional.scaled_dot_product_attention(turned(query, cos, sin), turned(key, cos, sin), value)
        return self.o_proj(seen.transpose(1, 2).flatten(2))


class QLlamaCross(nn.Module):
    def __init__(self, width: int, vision: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=eps), nn.RMSNorm(vision, eps=eps)
        self.q_proj, self.o_proj = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k_proj, self.v_proj = nn.Linear(vision, width, bias=False), nn.Linear(vision, width, bias=False)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        features = self.norm2(features)
        asked = (self.q_proj(self.norm1(queries)), self.k_proj(features), self.v_proj(features))
        seen = functional.scaled_dot_product_attention(*(heads_apart(one, self.heads) for one in asked))
        return self.o_proj(seen.transpose(1, 2).flatten(2))


class LlamaMlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class PlainLayer(nn.Module):
    """LLaMA's layer; `vision` is the features' width where it looks at them, `None` where it does not."""

    def __init__(self, config: QLlamaConfig, vision: int | None) -> None:
        super().__init__()
        width, heads, eps = config.width, config.heads, config.eps
        self.input_layernorm, self.post_attention_layernorm = (nn.RMSNorm(width, eps=eps) for _ in range(2))
        self.self_attn = LlamaAttention(width, heads)
        self.cross_attn = None if vision is None else QLlamaCross(width, vision, heads, eps)
        self.mlp = LlamaMlp(width, config.ffn_width)

    def forward(self, x: Tensor, features: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        if self.cross_attn is not None:
            x = x + self.cross_attn(x, features)
        return x + self.mlp(self.post_attention_layernorm(x))


class PlainQLlama(nn.Module):
    """The queries alone through InternVL 1.0's QLLaMA, then an MLP."""

    def __init__(self, config: QLlamaConfig, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.inner, self.theta = config.width // config.heads, config.theta
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_queries, config.width))
        self.qllama = nn.Module()
        self.qllama.model = nn.Module()
        self.qllama.model.layers = nn.ModuleList(
            PlainLayer(config, None if number % config.cross_every else in_dim) for number in range(config.layers)
        )
        self.qllama.model.norm = nn.RMSNorm(config.width, eps=config.eps)
        self.project = nn.Sequential(nn.Linear(config.width, out_dim), nn.GELU(), nn.Linear(out_dim, out_dim))

    def forward(self, features: Tensor) -> Tensor:
        x = self.query_tokens.expand(features.shape[0], -1, -1)
        cos, sin = rotary(x.shape[1], self.inner, self.theta, x)
        for layer in self.qllama.model.layers:
            x = layer(x, features, cos, sin)
        return self.project(self.qllama.model.norm(x))
