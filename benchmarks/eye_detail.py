"""How small a thing may be in a view before the bundled eye no longer tells which it is, by linear probes.

Every picture is one view of the eye (96 px) with one digit, one capital or one shape, of a given height in pixels, at a
random place on a random background. A logistic probe reads the mean of the features of the patches that it covers.

python benchmarks/eye_detail.py
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isthmus.data.sources.world import COLOURS, RGB, SHAPES, Background, Box, Item, Scene, Writing, render
from isthmus.data.sources.world.backgrounds import draw_background
from isthmus.data.sources.world.fonts import FONTS, ink_size
from isthmus.encoders.base import Encoder
from isthmus.encoders.vision import VisionEncoder

SIDE, PATCH = 96, 8
KINDS: dict[str, tuple[str, ...]] = {
    "digit": tuple("0123456789"),
    "capital": tuple("ABCDEFGHIJ"),
    "shape": SHAPES,
    "colour": COLOURS,
}
LAYERS = (-1, -3, -5)
CELLS = ",".join(f"{kind}:{px}" for kind in ("digit", "capital", "shape", "colour") for px in (4, 6, 8, 12, 16, 24, 36))


def scene_of(kind: str, value: int, px: float, rng: random.Random, background: Background) -> Scene:
    """One thing `px` pixels high somewhere in a view."""
    wide, high = px / SIDE, px / SIDE
    font = rng.choice(tuple(FONTS))
    if kind in ("digit", "capital"):
        wide, high = (length * px / SIDE for length in ink_size(KINDS[kind][value], font))
    x, y = rng.uniform(0.02, 0.98 - wide), rng.uniform(0.02, 0.98 - high)
    box = (x, y, x + wide, y + high)
    items: tuple[Item, ...] = ()
    writings: tuple[Writing, ...] = ()
    if kind in ("digit", "capital"):
        text = KINDS[kind][value]
        writings = (
            Writing(
                text=text, font=font, cell=4, cells=(4,), glyph_height=px / SIDE, box=box, plate=rng.random() < 0.5
            ),
        )
    else:
        shape = SHAPES[value] if kind == "shape" else rng.choice(SHAPES)
        colour = COLOURS[value] if kind == "colour" else rng.choice(COLOURS)
        items = (Item(shape=shape, colour=colour, size="small", cell=4, box=box, rgb=RGB[colour]),)
    return Scene(
        seed=0, split="train", background=background, items=items, writings=writings, chart=None, distractors=()
    )


def box_of(scene: Scene) -> Box:
    """Where its one thing is."""
    return scene.items[0].box if scene.items else scene.writings[0].box


def covered(box: Sequence[float]) -> list[int]:
    """The patches that a box touches, row by row."""
    side = SIDE // PATCH
    first = [math.floor(edge * side) for edge in box[:2]]
    last = [min(side - 1, math.ceil(edge * side) - 1) for edge in box[2:]]
    return [row * side + column for row in range(first[1], last[1] + 1) for column in range(first[0], last[0] + 1)]


def probe(features: Tensor, labels: Tensor, classes: int, held_out: int) -> float:
    """Accuracy of a logistic probe on the last `held_out` rows."""
    mean, spread = features[:-held_out].mean(0), features[:-held_out].std(0) + 1e-4
    rows = (features - mean) / spread
    layer = nn.Linear(rows.shape[1], classes)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(layer(rows[:-held_out]), labels[:-held_out])
        value = value + 3e-3 * layer.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        right = layer(rows[-held_out:]).argmax(1) == labels[-held_out:]
    return float(right.float().mean())


def measured(eye: Encoder, kind: str, px: float, pictures: int) -> list[float]:
    """Accuracy of a probe on every layer."""
    rng = random.Random(f"{kind} {px}")
    found: list[list[Tensor]] = [[] for _ in LAYERS]
    labels: list[int] = []
    for start in range(0, pictures, 24):
        values = [rng.randrange(len(KINDS[kind])) for _ in range(min(24, pictures - start))]
        scenes = [scene_of(kind, value, px, rng, draw_background(rng)) for value in values]
        labels += values
        with torch.inference_mode():
            seen = eye(torch.cat([eye.prepare(render(scene, SIDE)).pixels for scene in scenes]))
        for layer, states in enumerate((seen.tokens, *seen.levels)):
            for row, scene in enumerate(scenes):
                found[layer].append(states[row, covered(box_of(scene))].mean(0))
    rows = (torch.stack(part).clone() for part in found)
    return [probe(one, torch.tensor(labels), len(KINDS[kind]), pictures // 4) for one in rows]


def main() -> None:
    """Print accuracy by kind, height and layer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1_200, help="pictures of each kind and height")
    parser.add_argument("--cells", default=CELLS, help="kind:height,... with heights in pixels of a 96 px view")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = VisionEncoder(name="bundled/eye", image_size=SIDE, layers=LAYERS, final_norm=True)
    eye = config.build().eval()
    print(f"{'kind':10}{'px':>5}  " + "".join(f"layer {layer:<4}" for layer in LAYERS) + " chance")
    for cell in args.cells.split(","):
        kind, px = cell.split(":")
        told = measured(eye, kind, float(px), args.pictures)
        print(
            f"{kind:10}{px:>5}  " + "".join(f"{one:<10.3f}" for one in told) + f" {1 / len(KINDS[kind]):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
