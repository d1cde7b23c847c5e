"""Honeybee's projectors written straightforwardly, under the official names: what ours are timed against."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrMultiscaleDeformableAttention


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [views, channels, rows, columns]."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution without bias, norm, SiLU where wanted."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, *, groups: int = 1, act: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.bn = ChannelNorm(out_dim)
        self.act = nn.SiLU() if act else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(maps)))


class SqueezeExcite(nn.Module):
    """A gate a channel from the mean of all."""

    def __init__(self, width: int, inner: int, act: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)
        self.act, self.gate = act, gate

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.gate(self.fc2(self.act(self.fc1(maps.mean((2, 3), keepdim=True)))))


class Bottleneck(nn.Module):
    """One RegNet block."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_dim, out_dim, 1)
        self.conv2 = ConvNorm(out_dim, out_dim, 3, groups=out_dim)
        self.se = SqueezeExcite(out_dim, round(in_dim / 4), nn.SiLU(), nn.Sigmoid())
        self.conv3 = ConvNorm(out_dim, out_dim, 1, act=False)
        self.downsample = ConvNorm(in_dim, out_dim, 1, act=False) if in_dim != out_dim else None

    def forward(self, maps: Tensor) -> Tensor:
        kept = maps if self.downsample is None else self.downsample(maps)
        return functional.silu(self.conv3(self.se(self.conv2(self.conv1(maps)))) + kept)


def stage(depth: int, in_dim: int, out_dim: int) -> nn.Sequential:
    made = nn.Sequential()
    for number in range(1, depth + 1):
        made.add_module(f"b{number}", Bottleneck(in_dim if number == 1 else out_dim, out_dim))
    return made


def silu_mlp(depth: int, in_dim: int, out_dim: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(in_dim, out_dim)]
    for _ in range(depth - 1):
        layers += [nn.SiLU(), nn.Linear(out_dim, out_dim)]
    return nn.Sequential(*layers)


class PlainMlp(nn.Module):
    def __init__(self, in_dim: int, out_dim: int, *, depth: int, prenorm: bool) -> None:
        super().__init__()
        self.prenorm = nn.LayerNorm(in_dim, eps=1e-6) if prenorm else None
        self.net = silu_mlp(depth, in_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x if self.prenorm is None else self.prenorm(x))


class PlainCAbstractor(nn.Module):
    def __init__(self, patches: int, in_dim: int, out_dim: int, *, width: int, depth: int, side: int) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.zeros(1, patches, in_dim))
        self.net = nn.Sequential(
            stage(depth, in_dim, width), nn.AdaptiveAvgPool2d((side, side)), stage(depth, width, width)
        )
        self.readout = silu_mlp(2, width, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        x, side = x + self.pos_emb, math.isqrt(x.shape[1])
        maps = x.transpose(1, 2).reshape(x.shape[0], x.shape[2], side, side)
        return self.readout(self.net(maps).flatten(2).transpose(1, 2))


def heads_apart(x: Tensor, heads: int) -> Tensor:
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """softmax(q k / sqrt(d)) v by matrix products."""
    q, k, v = (heads_apart(one, heads) for one in (query, key, value))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


class ResamplerAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))


class ResamplerMlp(nn.Module):
    def __init__(self, width: int, inner: int, eps: float) -> None:
        super().__init__()
        self.w1, self.w3, self.w2 = nn.Linear(width, inner), nn.Linear(width, inner), nn.Linear(inner, width)
        self.ffn_ln = nn.LayerNorm(inner, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.ffn_ln(functional.silu(self.w1(x)) * self.w3(x)))


class ResamplerOutput(nn.Module):
    def __init__(self, width: int, inner: int, eps: float) -> None:
        super().__init__()
        self.out_proj, self.norm2 = nn.Linear(width, width), nn.LayerNorm(width)
        self.mlp = ResamplerMlp(width, inner, eps)

    def forward(self, seen: Tensor, queries: Tensor) -> Tensor:
        queries = queries + self.out_proj(seen)
        return queries + self.mlp(self.norm2(queries))


