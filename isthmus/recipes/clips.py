"""The recipe that watches and listens: branches for clips and sounds before one frozen language model, all bundled."""

from dataclasses import replace

from isthmus.branches import Branch
from isthmus.connectors.average_pool import AveragePoolConfig
from isthmus.data.sources import MovingThings, RealClips, Source, SpokenDigits
from isthmus.encoders.video import VideoEncoder
from isthmus.encoders.vision import VisionEncoder
from isthmus.recipes import sounds
from isthmus.train.stage import AdamW, Stage


def stage() -> Stage:
    """Train two branches, clips and spoken digits, before the bundled speaker, in minutes on a CPU."""
    first = sounds.stage()
    eye = first.model.encoder
    assert isinstance(eye, VisionEncoder)
    clips = Branch(encoder=VideoEncoder(tower=eye, max_frames=4), connector=AveragePoolConfig(side=4, depth=2))
    return replace(
        first,
        name="clips",
        model=replace(first.model, video=clips),
        train=("video.connector", "audio.connector"),
        data=(
            Source(of=RealClips(split="train"), weight=0.3),
            Source(of=MovingThings(split="train"), weight=0.3),
            Source(of=SpokenDigits(split="train", speeds=(0.8, 0.9, 1.0, 1.1, 1.25)), weight=0.4),
        ),
        validation=(
            Source(of=RealClips(split="val", windows=4)),
            Source(of=SpokenDigits(split="val")),
        ),
        optimizer=AdamW(peak_lr=2e-3),
    )
