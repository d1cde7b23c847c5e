"""The query atlas: for every visual token of a picture, which patches it was made from.

Where queries attend (the Q-Formers), a map is their attention, the mean over heads and over the layers that look. For
every other connector it is the gradient: how far each patch moves the token t along itself, |d(|t|^2 / 2) / d patch|.
Maps are shares: those of a token add up to 1 over a view's patches, class and register tokens left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor, nn

from isthmus.data.sample import Sample
from isthmus.encoders.paired import PairedTowers
from isthmus.features import Features, Grid, Plan, Text
from isthmus.measure.signs import cross_attentions, looking, mean_cosine
from isthmus.model import VisionLanguageModel

SIDE, ACROSS = 96, 8
"""Pixels of a drawn map, and maps side by side."""


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """The maps of every view of one picture on the encoder's grid of patches, and the views as the encoder saw them."""

    kind: Literal["attention", "gradient"]
    maps: Float[Tensor, "views tokens patches"]
    grid: Grid
    views: tuple[Image.Image, ...]

    @property
    def patches_seen(self) -> float:
        """How many patches a token is made from, on average: exp of the entropy of its map."""
        return float(torch.special.entr(self.maps).sum(dim=-1).exp().mean())

    @property
    def likeness(self) -> float:
        """The mean cosine of two tokens' maps: 1 where all of them look at the same places."""
        return float(mean_cosine(self.maps).mean())


def atlas(model: VisionLanguageModel, sample: Sample) -> Atlas:
    """The atlas of the first image of a sample; the question in it is what a connector that reads text reads.

    The model is taken in the mode that it is in, with its encoder: put it in evaluation mode first.

    Raises:
        ValueError: no image, or a model without its encoder.
    """
    if not sample.images or sample.videos or sample.sounds:
        raise ValueError(f"An atlas is of a picture, and sample {sample.id!r} holds something else or nothing.")
    looked = model.look([sample])
    device = next(model.parameters()).device
    pixels, encoder = looked.image.pixels, model.encoder
    assert pixels is not None
    assert encoder is not None
    with torch.no_grad():
        features: Features = encoder(pixels.to(device))
    text = _text(model, sample, looked.plans, pixels)
    found = _attended(model, features, text)
    kind: Literal["attention", "gradient"] = "gradient" if found is None else "attention"
    maps = _moved(model, features, text) if found is None else found
    own = looked.plans[0].views
    shares = maps[own.start : own.stop] / maps[own.start : own.stop].sum(dim=-1, keepdim=True).clamp(min=1e-30)
    shown = encoder.parts(pixels)[0] if isinstance(encoder, PairedTowers) else pixels
    pictures = tuple(_picture(shown[view]) for view in own)
    return Atlas(kind=kind, maps=shares.cpu(), grid=features.grid, views=pictures)


def draw(found: Atlas, num: int) -> Image.Image:
    """Every view, and under it the maps of `num` tokens at most, evenly chosen, bright where a token looks."""
    count = found.maps.shape[1]
    chosen = sorted({round(place * (count - 1) / max(1, min(num, count) - 1)) for place in range(min(num, count))})
    lines = 1 + math.ceil(len(chosen) / ACROSS)
    sheet = Image.new("RGB", (ACROSS * SIDE, lines * SIDE * len(found.views)), "white")
    for number, view in enumerate(found.views):
        picture, top = view.resize((SIDE, SIDE)), number * lines * SIDE
        sheet.paste(picture, (0, top))
        for place, token in enumerate(chosen):
            lit = _lit(picture, found.maps[number, token], found.grid)
            ImageDraw.Draw(lit).text((3, 1), str(token), fill="white")
            sheet.paste(lit, (place % ACROSS * SIDE, top + (1 + place // ACROSS) * SIDE))
    return sheet


def _lit(picture: Image.Image, shares: Float[Tensor, " patches"], grid: Grid) -> Image.Image:
    """The picture, dark but where the map is high; frames of a clip lie under each other."""
    lying = rearrange(shares, "(places columns) -> places columns", columns=grid.columns)
    bright = (lying / lying.max().clamp(min=1e-30) * 215 + 40).round().to(torch.uint8)
    mask = Image.fromarray(bright.numpy()).resize(picture.size, Image.Resampling.BILINEAR)
    return Image.composite(picture, Image.new("RGB", picture.size), mask)


def _vectors(model: VisionLanguageModel, features: Features, text: Text | None) -> Float[Tensor, "views tokens _"]:
    """What the connector makes of every view: its tokens, what layers read of it, or the vectors that are compared."""
    if model.config.llm is None:
        compared: Tensor = model.connector.reading(features, None).images("queries")
        return compared
    visual = model.connector(features) if text is None else model.connector(features, text)
    tokens: Tensor = visual.tokens if visual.memory is None else visual.memory
    return tokens


@torch.no_grad()
def _attended(
    model: VisionLanguageModel, features: Features, text: Text | None
) -> Float[Tensor, "views tokens patches"] | None:
    """The attention of queries over patches; None where a connector has none that lies over the whole view."""
    found: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        weights = looking(module, args)
        if weights is not None:
            found.append(weights.mean(dim=1))

    handles = [one.register_forward_pre_hook(note) for one in cross_attentions(model.connector)]
    try:
        count = _vectors(model, features, text).shape[1]
    finally:
        for handle in handles:
            handle.remove()
    views, places = features.tokens.shape[:2]
    if not found or any(one.shape != (views, count, places) for one in found):
        return None
    return torch.stack(found).mean(dim=0)[:, :, features.prefix :]


@torch.enable_grad()
def _moved(model: VisionLanguageModel, features: Features, text: Text | None) -> Float[Tensor, "views tokens patches"]:
    """How far each patch moves each token along itself."""
    tokens = features.tokens.detach().clone().requires_grad_(True)
    levels = tuple(level.detach().clone().requires_grad_(True) for level in features.levels)
    vectors = _vectors(model, replace(features, tokens=tokens, levels=levels), text).float()
    maps = []
    for place in range(vectors.shape[1]):
        half = vectors[:, place].square().sum() / 2
        slopes = torch.autograd.grad(half, (tokens, *levels), retain_graph=True, allow_unused=True)
        patches = [None if slopes[0] is None else slopes[0][:, features.prefix :], *slopes[1:]]
        squares = [one.float().square().sum(dim=-1) for one in patches if one is not None]
        assert squares, "a visual token that no feature moves"
        maps.append(torch.stack(squares).sum(dim=0).sqrt())
    return torch.stack(maps, dim=1)


def _text(model: VisionLanguageModel, sample: Sample, plans: Sequence[Plan], pixels: Tensor) -> Text | None:
    """The question in the connector's own tokenizer, a row a view, where it reads one."""
    if model.config.llm is None or model.config.connector.instruction is None:
        return None
    batch = model.config.batch([sample], tokenizer=model.tokenizer, plans=plans, pixels=pixels, for_generation=True)
    return batch.to(next(model.parameters()).device).view_text()


def _picture(pixels: Float[Tensor, "*steps channels height width"]) -> Image.Image:
    """A view as the encoder sees it, its values stretched to what a screen shows."""
    one = pixels.reshape(-1, *pixels.shape[-3:])[0].float().cpu()
    low, high = one.min(), one.max()
    levels = ((one - low) / (high - low).clamp(min=1e-6) * 255).round().to(torch.uint8)
    return Image.fromarray(rearrange(levels, "channels height width -> height width channels").contiguous().numpy())
