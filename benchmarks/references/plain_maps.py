"""DeCo, pixel shuffle, MobileVLM's projectors and TokenPacker written straightforwardly, under the official names."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.references.plain_honeybee import ChannelNorm, SqueezeExcite


def as_maps(x: Tensor) -> Tensor:
    """[views, patches, channels] -> [views, channels, rows, columns] of a square grid."""
    side = math.isqrt(x.shape[1])
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], side, side)


def gelu_mlp(in_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, out_dim), nn.GELU(), nn.Linear(out_dim, out_dim))


class PlainAveragePool(nn.Module):
    def __init__(self, in_dim: int, out_dim: int, side: int) -> None:
        super().__init__()
        self.sampler, self.mlp_projector = nn.AdaptiveAvgPool2d((side, side)), gelu_mlp(in_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp_projector(self.sampler(as_maps(x)).flatten(2).transpose(1, 2))


class InvertedResidual(nn.Module):
    def __init__(self, width: int, inner: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.block = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width, bias=False),
                ChannelNorm(width),
                nn.Hardswish(),
            ),
            SqueezeExcite(width, inner, nn.ReLU(), nn.Hardsigmoid()),
            nn.Sequential(nn.Conv2d(width, width, 1, bias=False), ChannelNorm(width)),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.block(maps) if self.stride == 1 else self.block(maps)


class PlainLdp(nn.Module):
    def __init__(self, in_dim: int, out_dim: int, inner: int) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.mlp = nn.Sequential(nn.Identity(), *gelu_mlp(in_dim, out_dim))
        self.model.mb_block = nn.Sequential(
            nn.Identity(), InvertedResidual(out_dim, inner, 1), InvertedResidual(out_dim, inner, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model.mb_block(as_maps(self.model.mlp(x))).flatten(2).transpose(1, 2)


class PlainLdpV2(nn.Module):
    def __init__(self, in_dim: int, out_dim: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.mlp, self.peg = nn.Module(), nn.Module()
        self.mlp.mlp = gelu_mlp(in_dim, out_dim)
        self.peg.peg = nn.Sequential(nn.Conv2d(out_dim, out_dim, 3, padding=1, groups=out_dim))

    def forward(self, x: Tensor) -> Tensor:
        maps = functional.adaptive_avg_pool2d(as_maps(self.mlp.mlp(x)), (self.side, self.side))
        return (maps + self.peg.peg(maps)).flatten(2).transpose(1, 2)


class PlainTokenPacker(nn.Module):
    def __init__(self, in_dim: int, levels_dim: int, out_dim: int, *, width: int, heads: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.q_proj_1 = nn.Linear(in_dim, width, bias=False)
        self.k_proj_1, self.v_proj_1 = gelu_mlp(levels_dim, width), gelu_mlp(levels_dim, width)
        self.ln_q_1, self.ln_k_1, self.ln_v_1 = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.clip_attn = nn.MultiheadAttention(width, heads)
        self.mlp = gelu_mlp(width, out_dim)

    def forward(self, x: Tensor, levels: Tensor) -> Tensor:
        side = math.isqrt(x.shape[1]) // self.factor
        points = functional.interpolate(as_maps(x), size=(side, side), mode="bilinear", align_corners=False)
        query = self.ln_q_1(self.q_proj_1(points.flatten(2).transpose(1, 2)))
        key, value = self.ln_k_1(self.k_proj_1(levels)), self.ln_v_1(self.v_proj_1(levels))
        seen, _ = self.clip_attn(query.reshape(1, -1, query.shape[-1]), self._regions(key), self._regions(value))
        return self.mlp(seen.reshape(query.shape))

    def _regions(self, x: Tensor) -> Tensor:
        """[views, patches, width] -> [factor ** 2, views * regions, width]."""
        views, patches, width = x.shape
        side, factor = math.isqrt(patches) // self.factor, self.factor
        apart = x.view(views, side, factor, side, factor, width).permute(2, 4, 0, 1, 3, 5)
        return apart.reshape(factor * factor, -1, width)


class PlainPixelShuffle(nn.Module):
    """InternVL's: `mlp1` on the shuffled maps (its second order)."""

    def __init__(self, in_dim: int, out_dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        wide = in_dim * factor**2
        self.mlp1 = nn.Sequential(nn.LayerNorm(wide), *gelu_mlp(wide, out_dim))

    def forward(self, x: Tensor) -> Tensor:
        views, patches, width = x.shape
        side, factor = math.isqrt(patches), self.factor
        maps = x.view(views, side, side // factor, width * factor).permute(0, 2, 1, 3).contiguous()
        maps = maps.view(views, side // factor, side // factor, width * factor**2).permute(0, 2, 1, 3).contiguous()
        return self.mlp1(maps.flatten(1, 2))


def concatenated(levels: tuple[Tensor, ...]) -> Tensor:
    return torch.cat(levels, dim=-1)
