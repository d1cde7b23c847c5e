"""The tower to be kept, and the text tower and projections that are thrown away after training."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from backbones.eye_batch import GRID, PATCH, SIDE

WIDTH, DEPTH, HEADS, JOINT = 192, 6, 3, 192


def new_tower() -> CLIPVisionModel:
    """An untrained eye, its positions started as two-dimensional waves."""
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
        image_size=SIDE, patch_size=PATCH, hidden_act="gelu", projection_dim=JOINT,
    )  # fmt: skip
    tower = CLIPVisionModel._from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        inner(tower).embeddings.position_embedding.weight[1:] = 0.25 * _waves(WIDTH)
    return tower


def inner(tower: CLIPVisionModel) -> Any:
    """The transformer inside, whichever way this version of transformers nests it."""
    return getattr(tower, "vision_model", tower)


def _waves(width: int) -> Float[Tensor, "patches width"]:
    """Sines and cosines of row and column."""
    rates = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
    angles = torch.arange(GRID)[:, None] * rates[None, :] * 2
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = line[:, None, :].expand(GRID, GRID, -1)
    columns = line[None, :, :].expand(GRID, GRID, -1)
    return torch.cat([rows, columns], dim=2).reshape(GRID * GRID, width)


def see(
    tower: CLIPVisionModel, pixels: Float[Tensor, "views 3 height width"], kept: Int[Tensor, "views seen"] | None
) -> Float[Tensor, "views tokens width"]:
    """Class token and the `kept` patches (all when None) after the last block; equal to the tower's own forward."""
    model = inner(tower)
    table = model.embeddings
    patches = rearrange(pixels, "b c (r p) (s q) -> b (r s) (c p q)", p=PATCH, q=PATCH)
    positions = table.position_embedding.weight
    where = positions[1:].expand(len(patches), -1, -1)
    if kept is not None:
        patches = patches.gather(1, kept[:, :, None].expand(-1, -1, patches.shape[2]))
        where = positions[1:][kept]
    embedded = F.linear(patches, table.patch_embedding.weight.flatten(1)) + where
    first = (table.class_embedding + positions[0]).expand(len(patches), 1, -1)
    hidden: Tensor = model.pre_layrnorm(torch.cat([first, embedded], dim=1))
    for layer in model.encoder.layers:
        output = layer(hidden, None)
        hidden = output[0] if isinstance(output, tuple) else output
    return hidden


def choose_patches(
    covered: Bool[Tensor, "regions patches"], owner: Int[Tensor, "regions"], views: int, seen: int
) -> Int[Tensor, "views seen"]:
    """Patches to keep: nine in ten of those that a region smaller than half the picture covers, then any others."""
    small = covered & (covered.sum(1, keepdim=True) < covered.shape[1] // 2)
    wanted = torch.zeros(views, covered.shape[1]).index_add_(0, owner, small.float()) > 0
    score = torch.rand(wanted.shape) + (wanted & (torch.rand(wanted.shape) < 0.9)).float()
    return score.topk(seen, dim=1).indices.sort(dim=1).values


class TextTower(nn.Module):
    """[texts, length] -> [texts, joint width]: two transformer layers over word pieces, mean over the text."""

    def __init__(self, vocabulary: int, *, width: int = 128, depth: int = 2, longest: int = 96) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.embed_places = nn.Parameter(0.02 * torch.randn(longest, width))
        nn.init.normal_(self.embed.weight, std=0.05)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 3 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.project_head = nn.Linear(width, JOINT, bias=False)

    def forward(
        self, ids: Int[Tensor, "texts length"], mask: Bool[Tensor, "texts length"]
    ) -> Float[Tensor, "texts joint"]:
        hidden = self.embed(ids) + self.embed_places[: ids.shape[1]]
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=~mask)
        weights = mask.float() / mask.sum(1, keepdim=True)
        return F.normalize(self.project_head(self.norm((hidden * weights[:, :, None]).sum(1))), dim=-1)


class Heads(nn.Module):
    """From the tower to the space shared with texts: one projection of patches, one of the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.region_norm = nn.LayerNorm(WIDTH)
        self.region_head = nn.Linear(WIDTH, JOINT, bias=False)
        self.image_head = nn.Linear(WIDTH, JOINT, bias=False)
        self.region_scale = nn.Parameter(torch.tensor(math.log(4.0)))
        self.image_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def regions(self, hidden: Float[Tensor, "regions width"]) -> Float[Tensor, "regions joint"]:
        """Regions in the shared space; their length is free, so that one region can agree with many phrases."""
        projected: Float[Tensor, "regions joint"] = self.region_head(self.region_norm(hidden))
        return projected

    def images(self, pooled: Float[Tensor, "views width"]) -> Float[Tensor, "views joint"]:
        """Whole pictures in the shared space."""
        return F.normalize(self.image_head(pooled), dim=-1)
