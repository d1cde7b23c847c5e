"""What every connector is: a config that answers without weights, and a module from `Features` to `VisualTokens`."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.connectors.reading import Passes
from isthmus.features import Captions, Features, FeatureShape, Grid, LLMShape, Placed, VisualTokens

CaptionForm = Literal["none", "bert", "llama"]
"""How a connector's own text is written: not at all, as BERT's ([CLS], [SEP], [DEC]), or as LLaMA's with prefixes."""


@runtime_checkable
class LayerPlace(Protocol):
    """Where a layer's input lies: positions already in the cache, and generated rows per row of the batch."""

    @property
    def offset(self) -> int:
        """Positions before this input."""
        ...

    @property
    def repeats(self) -> int:
        """Beams a row."""
        ...


@runtime_checkable
class Addition(Protocol):
    """Changes the input of a decoder layer; returns it unchanged for layers that it leaves alone."""

    def __call__(
        self, hidden: Float[Tensor, "rows length width"], layer: int, state: LayerPlace
    ) -> Float[Tensor, "rows length width"]:
        """[rows * repeats, positions from `state.offset` on, hidden width] -> the same shape."""
        ...


class Connector(nn.Module):
    """A module from `Features` to `VisualTokens`, one row a view."""

    def forward(self, features: Features) -> VisualTokens:
        """[views, patches, width] -> [views, tokens, embedding width]."""
        raise AssertionError(f"{type(self).__name__} does not define forward")

    def follow(self, config: "ConnectorConfig") -> None:
        """Take other choices with the same weights (`ConnectorConfig.at_step`); most connectors have none to take."""

    def reading(self, features: Features | None, captions: Captions | None) -> Any:
        """Images and captions as objectives of alignment share them: a `Reading`. Raises ValueError where it cannot."""
        raise ValueError(f"{type(self).__name__} reads no text, so it has nothing to compare images with.")

    def addition(
        self, placed: Placed | None, seen: Int[Tensor, "rows length"], rows: tuple[int, ...]
    ) -> Addition | None:
        """What it adds inside the language model's layers for one batch; most connectors add nothing.

        `seen` is the number of the last input that begins at or before a position, -1 before the first; `rows[i]` is
        the row of input `i`.
        """
        return None


QuestionTurn = Literal["last-question", "first-question"]
"""Which turn of a chat is the instruction."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """What a connector reads of each sample besides its images; a longer text loses its beginning."""

    turn: QuestionTurn
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class ConnectorConfig:
    """Choices only. Token count, parameters and FLOPs are closed forms, so a cost needs no weights.

    FLOPs: one multiply-add is 2; matrix products, convolutions and attention products only, for one view.
    """

    captions: ClassVar[CaptionForm] = "none"

    enters_layers: ClassVar[bool] = False
    """Whether it adds something inside the language model's layers, which only causal models allow."""

    @property
    def instruction(self) -> Instruction | None:
        """The text that `forward` takes beside the features, a row a view; `None` for connectors that read none."""
        return None

    def tokenizer(self) -> Any:
        """The tokenizer of the text it reads. Raises ValueError when it reads none."""
        raise ValueError(f"{type(self).__name__} reads no text, so it has no tokenizer.")

    @property
    def aligns(self) -> bool:
        """Whether it reads text and has the heads that compare, match and write captions."""
        return False

    def continues(self, earlier: "ConnectorConfig") -> bool:
        """Whether it can go on with the weights of one that was trained alone; its way to the LLM starts fresh."""
        return self == earlier

    def place_of(self, name: str, earlier: "ConnectorConfig") -> str:
        """The name that a weight of a connector that it continues has in it."""
        return name

    def shares_weights(self, other: "ConnectorConfig") -> bool:
        """Whether one set of weights serves both: they differ, if at all, in choices that no weight depends on."""
        return self == other

    projects_anew: ClassVar[bool] = False
    """Whether its way to the language model starts fresh where it continues another connector."""

    def at_step(self, seed: int, step: int) -> "ConnectorConfig":
        """The choices of one training step, which share its weights: its own, but for those that it draws anew."""
        return self

    def at_most(self) -> "ConnectorConfig":
        """The choices of the training step with the most tokens: its own, but for those that it draws anew."""
        return self

    def build_alone(self, source: FeatureShape) -> Connector:
        """The module for training without a language model. Raises ValueError where that makes no sense."""
        raise ValueError(
            f"{type(self).__name__} only writes for one, but there is no language model (llm=None). Give the model one."
        )

    def num_tokens(self, grid: Grid) -> int:
        """Visual tokens for one view with this patch grid. Raises ValueError when the grid does not fit."""
        raise AssertionError(f"{type(self).__name__} does not define num_tokens")

    def token_grid(self, grid: Grid) -> Grid:
        """How the tokens of one view lie: as the patches when there are as many, else in one row without a map."""
        count = self.num_tokens(grid)
        return grid if count == grid.size else Grid(1, 1, count)

    def num_levels(self, source: FeatureShape) -> int:
        """How many `levels` it gives for later layers of the language model."""
        return 0

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """Number of parameters, biases and norms included."""
        raise AssertionError(f"{type(self).__name__} does not define parameters")

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """FLOPs of one forward pass over one view."""
        raise AssertionError(f"{type(self).__name__} does not define flops")

    def layer_flops(self, source: FeatureShape, target: LLMShape, *, views: int, positions: int) -> int:
        """FLOPs of what it adds inside the LLM's layers, over `positions` positions that see `views` views."""
        return 0

    def alignment_flops(self, source: FeatureShape, passes: Passes, *, text_tokens: int, pairs: int) -> dict[str, int]:
        """FLOPs of the passes over one image among `pairs` and its captions of `text_tokens`, by what is read."""
        raise AssertionError(f"{type(self).__name__} does not define alignment_flops")

    def build(self, source: FeatureShape, target: LLMShape) -> Connector:
        """The module, freshly initialised from torch's current random state. Raises ValueError on a misfit."""
        raise AssertionError(f"{type(self).__name__} does not define build")
