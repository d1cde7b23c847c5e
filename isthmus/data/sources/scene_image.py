"""A scene of the exact world as an image that is not loaded yet."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import PIL
from PIL import Image

from isthmus.data.images import content_key
from isthmus.data.sources.world import Scene, render


@lru_cache(maxsize=1)
def _renderer() -> str:
    """Changes whenever the drawing code or Pillow does, so that a key never names other pixels."""
    folder = Path(__file__).parent / "world"
    parts = [path.read_bytes() for path in sorted(folder.glob("*.py"))]
    return content_key(b"\x1f".join([PIL.__version__.encode(), *parts]))


@dataclass(frozen=True, kw_only=True)
class SceneImage:
    """A scene of the exact world, rendered at `size` x `size` pixels each time it is loaded."""

    scene: Scene
    size: int

    @cached_property
    def key(self) -> str:
        """The hash of the whole scene, the size and the drawing code."""
        return content_key(f"{_renderer()} {self.size} {self.scene!r}".encode())

    def load(self) -> Image.Image:
        """The rendered picture."""
        return render(self.scene, self.size)
