"""The recipe that watches and listens: branches for clips and sounds before one language model, all bundled."""

from dataclasses import replace

from isthmus.adapters import Lora
from isthmus.branches import Branch
from isthmus.connectors.pixel_shuffle import PixelShuffleConfig
from isthmus.data.sources import MovingThings, RealClips, Source, SpokenDigits
from isthmus.encoders.video import VideoEncoder
from isthmus.encoders.vision import VisionEncoder
from isthmus.llms.causal import CausalLM
from isthmus.recipes import sounds
from isthmus.train.stage import AdamW, Stage


def stage() -> Stage:
    """Train two branches, clips and spoken digits, before the bundled speaker with adapters, in minutes on a CPU.

    Branches for clips and sounds before one language model are Video-LLaMA's shape (arXiv:2306.02858); the rest is
    chosen here for small models and two CPU cores, and reproduces no paper. The branch for pictures is not trained.

    Sources (paper = arXiv:2306.02858, here = chosen for this recipe):
        name, start_from: here
        model: as in sounds
        model.video: paper section 2.1.1: every frame through a frozen encoder of pictures, frames joined by what is
            trained; here: four frames, and an MLP over a ninth of the picture in all of them, in place of a Q-Former
        model.llm: here: the bundled speaker, frozen, with adapters: it was trained on other texts than these sentences
        model.audio: as in sounds
        train: here: both connectors and the adapters at once
        objectives: paper: next-token prediction on the answers
        data: here: first halves of eleven clips, things of the exact world that move, spoken digits as in sounds; the
            way of a thing takes far more samples to learn than the others
        validation: here: later moments of the same clips, other things that move, further takes of the same speakers
        optimizer: here: the connector of clips is wide, and learns movement at a lower rate alone
        batch_size, steps, save_every, validate_every: here
        schedule, micro_batch_size, epochs, precision, seed: as in sounds
        log_every, cached_views: as in sounds
    """
    first = sounds.stage()
    eye = first.model.encoder
    assert isinstance(eye, VisionEncoder)
    video = Branch(encoder=VideoEncoder(tower=eye, max_frames=4), connector=PixelShuffleConfig(factor=4, frames=4))
    speaker = CausalLM(name="bundled/speaker", max_tokens=512, lora=Lora(rank=16))
    return replace(
        first,
        name="clips",
        model=replace(first.model, video=video, llm=speaker),
        train=("video.connector", "audio.connector", "llm"),
        data=(
            Source(of=RealClips(split="train"), weight=0.15),
            Source(of=MovingThings(split="train", num=1_500), weight=0.55),
            Source(of=SpokenDigits(split="train", speeds=(0.8, 0.9, 1.0, 1.1, 1.25)), weight=0.3),
        ),
        validation=(
            Source(of=RealClips(split="val", windows=4)),
            Source(of=MovingThings(split="val", num=40)),
            Source(of=SpokenDigits(split="val")),
        ),
        optimizer=AdamW(peak_lr=3e-3, rates=(("video.connector", 3e-4),)),
        batch_size=16,
        steps=1_000,
        save_every=500,
        validate_every=200,
    )
