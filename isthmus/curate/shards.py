"""Files of judged captions: a shard appears whole or not at all, so a stop loses one shard at most.

A folder holds `curation.json` (choices, models), `shards/00000.jsonl` with a line a text, kept or dropped, and when all
is done `captions.jsonl`, the kept lines: `image`, `text`, `id`, and with them `score`, `rank`, `source`, `ranker`.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

CURATION_FILE, CAPTIONS_FILE, SHARDS_FOLDER = "curation.json", "captions.jsonl", "shards"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A text of an image with its score. `source`: "given", or who wrote it; `error`: why an image has no text."""

    image: str
    text: str
    source: str
    score: float
    rank: int = 0
    kept: bool = False
    error: str = ""

    def marked(self, *, kept: bool, rank: int) -> "Judged":
        """With its rank among its image's texts, and whether it is kept."""
        return replace(self, kept=kept, rank=rank)


class Shards:
    """The folder of one curation.

    Raises:
        ValueError: it holds a curation with other choices, models or images.
    """

    def __init__(self, folder: Path, told: Mapping[str, Any]) -> None:
        self.folder, self.told = folder, told
        (folder / SHARDS_FOLDER).mkdir(parents=True, exist_ok=True)
        path = folder / CURATION_FILE
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            other = sorted(key for key in {*known, *told} if known.get(key) != told.get(key))
            if other:
                raise ValueError(
                    f"{folder} holds another curation: it differs in {', '.join(other)}. Go on with the same choices, "
                    f"models and images, or choose another folder."
                )
        else:
            _write_whole(path, json.dumps(told, indent=1, ensure_ascii=False))

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / SHARDS_FOLDER / f"{number:05d}.jsonl"

    def done(self, number: int) -> bool:
        """Whether a shard was written."""
        return self.path(number).is_file()

    def write(self, number: int, judged: Sequence[Judged]) -> None:
        """Write a shard, whole."""
        _write_whole(self.path(number), "".join(_line(asdict(one)) for one in judged))

    def read(self) -> list[Judged]:
        """Every judged text of every shard, in order."""
        found: list[Judged] = []
        for path in sorted((self.folder / SHARDS_FOLDER).glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                values = json.loads(line)
                score = values.pop("score")
                found.append(Judged(**values, score=float("-inf") if score is None else float(score)))
        return found

    def join(self) -> Path:
        """Write `captions.jsonl` from all shards, and return its path."""
        lines = [
            _line(
                {
                    "id": f"{one.image}#{one.rank}",
                    "image": one.image,
                    "text": one.text,
                    "score": one.score,
                    "rank": one.rank,
                    "source": one.source,
                    "ranker": self.told["ranker"],
                }
            )
            for one in self.read()
            if one.kept
        ]
        path = self.folder / CAPTIONS_FILE
        _write_whole(path, "".join(lines))
        return path


def _line(values: Mapping[str, Any]) -> str:
    finite = {key: None if isinstance(one, float) and not math.isfinite(one) else one for key, one in values.items()}
    return json.dumps(finite, ensure_ascii=False) + "\n"


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
