"""The ask command: one question about pictures, videos and sounds."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image

from isthmus.app.files import SAID, Videos, file_input, kind_of, read_examples, with_marks
from isthmus.cli.commands import Ask
from isthmus.data.boxes import draw_boxes, parse_boxes
from isthmus.data.images import FileImage
from isthmus.data.interleave import few_shot
from isthmus.data.prompts import PromptStyle
from isthmus.data.question_forms import put_as, refuse_dropped
from isthmus.data.response_formats import formatted
from isthmus.data.sample import ANY_MARK, Sample, Turn, with_turns
from isthmus.evaluate.sight import see_tiles
from isthmus.features import BranchName
from isthmus.llms import Generation
from isthmus.model import VisionLanguageModel
from isthmus.runs import Run


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
    videos = Videos(frames=command.frames, mosaic=command.mosaic)
    turn = Turn(role="user", text=with_marks(words, [videos.shown_as(kind) for kind in kinds]))
    run = Run(command.run)
    config = run.model_config
    inputs = [file_input(path, kind, config, videos) for path, kind in zip(files, kinds, strict=True)]
    sample = with_turns(Sample(id="asked", turns=()), (turn,), inputs)
    if command.examples is not None:
        sample = few_shot(read_examples(command.examples, config, videos), sample)
    style = put_as(config.prompt, command.prompt) if command.prompt else config.prompt
    if ANY_MARK.sub("", words).strip():
        refuse_dropped(style, command.run, "leave it empty ('') for a caption")
    options = Generation(
        max_new_tokens=command.max_new_tokens,
        min_new_tokens=command.min_new_tokens,
        num_beams=command.num_beams,
        length_penalty=command.length_penalty,
    )
    model = asked_model(run, style, command.max_tiles)
    answer = model.answer([sample], options)[0]
    yield answer
    if command.draw is not None:
        (picture,) = (one.ref for one in inputs if isinstance(one.ref, FileImage))
        boxes = parse_boxes(f"{command.question} {answer}")
        draw_boxes(picture.load(), boxes).save(command.draw)
        yield f"{len(boxes)} {'box' if len(boxes) == 1 else 'boxes'} drawn: {command.draw}"


def asked_model(run: Run, style: PromptStyle, max_tiles: int) -> VisionLanguageModel:
    """A run's model that is asked in this style, with pictures in up to `max_tiles` tiles where that is above 0.

    Raises:
        ValueError: the run's weights do not fit its model, or tiles that it does not take.
    """
    model = run.load_model("cuda" if torch.cuda.is_available() else "cpu")
    model.config = dataclasses.replace(model.config, prompt=style)
    if max_tiles:
        see_tiles(model, max_tiles)
    return model


def _check_drawn(path: Path, files: Sequence[Path], kinds: Sequence[BranchName]) -> None:
    """Raises ValueError when boxes cannot be drawn, before anything is loaded."""
    if kinds.count("image") != 1:
        said = ", ".join(f"{str(file)!r} is {SAID[kind]}" for file, kind in zip(files, kinds, strict=True))
        raise ValueError(f"--draw draws boxes on one picture, and {said}.")
    if path.suffix.lower() not in Image.registered_extensions() or not path.parent.is_dir():
        raise ValueError(f"--draw {path}: name a picture to write, such as boxes.png, in a folder that is there.")
