"""Gated cross-attention: layers of the language model look at the image through blocks between them, opened by gates.

Source: Flamingo (arXiv:2204.14198), section 3.2 and 3.3.
Checked against: mlfoundations/open_flamingo `GatedCrossAttentionBlock` (oracle `open_flamingo_gated_xattn`).
Differs: the `<image>` token's embedding belongs to the connector; with see="last", as with see="all" in the released
code, text of a row without images gets nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from isthmus.connectors.attention import attend
from isthmus.connectors.base import Connector, ConnectorConfig, LayerPlace
from isthmus.connectors.fit import check_counts
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.perceiver import PERCEIVER_KEYS, PerceiverConfig
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Placed, VisualTokens


@dataclass(frozen=True, kw_only=True)
class GatedCrossAttentionConfig(ConnectorConfig):
    """One token an image stands in the text; what it shows is read inside the layers. OpenFlamingo's defaults."""

    enters_layers: ClassVar[bool] = True

    resampler: ConnectorConfig = field(default_factory=lambda: PerceiverConfig(project=False))
    """Makes the memory that the blocks look at, at the encoder's width."""
    every: int = 1
    """A block before the last of every so many layers (Flamingo-9B 4, 80B 7)."""
    heads: int = 8
    head_width: int = 64
    ffn_factor: int = 4
    see: Literal["last", "all"] = "last"
    """Text sees the image before it alone, or all before it. (all: text before the first image sees the mean of all the
    row's images, as the released code has it.)"""

    def __post_init__(self) -> None:
        check_counts(self, ("every", "heads", "head_width", "ffn_factor"))
        if self.resampler.enters_layers:
            raise ValueError(
                "GatedCrossAttentionConfig(resampler=...) makes the memory: it cannot enter layers itself."
            )

    def num_tokens(self, grid: Grid) -> int:
        """One. Raises ValueError when the resampler cannot take the grid."""
        self.resampler.num_tokens(grid)
        return 1

    def layers(self, target: LLMShape) -> tuple[int, ...]:
        """The decoder layers (from 0) before which a block stands."""
        return tuple(range(self.every - 1, target.num_layers, self.every))

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """Resampler, d_l for the token, and a block: 4 d + 2 d I + 2 d_v I + 2 m d d + 2; I = heads * head_width."""
        d, inner = target.hidden_width, self.heads * self.head_width
        block = 4 * d + 2 * d * inner + 2 * source.width * inner + 2 * self.ffn_factor * d * d + 2
        own = target.embedding_width + len(self.layers(target)) * block
        return self.resampler.parameters(source, _memory_shape(source, target)) + own

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """The resampler's; see `layer_flops` for the blocks."""
        return self.resampler.flops(source, _memory_shape(source, target))

    def layer_flops(self, source: FeatureShape, target: LLMShape, *, views: int, positions: int) -> int:
        """A block: 4 T d I + 4 S d_v I + 4 T S I + 4 m T d d, for T positions and S latents of all views."""
        d, inner = target.hidden_width, self.heads * self.head_width
        latents = views * self.resampler.num_tokens(source.grid)
        attention = 4 * positions * d * inner + 4 * latents * source.width * inner + 4 * positions * latents * inner
        return len(self.layers(target)) * (attention + 4 * self.ffn_factor * positions * d * d)

    def build(self, source: FeatureShape, target: LLMShape) -> "GatedCrossAttention":
        """The module: closed gates, so that the language model is unchanged at first."""
        if not self.layers(target):
            raise ValueError(
                f"GatedCrossAttentionConfig(every={self.every}) finds no place among {target.num_layers} layers. Use "
                f"every={target.num_layers} or less."
            )
        return GatedCrossAttention(self, source, target)


