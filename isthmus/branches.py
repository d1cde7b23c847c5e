"""Branches: what sees each kind of input. The model's own encoder, connector and arrangement are the image branch.

Source: Video-LLaMA (arXiv:2306.02858), section 2.1, a branch for pictures and one for sound before one language model.
"""

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.config import fingerprint, to_json
from isthmus.connectors import ConnectorConfig
from isthmus.connectors.arrange import Anyres, ArrangementConfig, ChannelStack, Concatenate, DeepStack
from isthmus.data.collate import Batch, Views
from isthmus.data.sample import Sample
from isthmus.encoders import (
    CachedEncoder,
    Encoder,
    EncoderConfig,
    ImageSource,
    PairedEncoder,
    TilingConfig,
    Untiled,
    VisionEncoder,
)
from isthmus.encoders.tiles import AnyresTiles, FinerTiles, OneView
from isthmus.features import BranchName, Features, FeatureShape, Grid, LLMShape, Placed, Plan, Text


@dataclass(frozen=True, kw_only=True)
class Branch:
    """An encoder, a connector and an arrangement for one kind of input: clips of video, or sounds."""

    encoder: EncoderConfig
    connector: ConnectorConfig
    arrange: ArrangementConfig = field(default_factory=Concatenate)

    def token_grid(self) -> Grid:
        """How the connector's tokens of one view lie."""
        return self.connector.token_grid(self.encoder.shape().grid)

    def fingerprint(self) -> str:
        """Equal when architecture and the encoder's weights are."""
        parts = {"connector": to_json(self.connector), "arrange": to_json(self.arrange)}
        return fingerprint({"encoder": self.encoder.fingerprint(), **parts})

    def check(self, target: LLMShape, *, causal: bool) -> None:
        """Raises ValueError when its parts do not fit, or its connector needs what the image branch alone is given."""
        self.arrange.check(self.connector, self.encoder.shape(), target)
        if self.arrange.added_before() and not causal:
            raise ValueError(
                f"{type(self.arrange).__name__} adds to the layers of the language model, which has to be causal."
            )
        if _stack_of(self.arrange) is not None:
            raise ValueError(
                f"{type(self.arrange).__name__} adds tokens of finer crops, but clips and sounds are not cut: every "
                f"group would be zeros. Use another arrangement, or sampling='repeat' for the control without crops."
            )
        if self.connector.instruction is not None or self.connector.enters_layers:
            raise ValueError(
                f"{type(self.connector).__name__} reads the question or enters the language model's layers, which only "
                f"the connector of images may. Use another connector for video or audio, such as VideoQFormerConfig."
            )


def check_tiles(encoder: EncoderConfig, arrange: ArrangementConfig, count_tokens: Callable[[Plan], int]) -> None:
    """Raises ValueError when an arrangement cannot place the views of a square image, or of one twice as wide.

    One that cuts padding away from tiles that have none would cut the picture; one that stacks crops takes those that
    the encoder cuts, as many and of the kind that it stacks.
    """
    seeing = encoder.first if isinstance(encoder, PairedEncoder) else encoder
    if not isinstance(seeing, VisionEncoder):
        return
    if _unpads(arrange) and not _pads(seeing.tiles):
        raise ValueError(
            f"{type(arrange).__name__} cuts away the padding around a picture, as Anyres(unpad=True) does, and "
            f"{type(seeing.tiles).__name__} leaves none on both sides of it: the picture itself would be cut. "
            f"Use Anyres(unpad=False), or AnyresTiles(pad=True)."
        )
    stack = _stack_of(arrange)
    if stack is not None:
        _check_crops(type(arrange).__name__, stack, seeing.tiles)
    side = seeing.image_size
    for size in ((side, side), (2 * side, side)):
        count_tokens(encoder.plan(size))


def _stack_of(arrange: ArrangementConfig) -> DeepStack | None:
    """The groups that an arrangement takes from finer crops, None when it takes none."""
    stack = arrange.stack if isinstance(arrange, ChannelStack) else arrange
    return stack if isinstance(stack, DeepStack) and stack.sampling != "repeat" else None


