"""What every encoder is: a config that answers without weights, and a module from pixels to `Features`."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from isthmus.features import Clip, Features, FeatureShape, Grid, Plan, Sound


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One input made ready: its views as normalised pixels, its original size (width, height), and its tiles.

    Views that are clips or runs of windows have `steps`; where a step is padding its pixels are NaN.
    """

    pixels: Float[Tensor, "views *steps channels height width"]
    size: tuple[int, int]
    tiles: Grid
    whole: Literal["none", "first", "last"] = "none"


class Encoder(nn.Module):
    """A module from the pixels of views to `Features`, one row a view. `shape` is what a connector must know of it."""

    shape: FeatureShape

    def prepare(self, image: Image.Image | Clip | Sound) -> Prepared:
        """The views of one RGB image, resized and normalised as the encoder was trained; or of a clip, or a sound.

        Raises:
            ValueError: a kind of input that this encoder does not take.
        """
        raise AssertionError(f"{type(self).__name__} does not define prepare")

    def blank(self) -> Float[Tensor, "views *steps channels height width"]:
        """The pixels of an input that holds nothing, all zero: what a process without inputs shows its encoder."""
        return torch.zeros_like(self.prepare(Image.new("RGB", (32, 32))).pixels)

    def forward(self, pixels: Float[Tensor, "views *steps channels height width"]) -> Features:
        """Features of every view. Honours torch's grad mode: who trains the encoder decides, not the encoder."""
        raise AssertionError(f"{type(self).__name__} does not define forward")


@dataclass(frozen=True)
class Untiled:
    """An input that is not loaded yet and never tiled: a clip, a sound, or an image to be seen as one view.

    Its views follow from what it loads: frames of a clip, windows of a sound.
    """

    of: Any

    @property
    def key(self) -> str:
        """The content address."""
        return f"{self.of.key}|untiled"

    def load(self) -> Clip | Sound:
        """The clip or the sound; an image becomes a clip of one frame. Raises ValueError when it cannot be read."""
        loaded = self.of.load()
        return Clip(frames=(loaded,), times_s=(0.0,)) if isinstance(loaded, Image.Image) else loaded


def untiled_plan(size: tuple[int, int], rows: int, first_view: int = 0) -> Plan:
    """The plan of an input whose views are what it loaded: frames of a clip, windows of a sound, or a single one."""
    return Plan(size=size, tiles=Grid(rows, 1, 1), views=range(first_view, first_view + rows))


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

    def adapters(self) -> int:
        """Number of parameters of its adapters (LoRA); most encoders have none."""
        return 0

    def flops(self) -> int:
        """FLOPs of one forward pass over one view (one multiply-add is 2; matrix products and convolutions only)."""
        raise AssertionError(f"{type(self).__name__} does not define flops")

    def plan(self, size: tuple[int, int], first_view: int = 0) -> Plan:
        """The views of an image of this size (width, height), from the size alone; rows count from `first_view`."""
        raise AssertionError(f"{type(self).__name__} does not define plan")

    def plan_loaded(self, loaded: Image.Image | Clip | Sound, first_view: int = 0) -> Plan:
        """The views of an input that is loaded: tiles of an image by its size, one for each frame of a clip."""
        if isinstance(loaded, Clip):
            return untiled_plan(loaded.frames[0].size, len(loaded.frames), first_view)
        assert isinstance(loaded, Image.Image), "sounds are planned by AudioEncoder"
        return self.plan(loaded.size, first_view)

    def seeing_as(self, other: "EncoderConfig") -> "EncoderConfig":
        """This encoder on the views of another config: its resolution and tiles, where it has such choices."""
        return self

    def view_side(self) -> int:
        """Side of a view in pixels. 224, the commonest, where views are no squares of pixels."""
        return 224

    def tiles_several(self) -> bool:
        """Whether the images of a sample with several are tiled each; without, each is one view."""
        return True

    def most_views(self) -> int:
        """The largest number of views that an input can take."""
        return 1
