"""Loss curves as small pictures: `python -m backbones.plot_losses LOG.jsonl OUT.png NAME [NAME ...]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def in_one_row(records: list[dict[str, float]]) -> list[dict[str, float]]:
    """The records of one log or of several behind one another: where steps begin again, they are counted on."""
    before, last = 0.0, 0.0
    counted = []
    for record in records:
        if record["step"] < last:
            before += last
        last = record["step"]
        counted.append({**record, "step": before + last})
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="+", help="values of the log, one curve each")
    args = parser.parse_args()
    records = in_one_row([json.loads(line) for line in args.log.read_text().splitlines()])
    figure, axes = plt.subplots(figsize=(6, 3.2), dpi=90)
    for name in args.names:
        points = [(record["step"], record[name]) for record in records if name in record]
        axes.plot([step for step, _ in points], [value for _, value in points], label=name, linewidth=1.2)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(args.out)


if __name__ == "__main__":
    main()
