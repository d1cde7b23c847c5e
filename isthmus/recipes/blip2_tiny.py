"""BLIP-2's two stages on the bundled models, and the chain of both: one command, minutes on two cores.

Paper: Li et al., arXiv:2301.12597. What the paper decides stays; what a laptop cannot hold is replaced.
"""

from dataclasses import replace

from isthmus.connectors.qformer import QFormerConfig
from isthmus.data.prompts import QuestionAnswer
from isthmus.data.sources import Source, Textbook, WorldCaptions, WorldChat, WorldStyle
from isthmus.encoders.vision import VisionEncoder
from isthmus.llms import CausalLM
from isthmus.recipes.blip2 import stage1
from isthmus.recipes.bundled import READER
from isthmus.train.chain import Chain
from isthmus.train.stage import Cosine, NextToken, Stage

FEW = WorldStyle(items=(1, 4), writing=0.0, chart=0.0)
"""Scenes whose whole description fits in 64 tokens of the reader, without what the eye cannot read."""
MANY = replace(FEW, items=(1, 6))
SCENES = 4_000


def tiny_stage1() -> Stage:
    """BLIP-2's first stage on the bundled eye and reader, and the bundled data.

    The same stage by replacement: what the paper decides stays (objectives, cross-attention, dropout, betas, decay),
    what a laptop cannot hold is replaced.

    Sources (here = chosen for the small models; the rest as in blip2/stage1):
        name, start_from: here
        model: as in blip2/stage1
        model.encoder: here: the bundled eye after its norm, all patches and the class token, features kept; without the
            norm the losses stay on their plateau longer
        model.connector: as in blip2/stage1, in the sizes of the bundled reader
        model.connector.embedding: here
        model.captions.max_tokens: here: descriptions of scenes are longer than captions
        train, objectives: as in blip2/stage1
        data: here: textbook figures, and scenes with exact truth of one to four things, half and half
        validation: here: scenes; the chain asks held-out figures at its end
        steps, epochs, batch_size, micro_batch_size, precision: here: ten minutes on two cores
        optimizer.peak_lr, schedule: here: higher for small models
        optimizer, seed: as in blip2/stage1
        log_every, save_every, validate_every: here
        cached_views: here: one plain view an image, so the eye runs once for each image
    """
    large = stage1()
    assert isinstance(large.model.connector, QFormerConfig)
    connector = replace(large.model.connector, embedding=64, **READER)
    eye = VisionEncoder(name="bundled/eye", image_size=96, layers=(-1,), class_token=True, final_norm=True)
    captions = replace(large.model.captions, max_tokens=64)
    return replace(
        large,
        name="blip2/tiny-stage1",
        model=replace(large.model, encoder=eye, connector=connector, captions=captions),
        data=(
            Source(of=WorldCaptions(split="train", num_scenes=SCENES, style=FEW), weight=0.5),
            Source(of=Textbook(task="describe", split="train"), weight=0.5),
        ),
        validation=(Source(of=WorldCaptions(split="val", num_scenes=128, style=FEW), weight=1.0),),
        optimizer=replace(large.optimizer, peak_lr=2e-3),
        schedule=Cosine(warmup_fraction=0.05),
        batch_size=16,
        steps=600,
        precision="float32",
        save_every=200,
        validate_every=200,
        cached_views=1,
    )


def tiny_stage2() -> Stage:
    """BLIP-2's second stage on the bundled speaker, frozen: the aligned Q-Former learns to be asked.

    Sources (here = chosen for the small models; the rest as in blip2/stage2-opt):
        name: here
        start_from: paper section 3.3: the first stage
        model: as in blip2/tiny-stage1, without the text side
        model.llm: here: the bundled speaker, frozen; a conversation of this stage fits in 512 tokens
        model.placement, model.prompt, model.arrange: here: the form of text that the speaker was trained on, with the
            queries where a description would stand
        model.captions: no text but the language model's
        train: paper section 3.3: the Q-Former and its projection
        objectives: paper section 3.3: the language modelling loss
        data, validation: here: questions about scenes with exact truth and a description at the end, where the paper
            has captions alone: the small speaker writes few words, and questions can be scored
        steps, epochs, batch_size, micro_batch_size, precision: here: some minutes on two cores
        optimizer.peak_lr, optimizer.rates, schedule: here: higher for small models, and more so for the new projection
        optimizer, seed: as in blip2/stage1
        log_every, save_every, validate_every: here
        cached_views: here: one plain view an image, so the eye runs once for each image
    """
    first = tiny_stage1()
    assert isinstance(first.model.connector, QFormerConfig)
    families = ("attribute", "position", "count")
    scenes = WorldChat(split="train", num_scenes=SCENES, families=families, questions=6, caption=True, style=MANY)
    return replace(
        first,
        name="blip2/tiny-stage2",
        start_from="blip2/tiny-stage1",
        model=replace(
            first.model,
            connector=replace(first.model.connector, text=False, embedding=0),
            llm=CausalLM(name="bundled/speaker", max_tokens=512),
            prompt=QuestionAnswer(),
            captions=stage1().model.captions,
        ),
        objectives=(NextToken(),),
        data=(Source(of=scenes),),
        validation=(Source(of=replace(scenes, split="val", num_scenes=48)),),
        optimizer=replace(first.optimizer, peak_lr=2e-3, rates=(("connector.project", 1e-2),), clip_norm=1.0),
        schedule=Cosine(warmup_fraction=0.03),
        batch_size=8,
        steps=400,
        save_every=100,
        validate_every=200,
    )


def chain() -> Chain:
    """BLIP-2 from its first stage to answers, on the bundled models: one command, minutes on two cores.

    Sources (here = chosen for this chain):
        name, stages: the recipes `blip2/tiny-stage1` and `blip2/tiny-stage2`
        asked, items_per_task: here
    """
    return Chain(
        name="blip2/tiny",
        stages=(tiny_stage1(), tiny_stage2()),
        asked=(
            "gallery/textbook",
            "swaps/exchanged",
            "swaps/replaced",
            "world/attribute",
            "world/position",
            "world/count",
        ),
        items_per_task=600,
    )
