"""A chain's curves, and the first answers of its last stage under their pictures, as one small picture.

`python -m benchmarks.picture_chain runs/blip2/tiny/001 OUT.png`, after the chain's figures were stated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from isthmus.data.sample import Sample
from isthmus.evaluate.benchmarks import BENCHMARKS
from isthmus.runs import Run
from isthmus.train.chain import read_chain

LOSSES = ("itc", "itm", "itg", "loss")
ACROSS = 6


def lines(path: Path) -> list[dict[str, Any]]:
    """Every line of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def first_of_each_scene(answers: list[dict[str, Any]], num: int) -> list[dict[str, Any]]:
    """The first answer about each of the first scenes, families in turn."""
    families = sorted({one["family"] for one in answers})
    chosen: dict[str, dict[str, Any]] = {}
    for one in sorted(answers, key=lambda one: str(one["item"])):
        if one["group"] not in chosen and one["family"] == families[len(chosen) % len(families)]:
            chosen[one["group"]] = one
    return list(chosen.values())[:num]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    chain = read_chain(args.folder)
    runs = [Run(place) for place in chain.folders(args.folder)]
    figure, axes = plt.subplots(2, ACROSS, figsize=(10, 4.6), dpi=80, gridspec_kw={"height_ratios": (1.3, 1)})
    for one in axes[0]:
        one.remove()
    grid = figure.add_gridspec(2, len(runs), height_ratios=(1.3, 1))
    for number, run in enumerate(runs):
        panel = figure.add_subplot(grid[0, number])
        for name in (*LOSSES, "validation_loss"):
            points = [(line["step"], line[name]) for line in run.log() if name in line]
            if points:
                panel.plot(*zip(*points, strict=True), label=name, linewidth=1.1, marker="." if "_" in name else "")
        panel.set_title(run.folder.name, fontsize=9)
        panel.set_xlabel("step", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    answers = lines(runs[-1].folder / "report" / "answers-none.jsonl")
    asked: dict[str, Sample] = {
        item.id: item
        for family in {str(one["family"]) for one in answers}
        for item in BENCHMARKS[family].items("test", chain.items_per_task)
    }
    for place, one in zip(axes[1], first_of_each_scene(answers, ACROSS), strict=True):
        place.imshow(asked[one["item"]].images[0].load())
        question = one["prompt"].split("Question: ")[-1].split(" Answer:")[0]
        half = question.rfind(" ", 0, 30) if len(question) > 30 else len(question)
        told = f"{question[:half]}\n{question[half:].strip()}\n"
        colour = "green" if one["score"] == 1.0 else "firebrick"
        place.set_title(told + f"{one['prediction']} ({one['answers'][0]})", fontsize=7, color=colour)
        place.axis("off")
    figure.tight_layout()
    figure.savefig(args.out)


if __name__ == "__main__":
    main()