def _check_crops(name: str, stack: DeepStack, tiles: TilingConfig) -> None:
    if tiles.most_views == 1:
        raise ValueError(
            f"{name} adds tokens of finer crops, but the encoder cuts none (tiles={tiles}): every group would be "
            f"zeros. Use AnyresTiles(grids=((2, 2),), pad=False), or sampling='repeat' for the control without crops."
        )
    if stack.every_view:
        if not isinstance(tiles, FinerTiles) or tiles.factor**2 != stack.groups:
            raise ValueError(
                f"{name}(every_view=True, groups={stack.groups}) refines every view by {stack.groups} crops of its "
                f"own. Use tiles=FinerTiles(factor={math.isqrt(stack.groups)}), in place of {tiles}."
            )
    elif isinstance(tiles, FinerTiles):
        raise ValueError(f"FinerTiles cuts crops of every view: use {name} with every_view=True, or other tiles.")
    elif tiles.most_views > 1 + stack.groups:
        raise ValueError(
            f"{type(tiles).__name__} cuts an image into up to {tiles.most_views - 1} tiles, more than {name}'s "
            f"groups={stack.groups}. Use fewer tiles, or groups={tiles.most_views - 1}."
        )


def _unpads(arrange: ArrangementConfig) -> bool:
    if isinstance(arrange, Anyres):
        return arrange.unpad
    inner = (getattr(arrange, name, None) for name in ("arrange", "image", "stack"))
    return any(_unpads(one) for one in inner if isinstance(one, ArrangementConfig))


def _pads(tiles: TilingConfig) -> bool:
    """Whether pictures stand in the middle of their tiles, padded; one view is never cut."""
    if isinstance(tiles, FinerTiles):
        return _pads(tiles.tiles)
    return tiles.pad if isinstance(tiles, AnyresTiles) else isinstance(tiles, OneView)


class BranchParts(nn.Module):
    """The modules of a branch: `encoder` (None where features are kept elsewhere), `connector`, `arrange`."""

    def __init__(self, config: Branch, target: LLMShape, *, with_encoder: bool) -> None:
        super().__init__()
        self.config = config
        self.source: FeatureShape = config.encoder.shape()
        self.token_grid = config.connector.token_grid(self.source.grid)
        self.encoder: Encoder | None = config.encoder.build().requires_grad_(False) if with_encoder else None
        self.connector = config.connector.build(self.source, target)
        self.arrange = config.arrange.build(target)

    def built_encoder(self) -> Encoder:
        """The encoder. Raises ValueError when the branch was built without it."""
        if self.encoder is None:
            raise ValueError("This branch was built without its encoder. Build the model with with_encoder=True.")
        return self.encoder

    def features(self, views: Views) -> Features:
        """The features of its views, encoded if they come as pixels. Raises ValueError when they come as neither."""
        if views.features is not None:
            return views.features
        if views.pixels is None:
            raise ValueError(
                "The batch has videos or sounds but neither their features nor their pixels. Collate it with one of "
                "them (others=...)."
            )
        features: Features = self.built_encoder()(views.pixels)
        return features

    def see(self, features: Features, plans: Sequence[Plan], text: Text | None = None) -> Placed:
        """Features of all its views -> tokens of all its inputs, packed."""
        known = tuple(replace(plan, tokens=self.token_grid) for plan in plans)
        placed: Placed = self.arrange(self.connector(features), known)
        return placed


@runtime_checkable
class Sees(Protocol):
    """What a branch and the model itself have in common."""

    encoder: Encoder | None
    source: FeatureShape

    @property
    def connector(self) -> nn.Module:
        """From `Features` to `VisualTokens`."""
        ...

    def see(self, features: Features, plans: Sequence[Plan], text: Text | None = None) -> Placed:
        """Features of views -> tokens of inputs."""
        ...


