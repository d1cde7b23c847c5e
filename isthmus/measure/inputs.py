"""What stands in the prompt whose cost is asked: pictures of one size, videos by their frames, sounds."""

from dataclasses import dataclass, replace

from PIL import Image

from isthmus.encoders import EncoderConfig, VideoEncoder
from isthmus.encoders.base import untiled_plan
from isthmus.features import BranchName, Clip, Plan
from isthmus.model import Model


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """How many inputs of each kind a prompt holds.

    Raises:
        ValueError: a number below 0, or a video without a frame.
    """

    images: int = 1
    frames: tuple[int, ...] = ()
    """The frames of each video."""
    sounds: int = 0
    """Each as long as the encoder hears."""

    def __post_init__(self) -> None:
        if self.images < 0 or self.sounds < 0 or min(self.frames, default=1) < 1:
            raise ValueError(
                f"A prompt holds 0 or more images and sounds, and videos of 1 frame or more, got images={self.images}, "
                f"frames={self.frames}, sounds={self.sounds}."
            )

    def named(self, size: tuple[int, int] | None) -> str:
        """In words, with the size of the pictures where it is known."""
        some = []
        if self.images:
            some.append(_several(self.images, "image") + ("" if size is None else f" of {size[0]} x {size[1]} px"))
        if self.frames:
            counts = " and ".join(map(str, self.frames))
            some.append(f"{_several(len(self.frames), 'video')} of {counts} frame{'s' * (self.frames != (1,))}")
        if self.sounds:
            some.append(_several(self.sounds, "sound"))
        return ", ".join(some) or "text alone"


ONE_IMAGE = Inputs()


def input_plans(model: Model, size: tuple[int, int], inputs: Inputs) -> list[Plan]:
    """A plan of every input: M of a prompt is the positions that these take together.

    A picture has the views of its tiles, or one where the encoder does not tile several; a video without a branch of
    its own has a view for each frame.

    Raises:
        ValueError: sounds and no audio branch, or more frames than an encoder of clips takes.
    """
    image = untiled_plan(size, 1) if inputs.images > 1 and not model.encoder.tiles_several() else None
    plans = [image or model.encoder.plan(size)] * inputs.images
    seer = model.encoder if model.video is None else model.video.encoder
    branch: BranchName = "image" if model.video is None else "video"
    plans += [_of(branch, _video_plan(seer, size, frames)) for frames in inputs.frames]
    if inputs.sounds and model.audio is None:
        raise ValueError(
            f"{_several(inputs.sounds, 'sound')} cannot stand in this prompt: the model has no audio branch, such as "
            f"Model(audio=Branch(encoder=AudioEncoder(...), ...))."
        )
    if model.audio is not None:
        plans += [_of("audio", untiled_plan((1, 1), model.audio.encoder.most_views()))] * inputs.sounds
    return plans


def _video_plan(encoder: EncoderConfig, size: tuple[int, int], frames: int) -> Plan:
    if isinstance(encoder, VideoEncoder) and frames > encoder.max_frames:
        raise ValueError(
            f"A video of {frames} frames came to an encoder that takes clips of {encoder.max_frames} at most. Ask for "
            f"fewer frames, or set max_frames of the encoder."
        )
    blank = Clip(frames=(Image.new("1", size),) * frames, times_s=(0.0,) * frames)
    return encoder.plan_loaded(blank)


def _of(branch: BranchName, plan: Plan) -> Plan:
    return replace(plan, branch=branch)


def _several(count: int, kind: str) -> str:
    article = "an" if kind[0] in "aeiou" else "a"
    return f"{article} {kind}" if count == 1 else f"{count} {kind}s"
