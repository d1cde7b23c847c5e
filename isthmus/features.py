"""The values that cross rooms: what an encoder says, what a connector answers, and what the language model gets.

This module imports nothing else of Isthmus, so every room may import it. Shapes are written with jaxtyping; the tests
check them with beartype at run time.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional

BranchName = Literal["image", "video", "audio"]
"""The branches of a model: each sees one kind of input. Without a video branch, clips go through the image's."""


class Grid(NamedTuple):
    """How patch tokens lie in time and space, row-major. Sizes are carried, never recovered by `int(n ** 0.5)`."""

    frames: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Number of patch tokens: frames * rows * columns."""
        return self.frames * self.rows * self.columns


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames of a video in order, upright RGB images of one size, and when each is shown (seconds)."""

    frames: tuple[Image.Image, ...]
    times_s: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Sound:
    """One channel of a sound as numbers from -1 to 1, `rate` of them a second."""

    samples: npt.NDArray[np.float32]
    rate: int


@dataclass(frozen=True, kw_only=True)
class Features:
    """Encoder output; one row is one view: an image, a tile, a clip, a run of audio windows.

    `tokens` holds `prefix` class or register tokens, then `grid.size` patch tokens. All rows share `grid`; inputs with
    another grid go in another `Features`. `valid` marks real patches where views are padded to one length. `levels` are
    further layers (or a second encoder) on the same grid, without prefix tokens.

    Raises:
        ValueError: shapes that do not fit each other, or a `valid` that is no bool. Nothing but shapes is looked at.
    """

    tokens: Float[Tensor, "views all_tokens channels"]
    grid: Grid
    prefix: int = 0
    valid: Bool[Tensor, "views patches"] | None = None
    levels: tuple[Float[Tensor, "views patches _"], ...] = ()

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3:
            raise ValueError(
                f"Features need tokens of shape [views, tokens, channels], but {tuple(self.tokens.shape)} came. Give "
                f"every view a row, and lay its patches along one axis in the order of `grid`, row by row."
            )
        views, came, _ = self.tokens.shape
        patches = self.grid.size
        if came != self.prefix + patches:
            raise ValueError(
                f"Features with prefix={self.prefix} and grid={tuple(self.grid)} need {self.prefix + patches} tokens "
                f"a view, but {came} came. Give the grid and the prefix that the encoder really has."
            )
        valid = self.valid
        if valid is not None and (valid.shape != (views, patches) or valid.dtype != torch.bool):
            raise ValueError(
                f"Features of {views} views with {patches} patches each need a `valid` of bool and shape "
                f"{(views, patches)}, but {valid.dtype} of shape {tuple(valid.shape)} came. Give one value a patch, "
                f"true where it is real and none for prefix tokens, or leave it out where nothing is padded."
            )
        for number, level in enumerate(self.levels):
            if level.ndim != 3 or level.shape[:2] != (views, patches):
                raise ValueError(
                    f"Features of {views} views with {patches} patches each need levels of shape "
                    f"[{views}, {patches}, channels], but levels[{number}] has {tuple(level.shape)}. Give layers of "
                    f"the same views on the same grid, without class or register tokens."
                )

    @property
    def patches(self) -> Float[Tensor, "views patches channels"]:
        """The patch tokens alone, without class or register tokens."""
        return self.tokens[:, self.prefix :]

    @property
    def valid_tokens(self) -> Bool[Tensor, "views all_tokens"] | None:
        """`valid` of all tokens: prefix tokens are real; `None` where no view is padded."""
        return None if self.valid is None else functional.pad(self.valid, (self.prefix, 0), value=True)


@dataclass(frozen=True, kw_only=True)
class Text:
    """Text rows for connectors that read text, in the connector's own tokenizer. `mask` is true at real tokens.

    Raises:
        ValueError: ids that are no rows, or a mask of another shape or no bool. Nothing but shapes is looked at.
    """

    ids: Int[Tensor, "rows length"]
    mask: Bool[Tensor, "rows length"]

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.mask.shape != self.ids.shape or self.mask.dtype != torch.bool:
            raise ValueError(
                f"Text needs ids of shape [rows, length] and a mask of bool and the same shape, but ids of shape "
                f"{tuple(self.ids.shape)} and a mask of {self.mask.dtype} and shape {tuple(self.mask.shape)} came. "
                f"Give what one call of the tokenizer says with padding=True: input_ids, and attention_mask.bool()."
            )


@dataclass(frozen=True, kw_only=True)
class Captions:
    """One caption an image, row by row, in the forms that a text-reading connector is trained on.

    `contrast` is compared with images, `match` is judged together with one, `write` is written, with `targets` (ids,
    -100 where nothing is supervised; position t is predicted from those before it). `image_ids` are equal for captions
    of one image. `empty` marks captions without a word. `negatives` are captions of other images that came with the
    data, where they are not mined from the batch.
    """

    contrast: Text
    match: Text
    write: Text
    targets: Int[Tensor, "rows length"]
    image_ids: Int[Tensor, " rows"]
    empty: Bool[Tensor, " rows"]
    negatives: Text | None = None
    negatives_empty: Bool[Tensor, " rows"] | None = None


@dataclass(frozen=True)
class VisualTokens:
    """Connector output, one row a view. `levels` go to later LLM layers, `memory` to gated cross-attention."""

    tokens: Float[Tensor, "views tokens width"]
    levels: tuple[Float[Tensor, "views tokens width"], ...] = ()
    memory: Float[Tensor, "views latents inner"] | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One input's views: its size (width, height; pixels), tile grid, rows in `Features`, place of the whole image.

    `tokens` is how the connector's tokens of one view lie; the model fills it in, the encoder does not know it.
    """

    size: tuple[int, int]
    tiles: Grid
    views: range
    whole: Literal["none", "first", "last"] = "none"
    tokens: Grid | None = None
    branch: BranchName = "image"
    """Which of the model's branches sees it, in whose `Features` its rows are; the model fills it in."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """What the LLM gets: the tokens of all inputs of a batch, packed one after another; one length per input.

    `deeper[k]` is added at the visual positions before decoder layer `layers[k]`. `memory` and `owner` serve gated
    cross-attention: `owner[i]` says which input the memory row `i` belongs to.
    """

    tokens: Float[Tensor, "total width"]
    lengths: tuple[int, ...]
    deeper: tuple[Float[Tensor, "total width"], ...] = ()
    layers: tuple[int, ...] = ()
    memory: Float[Tensor, "rows latents inner"] | None = None
    owner: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FeatureShape:
    """What a connector must know of an encoder to be built. `level_widths` are the widths of `Features.levels`."""

    width: int
    grid: Grid
    prefix: int = 0
    level_widths: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LLMShape:
    """What a connector must know of a language model. Embeddings may be narrower than hidden states (OPT-350m)."""

    embedding_width: int
    hidden_width: int
    num_layers: int
