"""An eye and an ear bound into one space: a picture and a sound of the same thing become nearly the same vector.

Source: ImageBind (arXiv:2305.05665), as Video-LLaMA (arXiv:2306.02858), section 2.1.2, uses it: what stands behind it
is trained on pictures and then fed sounds. Here two linear maps do it, from the mean features of an eye and of an ear.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from einops import rearrange, reduce
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from isthmus.config import fingerprint
from isthmus.encoders.audio import AudioEncoder
from isthmus.encoders.base import Encoder, EncoderConfig, Prepared, untiled_plan
from isthmus.encoders.vision import VisionEncoder
from isthmus.features import Clip, Features, FeatureShape, Grid, Plan, Sound
from isthmus.weights import folder_hash, load_safetensors, load_strict, resolve_model

MAPS = "maps.safetensors"


def _eye() -> VisionEncoder:
    return VisionEncoder(name="bundled/eye", image_size=96, layers=(-1,), class_token=False, final_norm=True)


def _ear() -> AudioEncoder:
    return AudioEncoder(name="bundled/ear", window_s=1.0, max_windows=1, pool="mean")


@dataclass(frozen=True, kw_only=True)
class BoundEncoder(EncoderConfig):
    """Which maps, and the eye and the ear that they were made for. Takes pictures and sounds, one vector each."""

    name: str = "bundled/binding"
    """A folder with `config.json` (the widths) and `maps.safetensors`; `python -m backbones.bind_ear` makes one."""
    eye: VisionEncoder = field(default_factory=_eye)
    ear: AudioEncoder = field(default_factory=_ear)

    def __post_init__(self) -> None:
        if self.ear.max_windows != 1 or self.ear.window_views:
            raise ValueError(
                f"BoundEncoder makes one vector of a sound: give it an ear with max_windows=1 and without "
                f"window_views, not max_windows={self.ear.max_windows} and window_views={self.ear.window_views}."
            )

    def shape(self) -> FeatureShape:
        """One token of the shared width."""
        return FeatureShape(width=self.widths()["width"], grid=Grid(1, 1, 1))

    def widths(self) -> dict[str, int]:
        """The shared width, the eye's and the ear's.

        Raises:
            ValueError: the folder is of other widths than the eye and the ear have.
        """
        found = json.loads((Path(resolve_model(self.name)) / "config.json").read_bytes())
        widths = {key: int(found[key]) for key in ("width", "eye", "ear")}
        own = {"eye": self.eye.shape().width, "ear": self.ear.shape().width}
        if own != {key: widths[key] for key in own}:
            raise ValueError(f"{self.name!r} binds features of {widths}, but eye and ear have {own}. Bind these two.")
        return widths

    def build(self) -> "BoundTowers":
        """Both towers with their weights, and the maps, in eval mode."""
        return BoundTowers(self)

    def fingerprint(self) -> str:
        """Eye, ear, and the content of the maps' folder."""
        own = {"eye": self.eye.fingerprint(), "ear": self.ear.fingerprint()}
        return fingerprint({**own, "maps": folder_hash(resolve_model(self.name))})

    def parameters(self) -> int:
        """Of both towers and of the maps."""
        widths = self.widths()
        maps = sum((widths[key] + 1) * widths["width"] for key in ("eye", "ear"))
        return self.eye.parameters() + self.ear.parameters() + maps

    def flops(self) -> int:
        """Of a sound, which is what it is fed."""
        widths = self.widths()
        return self.ear.flops() + 2 * widths["ear"] * widths["width"]

    def plan(self, size: tuple[int, int], first_view: int = 0) -> Plan:
        """One view."""
        return untiled_plan(size, 1, first_view)

    def view_side(self) -> int:
        """The eye's."""
        return self.eye.image_size

    def plan_loaded(self, loaded: Image.Image | Clip | Sound, first_view: int = 0) -> Plan:
        """One view."""
        if isinstance(loaded, Sound):
            return self.plan((len(loaded.samples), 1), first_view)
        return self.plan((loaded.frames[0] if isinstance(loaded, Clip) else loaded).size, first_view)


class BoundTowers(Encoder):
    """[views, 1, 1, numbers] -> `Features` of one token a view: its first number says whether it was seen or heard."""

    def __init__(self, config: BoundEncoder) -> None:
        super().__init__()
        self.config = config
        self.shape = config.shape()
        self.eye, self.ear = config.eye.build(), config.ear.build()
        widths = config.widths()
        self.maps = nn.ModuleDict({key: nn.Linear(widths[key], widths["width"]) for key in ("eye", "ear")})
        source = str(Path(resolve_model(config.name)) / MAPS)
        load_strict(self.maps, {key: value.float() for key, value in load_safetensors(source).items()}, source)
        self._shapes = {key: tower.blank().shape[1:] for key, tower in (("eye", self.eye), ("ear", self.ear))}
        self._room = max(math.prod(shape) for shape in self._shapes.values())

    def prepare(self, image: Image.Image | Clip | Sound) -> Prepared:
        """What the eye or the ear makes of it, in one row of numbers; a clip of one frame is a picture.

        Raises:
            ValueError: a clip of several frames, a picture that the eye would tile, or a sound that the ear refuses.
        """
        if isinstance(image, Clip):
            if len(image.frames) != 1:
                raise ValueError(
                    f"BoundEncoder takes a picture or a sound, and got a clip of {len(image.frames)} frames."
                )
            image = image.frames[0]
        heard = isinstance(image, Sound)
        made = (self.ear if heard else self.eye).prepare(image)
        if len(made.pixels) != 1:
            raise ValueError("BoundEncoder makes one vector of a picture: give it an eye without tiles.")
        flat = rearrange(made.pixels, "1 ... -> (...)")
        row = flat.new_zeros(1 + self._room)
        row[0] = float(heard)
        row[1 : 1 + len(flat)] = flat
        return Prepared(pixels=rearrange(row, "n -> 1 1 1 n"), size=made.size, tiles=Grid(1, 1, 1))

    def forward(self, pixels: Float[Tensor, "views channels height width"]) -> Features:
        """Vectors of length sqrt(width)."""
        rows = rearrange(pixels, "views 1 1 n -> views n")
        heard = rows[:, 0] > 0.5
        made = rows.new_zeros(len(rows), self.shape.width)
        for key, which in (("ear", heard), ("eye", ~heard)):
            if bool(which.any()):
                made[which] = self._bound(key, rows[which, 1:])
        return Features(tokens=rearrange(made, "views c -> views 1 c"), grid=Grid(1, 1, 1))

    def _bound(self, key: str, rows: Float[Tensor, "views n"]) -> Float[Tensor, "views width"]:
        shape = self._shapes[key]
        tower = self.ear if key == "ear" else self.eye
        features: Features = tower(rows[:, : math.prod(shape)].reshape(-1, *shape))
        mean = reduce(features.tokens[:, features.prefix :], "views patches c -> views c", "mean")
        made: Tensor = self.maps[key](mean)
        return nn.functional.normalize(made, dim=1) * math.sqrt(made.shape[1])
