"""What every encoder is: a config that answers without weights, and a module from pixels to `Features`."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from isthmus.features import Features, FeatureShape, Grid, Plan


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One image made ready: its views as normalised pixels, its original size (width, height), and its tiles."""

    pixels: Float[Tensor, "views 3 height width"]
    size: tuple[int, int]
    tiles: Grid
    whole: Literal["none", "first", "last"] = "none"


class Encoder(nn.Module):
    """A module from the pixels of views to `Features`, one row a view. `shape` is what a connector must know of it."""

    shape: FeatureShape

    def prepare(self, image: Image.Image) -> Prepared:
        """The views of one RGB image, resized and normalised as the encoder was trained."""
        raise AssertionError(f"{type(self).__name__} does not define prepare")

    def forward(self, pixels: Float[Tensor, "views 3 height width"]) -> Features:
        """Features of every view. Honours torch's grad mode: who trains the encoder decides, not the encoder."""
        raise AssertionError(f"{type(self).__name__} does not define forward")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Choices only. All but `build` and `fingerprint` read no more than the model's config file."""

    def shape(self) -> FeatureShape:
        """Width, patch grid and prefix tokens of the features of one view."""
        raise AssertionError(f"{type(self).__name__} does not define shape")

    def build(self) -> Encoder:
        """The module with its pretrained weights, in eval mode. Raises ValueError when the model cannot be used."""
        raise AssertionError(f"{type(self).__name__} does not define build")

    def fingerprint(self) -> str:
        """Changes whenever the features of an image could: it covers this config and the content of the weights."""
        raise AssertionError(f"{type(self).__name__} does not define fingerprint")

    def parameters(self) -> int:
        """Number of parameters of the part that is run."""
        raise AssertionError(f"{type(self).__name__} does not define parameters")

    def flops(self) -> int:
        """FLOPs of one forward pass over one view (one multiply-add is 2; matrix products and convolutions only)."""
        raise AssertionError(f"{type(self).__name__} does not define flops")

    def plan(self, size: tuple[int, int], first_view: int = 0) -> Plan:
        """The views of an image of this size (width, height), from the size alone; rows count from `first_view`."""
        raise AssertionError(f"{type(self).__name__} does not define plan")

    def seeing_as(self, other: "EncoderConfig") -> "EncoderConfig":
        """This encoder on the views of another config: its resolution and tiles, where it has such choices."""
        return self

    def most_views(self) -> int:
        """The largest number of views that an input can take."""
        return 1