class ResamplerCross(nn.Module):
    def __init__(self, width: int, inner: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.normk = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = ResamplerAttention(width)
        self.output = ResamplerOutput(width, inner, eps)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        queries, own = self.norm1(queries), self.attention
        seen = torch.cat([queries, self.normk(features)], dim=1)
        return self.output(plain_attention(own.query(queries), own.key(seen), own.value(seen), self.heads), queries)


class PlainResampler(nn.Module):
    def __init__(
        self, in_dim: int, out_dim: int, *, queries: int, width: int, layers: int, heads: int, inner: int
    ) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, queries, width))
        self.visual_input_fc, self.visual_output_fc = nn.Linear(in_dim, width), nn.Linear(width, out_dim)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(
            nn.ModuleDict({"crossattention": ResamplerCross(width, inner, heads, 1e-6)}) for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        features, queries = self.visual_input_fc(x), self.query_tokens.expand(x.shape[0], -1, -1)
        for layer in self.encoder.layers:
            queries = layer["crossattention"](queries, features)
        return self.visual_output_fc(queries)


class DetrSelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        placed = x + place
        return self.out_proj(plain_attention(self.q_proj(placed), self.k_proj(placed), self.v_proj(x), self.heads))


class Sampling(nn.Module):
    """The sampling of `transformers` in float32: in bfloat16 it gives numbers on the CPU that are not finite."""

    def __init__(self, sampling: nn.Module) -> None:
        super().__init__()
        self.sampling = sampling

    def forward(
        self, value: Tensor, shapes: Tensor, sides: list[tuple[int, int]], start: Tensor, *numbers: Any
    ) -> Tensor:
        exact = [one.float() if isinstance(one, Tensor) else one for one in numbers]
        return self.sampling(value.float(), shapes, sides, start, *exact).to(value.dtype)


class DetrLayer(nn.Module):
    """Deformable DETR's decoder layer; its deformable attention is that of `transformers`."""

    def __init__(self, width: int, heads: int, points: int, inner: int) -> None:
        super().__init__()
        config = DeformableDetrConfig(d_model=width, num_feature_levels=1)
        self.self_attn = DetrSelfAttention(width, heads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # heads whose width is no power of two
            self.encoder_attn = DeformableDetrMultiscaleDeformableAttention(config, heads, points)
        self.encoder_attn.attn = Sampling(self.encoder_attn.attn)
        self.self_attn_layer_norm, self.encoder_attn_layer_norm, self.final_layer_norm = (
            nn.LayerNorm(width) for _ in range(3)
        )
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor, place: Tensor, features: Tensor, references: Tensor, side: int) -> Tensor:
        x = self.self_attn_layer_norm(x + self.self_attn(x, place))
        shape = torch.tensor([[side, side]], device=x.device)
        seen, _ = self.encoder_attn(
            hidden_states=x,
            encoder_hidden_states=features,
            position_embeddings=place,
            reference_points=references[:, :, None],
            spatial_shapes=shape,
            spatial_shapes_list=[(side, side)],
            level_start_index=torch.zeros(1, dtype=torch.long, device=x.device),
        )
        x = self.encoder_attn_layer_norm(x + seen)
        return self.final_layer_norm(x + self.fc2(functional.relu(self.fc1(x))))


class PlainDAbstractor(nn.Module):
    """`pooled` is "query" or "tgt", as in the official code."""

    def __init__(
        self,
        patches: int,
        in_dim: int,
        out_dim: int,
        *,
        side: int,
        layer: tuple[int, int, int, int],
        layers: int,
        pooled: str,
    ) -> None:
        super().__init__()
        width, self.pooled, self.side = layer[0], pooled, side
        self.v_pos_emb = nn.Parameter(torch.zeros(1, patches, width))
        self.input_proj = nn.ModuleList([nn.Identity() if in_dim == width else nn.Linear(in_dim, width)])
        self.query_position_embeddings = nn.Embedding(side * side, width)
        self.reference_points = nn.Parameter(torch.zeros(1, side * side, 2))
        self.layers = nn.ModuleList(DetrLayer(*layer) for _ in range(layers))
        self.output_proj = nn.Identity() if out_dim == width else nn.Linear(width, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        features, rows = self.input_proj[0](x) + self.v_pos_emb, math.isqrt(x.shape[1])
        maps = features.transpose(1, 2).reshape(x.shape[0], -1, rows, rows)
        pooled = functional.adaptive_avg_pool2d(maps, (self.side, self.side)).flatten(2).transpose(1, 2)
        learned = self.query_position_embeddings.weight[None].expand(x.shape[0], -1, -1)
        place, content = (pooled, learned) if self.pooled == "query" else (learned, pooled)
        references = self.reference_points.expand(x.shape[0], -1, -1)
        for layer in self.layers:
            content = layer(content, place, features, references, rows)
        return self.output_proj(content)
