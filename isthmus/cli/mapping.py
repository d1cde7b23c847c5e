"""The atlas command: where the visual tokens of one picture were read, drawn on the picture."""

from collections.abc import Iterator

import torch
from PIL import Image

from isthmus.app.files import file_input, kind_of
from isthmus.cli.commands import Atlas
from isthmus.data.sample import IMAGE_MARK, Sample, Turn, marks_of, with_turns
from isthmus.measure.atlas import atlas, draw
from isthmus.runs import Run


def atlas_command(command: Atlas) -> Iterator[str]:
    """Draw the atlas and say what it shows.

    Raises:
        ValueError: no run, a file that is no picture, a place that no picture can be written to, or nothing to draw.
    """
    if command.num < 1:
        raise ValueError(f"--num {command.num} draws nothing: give 1 or more.")
    if command.out.suffix.lower() not in Image.registered_extensions() or not command.out.parent.is_dir():
        raise ValueError(f"--out {command.out}: name a picture to write, such as atlas.png, in a folder that is there.")
    for mark in marks_of(command.question):
        raise ValueError(f"Leave {mark} out of the question: the picture goes in front of it by itself.")
    if (kind := kind_of(command.file)) != "image":
        raise ValueError(f"{command.file} is no picture but {kind}: an atlas is of a picture.")
    run = Run(command.run)
    picture = file_input(command.file, kind, run.model_config)
    model = run.load_model("cuda" if torch.cuda.is_available() else "cpu")
    turn = Turn(role="user", text=f"{IMAGE_MARK}\n{command.question}")
    found = atlas(model, with_turns(Sample(id=command.file.name, turns=()), (turn,), (picture,)))
    views, tokens, patches = found.maps.shape
    draw(found, command.num).save(command.out)
    read = "attention, the mean over heads and layers" if found.kind == "attention" else "gradient of each token"
    yield f"{tokens} tokens a view, {views} {'view' if views == 1 else 'views'} ({read}). Drawn: {command.out}"
    yield (
        f"A token looks at {found.patches_seen:.1f} of {patches} patches (exp of the entropy); two tokens look at the "
        f"same places by {found.likeness:.2f} (mean cosine, 1 is all alike)."
    )
