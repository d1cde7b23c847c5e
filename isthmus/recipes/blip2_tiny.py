"""BLIP-2's two stages on the bundled models, and the chain of both: one command, minutes on two cores.

Paper: Li et al., arXiv:2301.12597. What the paper decides stays; what a laptop cannot hold is replaced.
"""

from dataclasses import replace

from isthmus.connectors.qformer import QFormerConfig
from isthmus.data.prompts import QuestionAnswer
from isthmus.data.sources import Source, Textbook, WorldChat, WorldStyle, WorldTwins
from isthmus.encoders.vision import VisionEncoder
from isthmus.llms import CausalLM
from isthmus.recipes.blip2 import stage1
from isthmus.recipes.bundled import READER
from isthmus.train.chain import Chain
from isthmus.train.objectives import ITC
from isthmus.train.stage import Cosine, NextToken, Stage

FEW = WorldStyle(items=(2, 4), writing=0.0, chart=0.0)
"""Scenes whose whole description fits in 64 tokens of the reader, without what the eye cannot read."""
MANY = replace(FEW, items=(1, 6))
TWINS = 12_000
SCENES = 4_000


def tiny_contrast() -> Stage:
    """BLIP-2's first stage on the bundled models, its cheapest objective alone: images and texts are compared.

    Comparing costs less than a quarter of all three objectives together, so a laptop's first minutes go to it.

    Sources (here = chosen for the small models; the rest as in blip2/stage1):
        name, start_from: here
        model: as in blip2/stage1
        model.encoder: here: the bundled eye after its norm, all patches and the class token, features kept
        model.connector: as in blip2/stage1, in the sizes of the bundled reader
        model.connector.embedding: here
        model.connector.dropout: here: with the paper's 0.1 a reader of width 192 learns several times more slowly
        model.connector.initializer_range: here: the paper's 0.02, which suits a width of 768, keeps the scores of the
            cross-attention close to uniform
        model.captions.max_tokens: here: descriptions of scenes are longer than captions
        train: as in blip2/stage1
        objectives: here: ITC alone, as in blip2/stage1
        data: here: textbook figures, and scenes with exact truth of two to four things, each beside one where two of
            them exchanged colour, shape or size; a batch is of figures or of scenes, so that negatives are of the same
            kind. Without such pairs queries sum up what is there and do not bind it: exchanged attributes were told
            in 55% of scenes
        validation: here: scenes; the chain asks held-out figures at its end
        steps, epochs, batch_size, micro_batch_size, precision: here: some minutes on two cores
        optimizer.peak_lr, schedule: here: higher for small models; at 1e-3 the queries become one
        optimizer.rates: here: higher for the words, as the bundled reader knows little of textbooks
        optimizer.clip_norm: here: without it the queries become one at the first large gradient
        optimizer, seed: as in blip2/stage1
        log_every, save_every, validate_every: here
        cached_views: here: one plain view an image, so the eye runs once for each image
    """
    large = stage1()
    assert isinstance(large.model.connector, QFormerConfig)
    connector = replace(large.model.connector, embedding=64, dropout=0.0, initializer_range=0.1, **READER)
    eye = VisionEncoder(name="bundled/eye", image_size=96, layers=(-1,), class_token=True, final_norm=True)
    captions = replace(large.model.captions, max_tokens=64)
    return replace(
        large,
        name="blip2/tiny-contrast",
        model=replace(large.model, encoder=eye, connector=connector, captions=captions),
        objectives=tuple(one for one in large.objectives if isinstance(one, ITC)),
        data=(
            Source(of=WorldTwins(split="train", num_scenes=TWINS, style=FEW), weight=0.45, whole_batches=True),
            Source(of=Textbook(task="describe", split="train"), weight=0.55, whole_batches=True),
        ),
        validation=(Source(of=WorldTwins(split="val", num_scenes=128, style=FEW), weight=1.0),),
        optimizer=replace(large.optimizer, peak_lr=5e-4, rates=(("connector.words", 5e-3),), clip_norm=1.0),
        schedule=Cosine(warmup_fraction=0.05),
        batch_size=64,
        steps=1_000,
        precision="float32",
        save_every=150,
        validate_every=150,
        cached_views=1,
    )


def tiny_stage1() -> Stage:
    """BLIP-2's first stage on the bundled eye and reader, and the bundled data: all three objectives.

    It starts from `blip2/tiny-contrast`.

    Sources (here = chosen for the small models; the rest as in blip2/stage1):
        name, start_from: here
        model, train, data, validation, seed, cached_views: as in blip2/tiny-contrast
        objectives: as in blip2/stage1
        steps, epochs, batch_size, micro_batch_size, precision: here: a minute and a half on two cores
        optimizer, schedule: as in blip2/tiny-contrast
        optimizer.peak_lr, optimizer.rates: here: lower, as it goes on from there
        log_every, save_every, validate_every: here
    """
    contrast = tiny_contrast()
    return replace(
        contrast,
        name="blip2/tiny-stage1",
        start_from="blip2/tiny-contrast",
        objectives=stage1().objectives,
        optimizer=replace(contrast.optimizer, peak_lr=3e-4, rates=()),
        batch_size=32,
        steps=100,
        save_every=50,
        validate_every=50,
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
        optimizer.clip_norm: as in blip2/tiny-contrast
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
        optimizer=replace(first.optimizer, peak_lr=5e-4, rates=(("connector.project", 5e-3),)),
        schedule=Cosine(warmup_fraction=0.03),
        batch_size=8,
        steps=300,
        save_every=100,
        validate_every=200,
    )


def chain() -> Chain:
    """BLIP-2 from its first stage to answers, on the bundled models: one command, minutes on two cores.

    Sources (here = chosen for this chain):
        name, stages: the recipes `blip2/tiny-contrast`, `blip2/tiny-stage1` and `blip2/tiny-stage2`
        asked, items_per_task: here
    """
    return Chain(
        name="blip2/tiny",
        stages=(tiny_contrast(), tiny_stage1(), tiny_stage2()),
        asked=(
            "gallery/textbook",
            "gallery/textbook-all",
            "swaps/exchanged",
            "swaps/replaced",
            "world/attribute",
            "world/position",
            "world/count",
        ),
        items_per_task=1_100,
    )
