"""Interleaved samples made of others: examples before a question, inputs moved to the front, frames as images.

Source: LLaVA-NeXT-Interleave (arXiv:2407.07895), section 3: one form for many images, frames, 3-D views and patches,
trained with a mix of two placements, all images in front of the text and images where they are spoken of. The public
code gives no wording for the references that stay in the text; `Image 1` is ours.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from isthmus.data.sample import (
    ANY_MARK,
    IMAGE_MARK,
    MARKS,
    VIDEO_MARK,
    ImageRef,
    Input,
    Sample,
    Turn,
    marks_of,
    with_turns,
)
from isthmus.data.video import FileVideo, FrameMosaic, VideoFrame

NAMES = {"image": "Image", "video": "Video", "audio": "Sound"}
_VIDEO = re.compile(re.escape(VIDEO_MARK))


def few_shot(examples: Sequence[Sample], asked: Sample) -> Sample:
    """The question after whole examples, each with its own images, videos and sounds, as earlier turns of one chat.

    Raises:
        ValueError: an example without an answer, or with a system turn (the question's own may stand first).
    """
    for example in examples:
        if not example.turns or example.turns[-1].role != "assistant":
            raise ValueError(f"Example {example.id!r} ends without an answer, so nothing can be learned from it.")
        if any(turn.role == "system" for turn in example.turns):
            raise ValueError(f"Example {example.id!r} has a system turn. Only the question may have one.")
    opening = tuple(turn for turn in asked.turns if turn.role == "system")
    rest = tuple(turn for turn in asked.turns if turn.role != "system")
    if any(marks_of(turn.text) for turn in opening):
        raise ValueError(f"The system turn of {asked.id!r} holds images, videos or sounds. Put them into the question.")
    turns = (*opening, *(turn for example in examples for turn in example.turns), *rest)
    inputs = [one for sample in (*examples, asked) for one in sample.inputs]
    return with_turns(asked, turns, inputs)


def in_front(sample: Sample, *, refer: bool = True) -> Sample:
    """All inputs before the text of the first user turn, in their order.

    With `refer` and more than one input, each is named there (`Image 1: <image>`), and its name stays where it stood.
    A sample without a user turn is left as it is.
    """
    users = [index for index, turn in enumerate(sample.turns) if turn.role == "user"]
    inputs = sample.inputs
    if not users or not inputs:
        return sample
    named = refer and len(inputs) > 1
    numbers = list(_names(inputs))
    marks = [mark for turn in sample.turns for mark in marks_of(turn.text)]
    front = "".join(f"{name}: {mark}\n" if named else f"{mark}\n" for name, mark in zip(numbers, marks, strict=True))
    standing = iter(numbers)
    turns = [
        replace(turn, text=ANY_MARK.sub(lambda _: next(standing) if named else "", turn.text).strip())
        for turn in sample.turns
    ]
    first = users[0]
    turns[first] = replace(turns[first], text=front + turns[first].text)
    return with_turns(sample, tuple(turns), inputs)


def frames_as_images(sample: Sample) -> Sample:
    """Every video as a row of images, one mark a frame, so that a model of images reads it as a list in time.

    No frame is decoded: a file that is broken shows when its images are loaded.

    Raises:
        ValueError: a video that is no file, or one whose frames cannot be counted.
    """
    inputs: list[Input] = []
    counts: list[int] = []
    for kind, ref in sample.inputs:
        if kind != "video":
            inputs.append(Input(kind, ref))
            continue
        video = _file(sample, ref)
        counts.append(video.num_frames())
        inputs += [Input("image", VideoFrame(video=video, number=number)) for number in range(counts[-1])]
    standing = iter(counts)
    turns = tuple(
        replace(turn, text=_VIDEO.sub(lambda _: IMAGE_MARK * next(standing), turn.text)) for turn in sample.turns
    )
    return with_turns(sample, turns, inputs)


def videos_as_mosaics(sample: Sample, columns: int) -> Sample:
    """Every video as one image of its frames, row by row, so that tiles cut it into its frames (DeepStack).

    Raises:
        ValueError: a video that is no file.
    """
    inputs = [
        Input("image", FrameMosaic(video=_file(sample, ref), columns=columns)) if kind == "video" else Input(kind, ref)
        for kind, ref in sample.inputs
    ]
    turns = tuple(replace(turn, text=_VIDEO.sub(IMAGE_MARK, turn.text)) for turn in sample.turns)
    return with_turns(sample, turns, inputs)


def scene_views(sample_id: str, views: Sequence[ImageRef], question: str, answer: str | None = None) -> Sample:
    """Several views of one 3-D scene, in order, before a question about the scene."""
    asked = Turn(role="user", text=f"{IMAGE_MARK}\n" * len(views) + question)
    turns = (asked,) if answer is None else (asked, Turn(role="assistant", text=answer))
    return Sample(id=sample_id, turns=turns, images=tuple(views))


def _names(inputs: Sequence[Input]) -> list[str]:
    """`Image 1`, `Image 2`, `Video 1`, ... in order; each kind is counted by itself."""
    kinds = [kind for kind, _ in inputs]
    counted = {kind: list(accumulate(int(one == kind) for one in kinds)) for kind in MARKS.values()}
    return [f"{NAMES[kind]} {counted[kind][place]}" for place, kind in enumerate(kinds)]


def _file(sample: Sample, ref: object) -> FileVideo:
    if not isinstance(ref, FileVideo):
        raise ValueError(f"Sample {sample.id!r}: only video files are taken apart into frames, not {type(ref)}.")
    return ref
