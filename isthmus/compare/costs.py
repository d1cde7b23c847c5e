"""What every arm costs, from its config: for the table, and to guess how long its jobs take."""

from isthmus.compare.results import ArmCost
from isthmus.compare.study import JUDGED
from isthmus.connectors.reading import Passes
from isthmus.data.sample import Sample
from isthmus.measure import ONE_IMAGE, AlignmentCost, Inputs, alignment_cost, cost
from isthmus.train.stage import Stage

QUESTION_TOKENS = 24
"""Text tokens of the prompt whose prefill and cache the table shows."""
TRAINING_TEXT_TOKENS = 96
CAPTION_TOKENS = 40
"""Text tokens of a caption, where there is no language model: about what the longest of a batch has."""


def arm_cost(stage: Stage, inputs: Inputs = ONE_IMAGE) -> ArmCost:
    """The cost of these inputs and a short question under a stage's model; of a picture and its caption without one.

    Encoders and connectors are those that the inputs go through.
    """
    if stage.model.llm is None:
        bill = _alignment(stage, stage.passes, stage.batch_size)
        return ArmCost(
            connector_parameters=bill.connector.parameters,
            trained_parameters=bill.learned,
            visual_tokens=bill.queries,
            connector_flops=bill.connector.flops,
            encoder_flops=bill.encoder.flops,
        )
    known = cost(stage.model, train=stage.train, image=picture_size(stage), text_tokens=QUESTION_TOKENS, inputs=inputs)
    branches = [branch for branch in known.branches if branch.views]
    return ArmCost(
        connector_parameters=known.connector.parameters * bool(known.views)
        + sum(branch.connector.parameters for branch in branches),
        trained_parameters=known.learned,
        visual_tokens=known.visual_tokens,
        connector_flops=known.connector.flops + sum(branch.views * branch.connector.flops for branch in branches),
        encoder_flops=known.encoder.flops + sum(branch.views * branch.encoder.flops for branch in branches),
        prefill_flops=known.llm.flops,
        kv_bytes=known.kv_bytes,
    )


def inputs_of_item(item: Sample) -> Inputs:
    """What stands in the prompt of a question. Raises ValueError when a video cannot be read."""
    frames = tuple(len(video.load().frames) for video in item.videos)
    return Inputs(images=len(item.images), frames=frames, sounds=len(item.sounds))


def training_work(stage: Stage) -> float:
    """FLOPs of a whole training run, roughly."""
    assert stage.steps is not None
    known = (
        _alignment(stage, stage.passes, stage.batch_size)
        if stage.model.llm is None
        else cost(stage.model, train=stage.train, image=picture_size(stage), text_tokens=TRAINING_TEXT_TOKENS)
    )
    return float(stage.steps) * stage.batch_size * known.training_flops(cached_features=not stage.learns("encoder"))


def answering_work(stage: Stage, questions: int) -> float:
    """FLOPs of answering this many questions, roughly: the prefill, and as much again for everything slower.

    Without a language model: of as many pictures' comparisons, and of judging the best of both ways.
    """
    if stage.model.llm is None:
        judged = 2 * JUDGED * bool(stage.passes.match)
        asked = Passes(contrast=True, queries=True, match=judged)
        return float(questions) * _alignment(stage, asked, max(1, questions)).connector.flops
    known = cost(stage.model, train=stage.train, image=picture_size(stage), text_tokens=QUESTION_TOKENS)
    return 2.0 * questions * (known.connector.flops + known.llm.flops)


def _alignment(stage: Stage, passes: Passes, pairs: int) -> AlignmentCost:
    longest = min(CAPTION_TOKENS, stage.model.captions.max_tokens)
    return alignment_cost(stage.model, passes, train=stage.train, text_tokens=longest, pairs=pairs)


def picture_size(stage: Stage) -> tuple[int, int] | None:
    """Width and height of the first picture of a stage's data, where tiles make a cost depend on it; else None."""
    if stage.model.encoder.most_views() == 1:
        return None
    for source in stage.data:
        for image in source.of.build()[0].images:
            return image.load().size
    return None