def blank(parts: Sees, *, reads_text: bool) -> Float[Tensor, ""]:
    """Zero, made with every parameter that a batch with such inputs would touch."""
    weight = next(parts.connector.parameters(), torch.zeros(()))
    if parts.encoder is not None and any(one.requires_grad for one in parts.encoder.parameters()):
        features: Features = parts.encoder(parts.encoder.blank().to(weight.device))
    else:
        features = _blank_features(parts.source, weight)
    rows = len(features.tokens)
    text = None
    if reads_text:
        ids = torch.zeros(rows, 1, dtype=torch.long, device=weight.device)
        text = Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))
    placed = parts.see(features, (Plan(size=(1, 1), tiles=Grid(1, 1, 1), views=range(rows)),), text)
    made = (placed.tokens, *placed.deeper, *(() if placed.memory is None else (placed.memory,)))
    return torch.stack([one.sum().float() * 0.0 for one in made]).sum()


def _blank_features(source: FeatureShape, like: Tensor) -> Features:
    patches = source.grid.size

    def zeros(length: int, width: int) -> Tensor:
        return torch.zeros(1, length, width, dtype=like.dtype, device=like.device)

    return Features(
        tokens=zeros(source.prefix + patches, source.width),
        grid=source.grid,
        prefix=source.prefix,
        levels=tuple(zeros(patches, width) for width in source.level_widths),
    )


@dataclass(frozen=True, kw_only=True)
class Looked:
    """The inputs of some samples made ready for the model: a plan each, in order, and the views of every branch."""

    plans: tuple[Plan, ...] = ()
    views: Mapping[BranchName, Views] = field(default_factory=dict)

    @property
    def image(self) -> Views:
        """The views of the image branch; empty when there are none."""
        return self.views.get("image", Views())

    @property
    def others(self) -> dict[BranchName, Views]:
        """The views of the other branches."""
        return {name: views for name, views in self.views.items() if name != "image"}


@runtime_checkable
class GivesFeatures(Protocol):
    """Gives the features of inputs; `CachedEncoder` is one."""

    def features(self, images: Sequence[ImageSource]) -> tuple[Features, tuple[Plan, ...]]:
        """The rows of one input after those of another, and each input's plan."""
        ...


def inputs_of(
    sample: Sample, names: Container[BranchName], *, tile_several: bool
) -> list[tuple[BranchName, ImageSource]]:
    """The inputs of a sample in order, each with the branch that sees it.

    Clips go through the image branch where there is no video branch, each frame a view. Without `tile_several` the
    images of a sample that has several are one view each.

    Raises:
        ValueError: a sound for a model without an audio branch.
    """
    many = len(sample.images) > 1
    found: list[tuple[BranchName, ImageSource]] = []
    for kind, ref in sample.inputs:
        if kind == "audio" and kind not in names:
            raise ValueError(
                f"Sample {sample.id!r} holds a sound, but the model has no audio branch. Give it one: "
                f"Model(audio=Branch(encoder=AudioEncoder(...), connector=AudioQFormerConfig(...)))."
            )
        whole = kind != "image" or (many and not tile_several)
        branch: BranchName = kind if kind in names else "image"
        found.append((branch, Untiled(of=ref) if whole else ref))
    return found


def look(
    samples: Sequence[Sample],
    encoders: Mapping[BranchName, GivesFeatures | Encoder],
    *,
    view: int = 0,
    tile_several: bool = True,
) -> Looked:
    """Load the inputs of samples and give each to the encoder of its branch: features, or pixels from an `Encoder`.

    `view` is the augmented view of images. See `inputs_of` for the rest.

    Raises:
        ValueError: an input that cannot be read, or a sound for a model without an audio branch.
    """
    refs: dict[BranchName, list[ImageSource]] = {}
    places: list[tuple[BranchName, int]] = []
    for sample in samples:
        for branch, ref in inputs_of(sample, encoders, tile_several=tile_several):
            mine = refs.setdefault(branch, [])
            places.append((branch, len(mine)))
            mine.append(ref)
    seen = {name: _views(mine, encoders[name], view if name == "image" else 0) for name, mine in refs.items()}
    plans = tuple(replace(seen[name][1][place], branch=name) for name, place in places)
    return Looked(plans=plans, views={name: views for name, (views, _) in seen.items()})


