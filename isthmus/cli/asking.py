"""The ask command: one question about pictures, videos and sounds."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from isthmus.app.files import MOST_FRAMES, SAID, checked, file_input, frames_of, kind_of
from isthmus.cli.commands import Ask
from isthmus.data.boxes import draw_boxes, parse_boxes
from isthmus.data.frames import read_frames
from isthmus.data.images import FileImage
from isthmus.data.interleave import few_shot
from isthmus.data.question_forms import put_as, refuse_dropped
from isthmus.data.response_formats import formatted
from isthmus.data.sample import ANY_MARK, MARKS, Input, Sample, Turn, marks_of, with_turns
from isthmus.data.sources import LlavaFile
from isthmus.data.video import FileVideo, FrameMosaic
from isthmus.encoders import AudioEncoder
from isthmus.evaluate.sight import see_tiles
from isthmus.features import BranchName
from isthmus.llms import Generation
from isthmus.model import Model
from isthmus.runs import Run

MOST_EXAMPLES = 64


def ask_command(command: Ask) -> Iterator[str]:
    """The answer, and where a picture with boxes was drawn.

    Raises:
        ValueError: no such file, one that cannot be read, a kind of file that the run has no branch for, marks in the
            question that are not those of the files, boxes to be drawn on something that is no picture, or a question
            that the run would not read.
    """
    files = (command.file, *command.also)
    kinds = [kind_of(path) for path in files]
    if command.draw is not None:
        _check_drawn(command.draw, files, kinds)
    if (command.frames or command.mosaic) and "video" not in kinds and command.examples is None:
        raise ValueError(
            "--frames and --mosaic choose frames of a video, and none of the files is one. Leave them out."
        )
    words = command.question if command.answer == "free" else formatted(command.question, command.answer)
    turn = Turn(role="user", text=placed(words, ["image" if _laid(kind, command) else kind for kind in kinds]))
    run = Run(command.run)
    config = run.model_config
    inputs = [_input(path, kind, config, command) for path, kind in zip(files, kinds, strict=True)]
    sample = with_turns(Sample(id="asked", turns=()), (turn,), inputs)
    if command.examples is not None:
        sample = few_shot(_examples(command.examples, config, command.frames), sample)
    style = put_as(config.prompt, command.prompt) if command.prompt else config.prompt
    if ANY_MARK.sub("", words).strip():
        refuse_dropped(style, command.run, "leave it empty ('') for a caption")
    options = Generation(
        max_new_tokens=command.max_new_tokens, num_beams=command.num_beams, length_penalty=command.length_penalty
    )
    model = run.load_model()
    model.config = dataclasses.replace(model.config, prompt=style)
    if command.max_tiles:
        see_tiles(model, command.max_tiles)
    answer = model.answer([sample], options)[0]
    yield answer
    if command.draw is not None:
        (picture,) = (one.ref for one in inputs if isinstance(one.ref, FileImage))
        boxes = parse_boxes(f"{command.question} {answer}")
        draw_boxes(picture.load(), boxes).save(command.draw)
        yield f"{len(boxes)} {'box' if len(boxes) == 1 else 'boxes'} drawn: {command.draw}"


def placed(words: str, kinds: Sequence[BranchName]) -> str:
    """The words with a mark for each input: where the words have them, else in front.

    Raises:
        ValueError: marks that are not those of the inputs, in order.
    """
    named = {kind: mark for mark, kind in MARKS.items()}
    wanted = [named[kind] for kind in kinds]
    found = marks_of(words)
    if not found:
        return "".join(f"{mark}\n" for mark in wanted) + words
    if found != wanted:
        raise ValueError(
            f"The question holds {' '.join(found)}, and the files are {' '.join(wanted)}. Write one mark for each "
            f"file, in their order, or none: they then go in front."
        )
    return words


def _laid(kind: BranchName, command: Ask) -> bool:
    """Whether a file becomes one picture of its frames."""
    return kind == "video" and command.mosaic != 0


def _input(path: Path, kind: BranchName, config: Model, command: Ask) -> Input:
    if not _laid(kind, command):
        return file_input(path, kind, config, command.frames)
    frames = read_frames(command.frames or "uniform:8", most=MOST_FRAMES)
    video = FileVideo(root=str(path.parent), path=path.name, frames=frames)
    mosaic = FrameMosaic(video=video, columns=command.mosaic)
    mosaic.load()
    return Input("image", mosaic)


def _examples(path: Path, config: Model, frames: str) -> list[Sample]:
    checked(path)
    hears = None if config.audio is None else config.audio.encoder
    rate = hears.rate if isinstance(hears, AudioEncoder) else 16_000
    file = LlavaFile(path=str(path), root=str(path.parent), frames=frames_of(frames, config), audio_rate=rate).build()
    if len(file) > MOST_EXAMPLES:
        raise ValueError(
            f"{path} holds {len(file)} conversations, more than the {MOST_EXAMPLES} that stand as examples."
        )
    return [file[index] for index in range(len(file))]


def _check_drawn(path: Path, files: Sequence[Path], kinds: Sequence[BranchName]) -> None:
    """Raises ValueError when boxes cannot be drawn, before anything is loaded."""
    if kinds.count("image") != 1:
        said = ", ".join(f"{str(file)!r} is {SAID[kind]}" for file, kind in zip(files, kinds, strict=True))
        raise ValueError(f"--draw draws boxes on one picture, and {said}.")
    if path.suffix.lower() not in Image.registered_extensions() or not path.parent.is_dir():
        raise ValueError(f"--draw {path}: name a picture to write, such as boxes.png, in a folder that is there.")
