"""The recipe that points: boxes out and boxes in, between the bundled eye and a speaker that learns to write them."""

from dataclasses import replace

from isthmus.data.sources import Source, WorldBoxes, WorldChat, WorldStyle
from isthmus.recipes import quickstart
from isthmus.train.stage import AdamW, Stage

THINGS = WorldStyle(items=(3, 6), writing=0.0, chart=0.0)
"""Scenes of things alone, enough of them that most conversations are of like length."""


def stage() -> Stage:
    """Train connector and speaker to find named things and to name what is in a box, in half an hour of a CPU core.

    It starts from a finished `quickstart`, whose connector the speaker already reads. The form of boxes is Qwen-VL's
    (arXiv:2308.12966): corners in [0, 1000), `<ref>` and `<box>`. That the language model learns with the connector is
    that paper's second stage, for it has to learn numbers that stand for places.

    Sources (paper = arXiv:2308.12966, here = chosen for this recipe):
        name: here
        start_from: paper section 3: the stage before, in which the language model stands still
        model: as in quickstart
        train: paper section 3.2: adapter and language model; here: the eye stands still
        objectives: paper: next-token prediction on the answers
        data: here: for the most part "where is this" and "what is here" about every thing of a scene, and questions
            about scenes, so that these are not forgotten
        data.0.of.step, data.1.of.step: here: corners in twentieths, which a small language model learns sooner
        validation: here
        optimizer: here: a higher rate for the connector than for the language model
        schedule, batch_size, micro_batch_size, seed: as in quickstart
        steps, epochs, precision: here: it begins to see where things are after about 300 steps of "where is this"
            alone, and until then writes a box in the middle
        log_every, save_every, validate_every, cached_views: here
    """
    first = quickstart.stage()
    find = WorldBoxes(split="train", num_scenes=10_000, questions=4, direction="find", style=THINGS, step=50)
    chat = WorldChat(split="train", num_scenes=4_000, seed=2, questions=6, style=THINGS)
    return replace(
        first,
        name="grounding",
        start_from="quickstart",
        train=("connector", "llm"),
        data=(
            Source(of=find, weight=0.6),
            Source(of=replace(find, seed=1, direction="name"), weight=0.15),
            Source(of=chat, weight=0.25),
        ),
        validation=(Source(of=replace(find, split="val", num_scenes=24)),),
        optimizer=AdamW(peak_lr=7e-4, rates=(("connector", 2e-3),)),
        precision="bf16",
        steps=1_400,
        save_every=200,
        validate_every=200,
    )