def plan_inputs(
    samples: Sequence[Sample], encoders: Mapping[BranchName, EncoderConfig], *, tile_several: bool
) -> tuple[Plan, ...]:
    """The plans that `look` gives, from loaded inputs and no weights: for prompts that are only shown."""
    first: dict[BranchName, int] = {}
    plans: list[Plan] = []
    for sample in samples:
        for branch, ref in inputs_of(sample, encoders, tile_several=tile_several):
            plan = encoders[branch].plan_loaded(ref.load(), first.get(branch, 0))
            first[branch] = plan.views.stop
            plans.append(replace(plan, branch=branch))
    return tuple(plans)


def pixels_of(refs: Sequence[ImageSource], encoder: Encoder) -> tuple[Views, tuple[Plan, ...]]:
    """Inputs loaded and made ready for an encoder, and each one's plan."""
    parts: list[Tensor] = []
    made: list[Plan] = []
    first = 0
    for ref in refs:
        ready = encoder.prepare(ref.load())
        rows = range(first, first + len(ready.pixels))
        made.append(Plan(size=ready.size, tiles=ready.tiles, views=rows, whole=ready.whole))
        parts.append(ready.pixels)
        first = rows.stop
    return Views(pixels=torch.cat(parts)), tuple(made)


def _views(refs: Sequence[ImageSource], encoder: GivesFeatures | Encoder, view: int) -> tuple[Views, Sequence[Plan]]:
    if isinstance(encoder, Encoder):
        return pixels_of(refs, encoder)
    features, plans = encoder.features(refs, view) if isinstance(encoder, CachedEncoder) else encoder.features(refs)
    return Views(features=features), plans


def join_placed(plans: Sequence[Plan], parts: Mapping[BranchName, Placed]) -> Placed:
    """The tokens of several branches in the order of the plans. Layers that a branch adds nothing before get zeros."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    tokens = {name: torch.split(placed.tokens, list(placed.lengths)) for name, placed in parts.items()}
    deeper = {
        name: {
            layer: torch.split(added, list(placed.lengths))
            for layer, added in zip(placed.layers, placed.deeper, strict=True)
        }
        for name, placed in parts.items()
    }
    layers = tuple(sorted({layer for placed in parts.values() for layer in placed.layers}))
    taken = dict.fromkeys(parts, 0)
    order: list[tuple[BranchName, int]] = []
    for plan in plans:
        order.append((plan.branch, taken[plan.branch]))
        taken[plan.branch] += 1
    chosen = [tokens[name][place] for name, place in order]
    added = tuple(
        torch.cat(
            [
                deeper[name][layer][place] if layer in deeper[name] else torch.zeros_like(tokens[name][place])
                for name, place in order
            ]
        )
        for layer in layers
    )
    owned = [(placed, name) for name, placed in parts.items() if placed.memory is not None]
    assert len(owned) <= 1, "only the image branch may enter the layers"
    memory: Tensor | None = None
    owner: tuple[int, ...] = ()
    if owned:
        placed, name = owned[0]
        numbers = [number for number, (branch, _) in enumerate(order) if branch == name]
        memory, owner = placed.memory, tuple(numbers[one] for one in placed.owner)
    return Placed(
        tokens=torch.cat(chosen),
        lengths=tuple(len(one) for one in chosen),
        deeper=added,
        layers=layers,
        memory=memory,
        owner=owner,
    )


def check_places(batch: Batch, placed: Placed) -> None:
    """Raises ValueError, naming the sample, when its places and its visual tokens differ in number."""
    expected = [0] * len(batch.ids)
    for row, length in zip(batch.owner, placed.lengths, strict=True):
        expected[row] += length
    for row, places in enumerate(batch.visual.sum(dim=1).tolist()):
        if places != expected[row]:
            raise ValueError(
                f"Sample {batch.sample_ids[row]!r} has {places} image places but {expected[row]} visual tokens. "
                f"Count places with Model.num_visual_tokens."
            )
