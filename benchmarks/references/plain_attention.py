"""Single- and many-layer resamplers written straightforwardly, by the official names: what ours are timed against."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.references.plain_honeybee import plain_attention


class PerceiverAttention(nn.Module):
    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_media, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q, self.to_kv = nn.Linear(width, inner, bias=False), nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        x, latents = self.norm_media(x), self.norm_latents(latents)
        key, value = self.to_kv(torch.cat([x, latents], dim=-2)).chunk(2, dim=-1)
        return self.to_out(plain_attention(self.to_q(latents), key, value, self.heads))


class PlainPerceiver(nn.Module):
    """OpenFlamingo's resampler, then a linear layer."""

    def __init__(self, width: int, out_dim: int, *, latents: int, layers: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.perceiver = nn.Module()
        self.perceiver.latents = nn.Parameter(torch.zeros(latents, width))
        self.perceiver.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PerceiverAttention(width, heads, heads * head_width),
                    nn.Sequential(
                        nn.LayerNorm(width),
                        nn.Linear(width, 4 * width, bias=False),
                        nn.GELU(),
                        nn.Linear(4 * width, width, bias=False),
                    ),
                ]
            )
            for _ in range(layers)
        )
        self.perceiver.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        latents = self.perceiver.latents.expand(x.shape[0], -1, -1)
        for attention, feed_forward in self.perceiver.layers:
            latents = attention(x, latents) + latents
            latents = feed_forward(latents) + latents
        return self.project(self.perceiver.norm(latents))


def resized(table: Tensor, patches: int) -> Tensor:
    """A square table of positions for another number of patches, bicubic."""
    side, wanted = math.isqrt(table.shape[0]), math.isqrt(patches)
    if side == wanted:
        return table
    image = table.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    image = functional.interpolate(image, size=(wanted, wanted), mode="bicubic", align_corners=False)
    return image.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)


class QwenPool(nn.Module):
    def __init__(self, in_dim: int, width: int, *, queries: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(queries, width))
        self.pos_embed = nn.Parameter(torch.zeros(queries, width), requires_grad=False)
        self.kv_proj = nn.Linear(in_dim, width, bias=False) if in_dim != width else nn.Identity()
        self.ln_q, self.ln_kv = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.MultiheadAttention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ln_kv(self.kv_proj(x)).permute(1, 0, 2)
        query = (self.ln_q(self.query) + self.pos_embed).unsqueeze(1).repeat(1, x.shape[1], 1)
        key = x + resized(self.pos_embed, x.shape[0]).unsqueeze(1)
        return self.attn(query, key, x)[0].permute(1, 0, 2)


class PlainQwenVl(nn.Module):
    def __init__(self, in_dim: int, width: int, *, queries: int, heads: int) -> None:
        super().__init__()
        self.attn_pool = QwenPool(in_dim, width, queries=queries, heads=heads)
        self.ln_post = nn.LayerNorm(width, eps=1e-6)
        self.proj = nn.Parameter(torch.zeros(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.ln_post(self.attn_pool(x)) @ self.proj


class PlainMatryoshka(nn.Module):
    """MQT's: where queries look depends on positions alone."""

    def __init__(self, width: int, out_dim: int, *, queries: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.query = nn.Parameter(torch.zeros(queries, width))
        self.pos_embed = nn.Parameter(torch.zeros(queries, width), requires_grad=False)
        self.ln_q, self.ln_k, self.ln_v = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.attn = nn.MultiheadAttention(width, heads)
        self.proj = nn.Parameter(torch.zeros(width, out_dim))

    def forward(self, x: Tensor) -> Tensor:
        value = self.ln_v(x).permute(1, 0, 2)
        query = self.ln_q(self.query[: self.tokens] + self.pos_embed[: self.tokens])
        key = self.ln_k(resized(self.pos_embed, x.shape[1]))
        query, key = (one.unsqueeze(1).expand(-1, x.shape[0], -1) for one in (query, key))
        return self.attn(query, key, value)[0].permute(1, 0, 2) @ self.proj


class PlainAttentionPool(nn.Module):
    """One cross-attention of learned queries, then a linear layer."""

    def __init__(self, in_dim: int, out_dim: int, *, queries: int, width: int, heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(queries, width))
        self.norm_queries, self.norm_patches = nn.LayerNorm(width), nn.LayerNorm(in_dim)
        self.attention = nn.MultiheadAttention(width, heads, kdim=in_dim, vdim=in_dim, batch_first=True)
        self.project = nn.Linear(width, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norm_patches(x)
        asked = self.norm_queries(self.queries).expand(x.shape[0], -1, -1)
        return self.project(self.attention(asked, seen, seen, need_weights=False)[0])