class GatedCrossAttention(Connector):
    """[views, patches, width] -> [views, 1, embedding width], and [views, latents, width] as memory."""

    def __init__(self, config: GatedCrossAttentionConfig, source: FeatureShape, target: LLMShape) -> None:
        super().__init__()
        self.config = config
        self.memory_width = source.width
        self.resampler = config.resampler.build(source, _memory_shape(source, target))
        self.image_token = nn.Parameter(torch.randn(target.embedding_width) * 0.02)
        self.blocks = nn.ModuleDict(
            {
                str(layer): GatedBlock(target.hidden_width, source.width, config=config)
                for layer in config.layers(target)
            }
        )

    def forward(self, features: Features) -> VisualTokens:
        """The image token, and the resampler's tokens as memory."""
        memory = self.resampler(features).tokens
        return VisualTokens(self.image_token.expand(len(memory), 1, -1), memory=memory)

    def addition(
        self, placed: Placed | None, seen: Int[Tensor, "rows length"], rows: tuple[int, ...]
    ) -> "LookAtImages":
        """The blocks, with what each position of this batch may look at. Without images the blocks still run."""
        if placed is None or placed.memory is None:
            memory = self.image_token.new_zeros(1, 1, self.memory_width)
            return LookAtImages(self.blocks, memory, _slots((), (), seen), all_before=False)
        slots = _slots(placed.owner, rows, seen)
        return LookAtImages(self.blocks, placed.memory, slots, all_before=self.config.see == "all")


class GatedBlock(nn.Module):
    """hidden + tanh(gate) attention(hidden, memory), then + tanh(ffn_gate) feed-forward."""

    def __init__(self, width: int, memory_width: int, *, config: GatedCrossAttentionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        inner = config.heads * config.head_width
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.pair = nn.Linear(memory_width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.gate = nn.Parameter(torch.zeros(1))
        self.ffn = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.ffn_factor * width, bias=False),
            nn.GELU(),
            nn.Linear(config.ffn_factor * width, width, bias=False),
        )
        self.ffn_gate = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        hidden: Float[Tensor, "rows length width"],
        pair: Float[Tensor, "rows sources pairs"],
        sight: "Sight",
    ) -> Float[Tensor, "rows length width"]:
        """`pair` holds the memory's keys and values."""
        keys, values = pair.chunk(2, dim=-1)
        queries = self.query(self.norm(hidden)).masked_fill(sight.even[..., None], 0.0)
        looked = attend(queries, keys, values, heads=self.heads, mask=sight.mask)
        looked = looked.masked_fill(sight.blind[..., None], 0.0)
        hidden = hidden + self.gate.tanh() * self.out(looked)
        fed: Tensor = hidden + self.ffn_gate.tanh() * self.ffn(hidden)
        return fed


@dataclass(frozen=True)
class Sight:
    """Which sources a position may look at; `even` positions get their mean, `blind` ones nothing."""

    mask: Bool[Tensor, "rows length sources"]
    even: Bool[Tensor, "rows length"]
    blind: Bool[Tensor, "rows length"]


@dataclass(frozen=True)
class Slots:
    """Which memory rows each batch row has (`index`, padded), whose they are (`owner`), and who is seen where."""

    index: Int[Tensor, "rows slots"]
    owner: Int[Tensor, "rows slots"]
    seen: Int[Tensor, "rows length"]


