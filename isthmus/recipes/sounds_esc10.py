"""The recipe `sounds` on the sounds of the surroundings, from a folder of yours."""

from dataclasses import replace

from isthmus.adapters import Lora
from isthmus.data.sources import Esc10, Source, SpokenDigits
from isthmus.llms import CausalLM
from isthmus.recipes import sounds
from isthmus.train.stage import AdamW, Stage


def stage() -> Stage:
    """Train the branch for sounds on ESC-10 and spoken digits, before the bundled speaker; ESC-10 is a folder of yours.

    Link or copy it to `esc10-data`, or name it: `--data.0.of.folder FOLDER --validation.0.of.folder FOLDER`.

    Sources (here = chosen for this recipe):
        name, start_from: here
        model: as in sounds
        model.llm: here: the bundled speaker, frozen, with adapters: its texts had no names of sounds
        train: here: the connector for sounds and the adapters at once
        objectives: as in sounds
        data: here: the folds of ESC-10 that the bundled ear was trained on, and spoken digits
        validation: here: a fold that it was not
        optimizer: here: lower than in sounds, for the adapters
        schedule, batch_size, micro_batch_size, epochs, steps, precision, seed: as in sounds
        log_every, save_every, validate_every, cached_views: as in sounds
    """
    first = sounds.stage()
    return replace(
        first,
        name="sounds-esc10",
        model=replace(first.model, llm=CausalLM(name="bundled/speaker", max_tokens=512, lora=Lora(rank=16))),
        train=("audio.connector", "llm"),
        data=(
            Source(of=Esc10(folds=(1, 2, 3)), weight=0.7),
            Source(of=SpokenDigits(split="train", speeds=(0.8, 0.9, 1.0, 1.1, 1.25)), weight=0.3),
        ),
        validation=(Source(of=Esc10(folds=(4, 5)), weight=1.0),),
        optimizer=AdamW(peak_lr=3e-3),
    )
