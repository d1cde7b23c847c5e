"""A tower that ran at another size goes out with positions of that size, and sees alone what it saw in the run."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from tiny_towers import TOWERS, save

from isthmus.encoders import VisionEncoder
from isthmus.exchange.towers import whole_tower


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", TOWERS)
def test_a_tower_of_another_size_sees_alone_what_it_saw(
    family: str, precision: Literal["float32", "bfloat16"], tmp_path: Path
) -> None:
    save(family, tmp_path)
    config = VisionEncoder(name=str(tmp_path), image_size=40, class_token=True, precision=precision)
    tower, pixels = config.build(), torch.rand(2, 3, 40, 40)
    whole = whole_tower(tower)
    with torch.no_grad():
        alone = whole(pixels.to(tower.dtype), output_hidden_states=True).hidden_states[-1]
        assert torch.equal(alone, tower(pixels).tokens)
