"""Reads the oracle files: numbers of public implementations at tiny sizes (see oracles/data/README.md)."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(os.environ.get("ISTHMUS_ORACLES", Path(__file__).parent / "oracles" / "data"))


def oracle(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and what the json beside them says of the run."""
    return load_file(FOLDER / f"{name}.safetensors"), json.loads((FOLDER / f"{name}.json").read_text())["config"]


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, named without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
