"""The recipe that hears: a branch for sounds and one for pictures before one frozen language model, all bundled."""

from dataclasses import replace

from isthmus.branches import Branch
from isthmus.connectors.mlp import MlpConfig
from isthmus.data.sources import Source, SpokenDigits, WorldChat
from isthmus.encoders.audio import AudioEncoder
from isthmus.recipes import quickstart
from isthmus.train.stage import AdamW, Stage


def stage() -> Stage:
    """Train two branches, pictures and spoken digits, before the bundled speaker, in minutes on a CPU.

    Branches for pictures and sounds before one frozen language model are Video-LLaMA's shape (arXiv:2306.02858); the
    rest is chosen here for small models and two CPU cores, and reproduces no paper.

    Sources (paper = arXiv:2306.02858, here = chosen for this recipe):
        name, start_from: here
        model: as in quickstart
        model.audio: paper section 2.1.2: windows of a sound, one vector each; here: a second each, and an MLP
        train: here: both connectors at once
        objectives: paper: next-token prediction on the answers
        data: here: half of the samples are spoken digits, each recording at five speeds (other voices: Ko et al.,
            Interspeech 2015), half scenes with exact truth
        validation: here: further takes of the speakers that are trained on
        optimizer: here: lower than in quickstart, for the sounds are few
        schedule, batch_size, micro_batch_size, epochs, steps, precision, seed: as in quickstart
        log_every, save_every, validate_every, cached_views: as in quickstart
    """
    first = quickstart.stage()
    ear = AudioEncoder(name="bundled/ear", window_s=1.0, max_windows=5, window_views=True, pool="mean")
    return replace(
        first,
        name="sounds",
        model=replace(first.model, audio=Branch(encoder=ear, connector=MlpConfig(depth=2))),
        train=("connector", "audio.connector"),
        data=(
            Source(of=SpokenDigits(split="train", speeds=(0.8, 0.9, 1.0, 1.1, 1.25)), weight=0.5),
            Source(of=WorldChat(split="train", num_scenes=4_000, questions=8), weight=0.5),
        ),
        validation=(Source(of=SpokenDigits(split="val"), weight=1.0),),
        optimizer=AdamW(peak_lr=1e-3),
    )
