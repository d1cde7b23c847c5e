"""What a finished run tells its user to ask is something that it was trained for."""

from pathlib import Path

import pytest

from isthmus.cli.stages import how_to_ask
from isthmus.recipes import RECIPES


@pytest.mark.parametrize(
    ("recipe", "file"),
    [
        ("quickstart", "image.jpg"),
        ("sounds", "image.jpg"),
        ("clips", "clip.mp4"),
        ("video-llama/tiny-audio-sounds", "sound.wav"),
    ],
)
def test_the_input_has_a_trained_connector(recipe: str, file: str) -> None:
    said = how_to_ask(RECIPES[recipe].make(), Path("runs/one"))
    assert said.startswith(f"Ask it: isthmus ask runs/one {file} ")
