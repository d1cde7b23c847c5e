"""Pack the bundled sample of real images: textbook figures and NLVR boxes, scaled down, with texts and credits.

    python -m backbones.pack_real --data ../shared/data --into isthmus/bundled

The two packed folders are what `isthmus.data.sources` reads. The output depends on the input and on Pillow alone.
"""

import argparse
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from isthmus.data.sources.nlvr import ORDERS
from isthmus.data.sources.packed import Row, write_packed
from isthmus.data.sources.wordings import clear_kind

SIDE = 128
SIDE_WITH_QUESTIONS = 192
QUALITY = 58
DESCRIPTION_CHARS = 280
COLOURS = {"yellow": "yellow", "black": "black", "#0099ff": "blue"}


def read_lines(path: Path) -> list[Row]:
    """The objects of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def clipped(description: str, short: str) -> str:
    """Whole sentences of the description within `DESCRIPTION_CHARS`, the first one always."""
    text = short
    for sentence in re.split(r"(?<=[.!?”])\s+", description[len(short) :].strip()):
        if not sentence or len(text) + 1 + len(sentence) > DESCRIPTION_CHARS:
            break
        text = f"{text} {sentence}"
    return text


def small_webp(path: Path, side: int) -> bytes:
    """The image with this longest side at most, as WebP."""
    image = Image.open(path).convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY, method=6)
    return out.getvalue()


def exact_webp(path: Path) -> bytes:
    """The image as WebP, with every pixel as it was."""
    out = io.BytesIO()
    Image.open(path).convert("RGB").save(out, "WEBP", lossless=True, quality=90, method=5, exact=True)
    return out.getvalue()


def pack_textbook(source: Path, folder: Path, num_train: int) -> None:
    """All val and test figures, and of train those with questions or a clear kind first, then others."""
    packed: list[tuple[Row, bytes]] = []
    for split in ("train", "val", "test"):
        asked: dict[str, list[Row]] = {}
        for row in read_lines(source / f"figure_qa_{split}.jsonl"):
            asked.setdefault(row["image_id"], []).append({name: row[name] for name in ("task", "question", "answers")})
        rows = read_lines(source / f"{split}.jsonl")
        random.Random(f"textbook {split}").shuffle(rows)
        if split == "train":
            rows.sort(key=lambda row: (row["id"] not in asked) + (not clear_kind(row["kind"], row["type"])))
            rows = rows[:num_train]
        for row in rows:
            side = SIDE_WITH_QUESTIONS if row["id"] in asked else SIDE
            packed.append((textbook_row(row, split, asked.get(row["id"], [])), small_webp(source / row["image"], side)))
    write_packed(folder, packed)


def textbook_row(row: Row, split: str, questions: list[Row]) -> Row:
    """What the library and the licence need of one figure."""
    assert row["description"].startswith(row["short"])
    return {
        "id": row["id"],
        "split": split,
        "kind": row["kind"],
        "type": row["type"],
        "book": row["book"],
        "short_chars": len(row["short"]),
        "description": clipped(row["description"], row["short"]),
        "credit": row["credit"],
        "source_path": row["source_path"],
        "questions": questions,
    }


def pack_nlvr(source: Path, folder: Path) -> None:
    """Permutation 0 of every example; the others are the same three boxes in another order."""
    dev, public = (read_lines(source / f"official_{part}.jsonl") for part in ("dev", "test"))
    groups = sorted({group(row) for row in public})
    random.Random("nlvr halves").shuffle(groups)
    val = set(groups[: len(groups) // 2])
    splits: dict[str, list[Row]] = {
        "train": dev,
        "val": [row for row in public if group(row) in val],
        "test": [row for row in public if group(row) not in val],
    }
    packed: list[tuple[Row, bytes]] = []
    for split, rows in splits.items():
        for row in rows:
            check_orders(source, row)
            packed.append((nlvr_row(row, split), exact_webp(source / row["images"][0])))
    write_packed(folder, packed)


def group(row: Row) -> str:
    """The number before the dash: sentences about one set of boxes."""
    return str(row["id"].split("-")[1])


def check_orders(source: Path, row: Row) -> None:
    """Each published permutation shows the boxes of permutation 0 in its order, but for four pixels a box at most.

    (The published pictures were each drawn anew: in 287 of 1,979 examples an edge pixel or two falls differently.)
    """
    pixels = [np.asarray(Image.open(source / name).convert("RGB")) for name in row["images"]]
    for order, permuted in zip(ORDERS, pixels, strict=True):
        for place, box in enumerate(order):
            wanted = pixels[0][:, 150 * box : 150 * box + 100]
            came = permuted[:, 150 * place : 150 * place + 100]
            assert (wanted != came).any(axis=-1).sum() <= 4, (row["id"], order)


def nlvr_row(row: Row, split: str) -> Row:
    """Sentence, label and objects (x, y, shape, colour, side) of one example."""
    boxes = [
        [[item["x"], item["y"], item["type"], COLOURS[item["color"].lower()], item["size"]] for item in box]
        for box in row["boxes"]
    ]
    return {
        "id": row["id"],
        "split": split,
        "sentence": row["sentence"],
        "label": row["label"],
        "boxes": boxes,
    }


def main() -> None:
    """Pack both folders and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds textbook_figures and nlvr")
    parser.add_argument("--into", type=Path, required=True, help="the folder that gets textbook/ and nlvr/")
    parser.add_argument("--num-train", type=int, default=2500, help="textbook figures of the train split")
    args = parser.parse_args()
    steps: tuple[tuple[str, Callable[[Path], None]], ...] = (
        ("nlvr", lambda folder: pack_nlvr(args.data / "nlvr", folder)),
        ("textbook", lambda folder: pack_textbook(args.data / "textbook_figures", folder, args.num_train)),
    )
    for name, step in steps:
        step(args.into / name)
        size = sum(path.stat().st_size for path in (args.into / name).iterdir())
        print(f"{name}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