class LookAtImages:
    """The addition of one batch: before a block's layer, every position looks at its image's memory."""

    def __init__(
        self, blocks: nn.ModuleDict, memory: Float[Tensor, "all latents inner"], slots: Slots, *, all_before: bool
    ) -> None:
        self.blocks, self.slots, self.all_before = blocks, slots, all_before
        self.latents = memory.shape[1]
        self.memory: Float[Tensor, "rows sources inner"] = memory[slots.index].flatten(1, 2)
        self._pairs: dict[int, Tensor] = {}

    def __call__(
        self, hidden: Float[Tensor, "rows length width"], layer: int, state: LayerPlace
    ) -> Float[Tensor, "rows length width"]:
        """`hidden` after the block of this layer, if it has one. Positions after the prompt see its last image."""
        if str(layer) not in self.blocks:
            return hidden
        block = self.blocks[str(layer)]
        assert isinstance(block, GatedBlock)
        places = torch.arange(state.offset, state.offset + hidden.shape[1], device=hidden.device)
        sight = self._sight(self.slots.seen[:, places.clamp(max=self.slots.seen.shape[1] - 1)], state.repeats)
        # Beams are folded into positions, so that a row's keys and values are shared by them.
        rows = "(rows beams) length width -> rows (beams length) width"
        folded = rearrange(hidden.to(self.memory.dtype), rows, beams=state.repeats)
        looked = block(folded, self._pair(block, layer), sight)
        back: Tensor = rearrange(looked, "rows (beams length) width -> (rows beams) length width", beams=state.repeats)
        return back.to(hidden.dtype)

    def _sight(self, seen: Int[Tensor, "rows length"], beams: int) -> Sight:
        owner, last = self.slots.owner[:, None, :], seen[:, :, None]
        real = owner >= 0
        may = real & (owner <= last if self.all_before else owner == last)
        even = ~may.any(dim=-1)
        blind = even & ~real.any(dim=-1) if self.all_before else even
        mask = (may | (even[..., None] & real)).repeat_interleave(self.latents, dim=-1)
        return Sight(mask.repeat(1, beams, 1), even.repeat(1, beams), blind.repeat(1, beams))

    def _pair(self, block: GatedBlock, layer: int) -> Float[Tensor, "rows sources pairs"]:
        """The memory's keys and values: computed once a batch when writing, anew in every pass of training."""
        if torch.is_grad_enabled():
            fresh: Tensor = block.pair(self.memory)
            return fresh
        if layer not in self._pairs:
            self._pairs[layer] = block.pair(self.memory)
        return self._pairs[layer]


def _slots(owner: Sequence[int], rows: Sequence[int], seen: Int[Tensor, "rows length"]) -> Slots:
    """The memory rows of every batch row, padded to one number with owner -1."""
    kept: list[list[int]] = [[] for _ in range(len(seen))]
    for number, one in enumerate(owner):
        kept[rows[one]].append(number)
    width = max(1, *(len(row) for row in kept))
    index = [[*row, *[0] * (width - len(row))] for row in kept]
    owners = [[*(owner[number] for number in row), *[-1] * (width - len(row))] for row in kept]
    return Slots(torch.tensor(index, device=seen.device), torch.tensor(owners, device=seen.device), seen)


def _memory_shape(source: FeatureShape, target: LLMShape) -> LLMShape:
    """What the resampler writes for: memory at the encoder's width."""
    return LLMShape(embedding_width=source.width, hidden_width=source.width, num_layers=target.num_layers)


def _block(official: str, ours: str) -> tuple[Entry, ...]:
    return (
        Entry(f"{official}attn.norm", (f"{ours}norm",)),
        Entry(f"{official}attn.to_q", (f"{ours}query",)),
        Entry(f"{official}attn.to_kv", (f"{ours}pair",)),
        Entry(f"{official}attn.to_out", (f"{ours}out",)),
        Entry(f"{official}attn_gate", (f"{ours}gate",)),
        Entry(f"{official}ff.0", (f"{ours}ffn.0",)),
        Entry(f"{official}ff.1", (f"{ours}ffn.1",)),
        Entry(f"{official}ff.3", (f"{ours}ffn.3",)),
        Entry(f"{official}ff_gate", (f"{ours}ffn_gate",)),
    )


GATED_BLOCK_KEYS = KeyMap(prefix="", entries=_block("", ""))
"""OpenFlamingo's names of one block against those of `GatedBlock`."""

FLAMINGO_KEYS = KeyMap(
    prefix="",
    entries=(
        Entry("image_token", ("image_token",)),
        *_block("lang_encoder.gated_cross_attn_layers.*.", "blocks.*."),
        *(
            Entry(f"perceiver.{entry.official}", tuple(f"resampler.resampler.{ours}" for ours in entry.ours))
            for entry in PERCEIVER_KEYS.entries
        ),
    ),
)
"""OpenFlamingo's checkpoint against `GatedCrossAttention`. `image_token` is the row of `<image>` in its word
embeddings, which the checkpoint keeps with the language model: whoever reads it gives that row under this name."""
