"""The ask command: one question about one picture, video or sound."""

import dataclasses
from collections.abc import Iterator

from isthmus.app.files import SAID, file_input, kind_of
from isthmus.cli.commands import Ask
from isthmus.data.boxes import draw_boxes, parse_boxes
from isthmus.data.images import FileImage
from isthmus.data.question_forms import drops_questions, put_as
from isthmus.data.response_formats import formatted
from isthmus.data.sample import MARKS, Sample, Turn, marks_of, with_turns
from isthmus.llms import Generation
from isthmus.runs import Run


def ask_command(command: Ask) -> Iterator[str]:
    """The answer, and where a picture with boxes was drawn.

    Raises:
        ValueError: no such file, one that cannot be read, a kind of file that the run has no branch for, a mark in the
            question, boxes to be drawn on something that is no picture, or a question that the run would not read.
    """
    for mark in marks_of(command.question):
        raise ValueError(f"Leave {mark} out of the question: the file goes in front of it by itself.")
    kind = kind_of(command.file)
    if command.draw is not None and kind != "image":
        raise ValueError(f"--draw draws boxes on a picture, and {str(command.file)!r} is {SAID[kind]}.")
    run = Run(command.run)
    one = file_input(command.file, kind, run.model_config)
    words = command.question if command.answer == "free" else formatted(command.question, command.answer)
    mark = next(mark for mark, stands in MARKS.items() if stands == kind)
    turn = Turn(role="user", text=f"{mark}\n{words}")
    options = Generation(
        max_new_tokens=command.max_new_tokens, num_beams=command.num_beams, length_penalty=command.length_penalty
    )
    sample = with_turns(Sample(id="asked", turns=()), (turn,), (one,))
    style = put_as(run.model_config.prompt, command.prompt) if command.prompt else run.model_config.prompt
    if words.strip() and drops_questions(style):
        raise ValueError(
            f"{command.run} was trained on captions alone (prompt {type(style).__name__}), so it would not read the "
            f"question. Say how to put it, --prompt 'Question: {{}} Answer:', or leave it empty ('') for a caption."
        )
    model = run.load_model()
    model.config = dataclasses.replace(model.config, prompt=style)
    answer = model.answer([sample], options)[0]
    yield answer
    if command.draw is not None:
        assert isinstance(one.ref, FileImage)
        boxes = parse_boxes(f"{command.question} {answer}")
        draw_boxes(one.ref.load(), boxes).save(command.draw)
        yield f"{len(boxes)} {'box' if len(boxes) == 1 else 'boxes'} drawn: {command.draw}"
