"""Video-LLaMA's way to an audio branch, in small: trained on pictures and fed sounds, beside one trained on sounds.

Paper: Zhang et al., arXiv:2306.02858, section 2.1.2. Code: DAMO-NLP-SG/Video-LLaMA. The bundled eye and ear, bound into
one space, stand in the place of ImageBind (arXiv:2305.05665).
"""

from dataclasses import replace

from isthmus.branches import Branch
from isthmus.connectors.mlp import MlpConfig
from isthmus.data.sources import DrawnDigits, Source, SpokenDigits
from isthmus.encoders.bound import BoundEncoder
from isthmus.recipes import quickstart
from isthmus.train.stage import AdamW, Stage

SPEEDS = (0.8, 0.9, 1.0, 1.1, 1.25)


def tiny_audio_pictures() -> Stage:
    """Video-LLaMA's trick on the bundled models: the audio branch learns from drawn digits and is fed spoken ones.

    It never meets a sound in training: only the maps of `bundled/binding` did.

    Sources (paper = arXiv:2306.02858, here = chosen for this recipe):
        name, start_from: here
        model: as in quickstart
        model.audio: paper section 2.1.2: a frozen encoder whose space pictures and sounds share, and a trained part
        model.audio.connector: here: an MLP after the one vector of a digit, where the paper has a Q-Former over several
        train: paper section 2.1.2: what follows the frozen encoder, on pictures
        objectives: paper: next-token prediction on the answers
        data, validation: here: drawn digits, which one it is and whether it is the one that is named
        optimizer, batch_size, micro_batch_size, steps, epochs: here
        schedule, precision, seed: as in quickstart
        log_every, save_every, validate_every, cached_views: here
    """
    first = quickstart.stage()
    return replace(
        first,
        name="video-llama/tiny-audio-pictures",
        model=replace(first.model, audio=Branch(encoder=BoundEncoder(), connector=MlpConfig(depth=2))),
        train=("audio.connector",),
        data=(Source(of=DrawnDigits(num=500, about="both")),),
        validation=(Source(of=DrawnDigits(num=32, seed=1, about="both")),),
        optimizer=AdamW(peak_lr=5e-3),
        batch_size=16,
        steps=120,
        save_every=60,
        validate_every=60,
    )


def tiny_audio_sounds() -> Stage:
    """The same branch trained on spoken digits themselves: what `video-llama/tiny-audio-pictures` is measured against.

    Sources (here = chosen for this recipe):
        name, start_from: here
        model, train, objectives, optimizer, schedule: as in video-llama/tiny-audio-pictures
        data: here: 200 recordings of four speakers at five speeds
        validation: here: further takes of the same speakers
        batch_size, micro_batch_size, steps, epochs, precision, seed: as in video-llama/tiny-audio-pictures
        log_every, save_every, validate_every, cached_views: as in video-llama/tiny-audio-pictures
    """
    return replace(
        tiny_audio_pictures(),
        name="video-llama/tiny-audio-sounds",
        data=(Source(of=SpokenDigits(split="train", speeds=SPEEDS, about="both")),),
        validation=(Source(of=SpokenDigits(split="val", about="both")),),
    )
