"""What every arm costs, from its config: for the table, and to guess how long its jobs take."""

from isthmus.compare.results import ArmCost
from isthmus.measure import cost
from isthmus.train.stage import Stage

QUESTION_TOKENS = 24
"""Text tokens of the prompt whose prefill and cache the table shows."""
TRAINING_TEXT_TOKENS = 96


def arm_cost(stage: Stage) -> ArmCost:
    """The cost of one picture and a short question under a stage's model."""
    known = cost(stage.model, train=stage.train, image=picture_size(stage), text_tokens=QUESTION_TOKENS)
    return ArmCost(
        connector_parameters=known.connector.parameters,
        trained_parameters=known.learned,
        visual_tokens=known.visual_tokens,
        connector_flops=known.connector.flops,
        encoder_flops=known.encoder.flops,
        prefill_flops=known.llm.flops,
        kv_bytes=known.kv_bytes,
    )


def training_work(stage: Stage) -> float:
    """FLOPs of a whole training run, roughly."""
    assert stage.steps is not None
    known = cost(stage.model, train=stage.train, image=picture_size(stage), text_tokens=TRAINING_TEXT_TOKENS)
    return float(stage.steps) * stage.batch_size * known.training_flops(cached_features=not stage.learns("encoder"))


def answering_work(stage: Stage, questions: int) -> float:
    """FLOPs of answering this many questions, roughly: the prefill, and as much again for everything slower."""
    known = cost(stage.model, train=stage.train, image=picture_size(stage), text_tokens=QUESTION_TOKENS)
    return 2.0 * questions * (known.connector.flops + known.llm.flops)


def picture_size(stage: Stage) -> tuple[int, int] | None:
    """Width and height of the first picture of a stage's data, where tiles make a cost depend on it; else None."""
    if stage.model.encoder.most_views() == 1:
        return None
    for source in stage.data:
        for image in source.of.build()[0].images:
            return image.load().size
    return None
