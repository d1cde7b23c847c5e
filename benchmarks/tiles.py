"""Time and peak memory of one image as it is cut into more and more tiles, each count in a process of its own.

    python -m benchmarks.tiles                 # the bundled eye, a 3840 x 2160 picture, 1 to 40 tiles
    python -m benchmarks.tiles --at-once 64    # all views through the tower together, for comparison
    python -m benchmarks.tiles --answer        # from a PNG file to an answer of the bundled speaker

Prints, for each number of tiles, by how much the memory held rises at most while the image is prepared, encoded and
projected, over what the model and the picture take, and the median milliseconds of processor time a view over several
runs. With `--answer` a file is read, its picture decoded and a question about it answered in eight tokens, at nine
tokens a view: memory and time hold all of that.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.peaks import forget_peak, peak_mib

COUNTS = (1, 2, 4, 8, 12, 24, 40)


def measure(tiles: int, at_once: int, name: str, side: int, repeats: int) -> None:
    """Print one row: views, visual tokens, rise of peak memory in MiB, milliseconds a view."""
    import torch
    from PIL import Image

    from isthmus.connectors import PixelShuffleConfig
    from isthmus.encoders import VisionEncoder
    from isthmus.encoders.tiles import DynamicTiles
    from isthmus.features import LLMShape

    torch.set_num_threads(1)
    encoder = VisionEncoder(
        name=name,
        image_size=side,
        views_at_once=at_once,
        tiles=DynamicTiles(min_tiles=tiles, max_tiles=tiles),
    )
    tower = encoder.build()
    target = LLMShape(embedding_width=256, hidden_width=256, num_layers=1)
    connector = PixelShuffleConfig().build(encoder.shape(), target)
    picture = Image.effect_noise((3_840, 2_160), 40).convert("RGB")
    with torch.inference_mode():
        connector(tower(torch.zeros(1, 3, side, side)))
        before = forget_peak()
        spent = []
        for _ in range(repeats):
            pixels = tower.prepare(picture).pixels
            start = time.process_time()
            visual = connector(tower(pixels))
            spent.append((time.process_time() - start) * 1_000 / len(pixels))
    rise = peak_mib() - before
    count = visual.tokens.shape[0] * visual.tokens.shape[1]
    spread = f"{min(spent):.1f} to {max(spent):.1f}"
    print(f"{tiles:5} {len(pixels):5} {count:6} {rise:9.1f} {statistics.median(spent):9.1f}  {spread}", flush=True)


def measure_answer(tiles: int, at_once: int, name: str, side: int, repeats: int) -> None:
    """Print one row, of a question about a picture that lies in a file."""
    import torch
    from PIL import Image

    from isthmus.connectors import PixelShuffleConfig
    from isthmus.data.images import FileImage
    from isthmus.data.sample import IMAGE_MARK, Sample, Turn
    from isthmus.encoders import VisionEncoder
    from isthmus.encoders.tiles import DynamicTiles
    from isthmus.llms import CausalLM, Generation
    from isthmus.model import Model, VisionLanguageModel

    torch.set_num_threads(1)
    encoder = VisionEncoder(
        name=name, image_size=side, views_at_once=at_once, tiles=DynamicTiles(min_tiles=tiles, max_tiles=tiles)
    )
    llm = CausalLM(name="bundled/speaker", max_tokens=512)
    model = VisionLanguageModel(Model(encoder=encoder, connector=PixelShuffleConfig(factor=4), llm=llm)).eval()
    turn = Turn(role="user", text=f"{IMAGE_MARK}\nWhat is in the picture?")
    with tempfile.TemporaryDirectory() as folder:
        Image.effect_noise((3_840, 2_160), 40).convert("RGB").save(Path(folder) / "large.png")
        Image.new("RGB", (side, side)).save(Path(folder) / "small.png")
        small, large = (
            Sample(id=file, turns=(turn,), images=(FileImage(root=folder, path=file),))
            for file in ("small.png", "large.png")
        )
        model.answer([small], Generation(max_new_tokens=8, min_new_tokens=8))
        before = forget_peak()
        spent = []
        for _ in range(repeats):
            start = time.process_time()
            model.answer([large], Generation(max_new_tokens=8, min_new_tokens=8))
            spent.append((time.process_time() - start) * 1_000)
    rise, plan = peak_mib() - before, encoder.plan((3_840, 2_160))
    spread = f"{min(spent):.0f} to {max(spent):.0f} ms in all"
    each = statistics.median(spent) / len(plan.views)
    tokens = model.config.num_visual_tokens(plan)
    print(f"{tiles:5} {len(plan.views):5} {tokens:6} {rise:9.1f} {each:9.1f}  {spread}", flush=True)


def main() -> None:
    """One process a row, so that peaks do not add up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int)
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--name", default="bundled/eye")
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--answer", action="store_true")
    chosen = parser.parse_args()
    if chosen.tiles is not None:
        measured = measure_answer if chosen.answer else measure
        measured(chosen.tiles, chosen.at_once, chosen.name, chosen.side, chosen.repeats)
        return
    print("tiles views tokens  peak MiB CPU ms a view  spread")
    for tiles in chosen.counts:
        subprocess.run([sys.executable, "-m", "benchmarks.tiles", *sys.argv[1:], "--tiles", str(tiles)], check=True)


if __name__ == "__main__":
    main()
