"""Two ablations that BLIP-2 published, at the size of the bundled models: by estimate an hour on two cores each.

Paper: Li et al., arXiv:2301.12597: what writing captions does for retrieval (section 4.4, table 6), and what the first
stage does for the second (section 4.1, figure 5).
"""

from dataclasses import replace

from isthmus.compare.costs import training_work
from isthmus.compare.study import Arm, Study
from isthmus.connectors.qformer import QFormerConfig
from isthmus.data.sources import Source, Textbook, WorldCaptions, WorldStyle
from isthmus.recipes.blip2_tiny import tiny_contrast, tiny_stage1, tiny_stage2
from isthmus.train.objectives import ITG
from isthmus.train.stage import Stage

SEEDS = (1, 2, 3, 4, 5, 6, 7, 8)
QUERIES = 16
"""Half of the paper's, so that more steps fit in the time."""
STEPS = 64
"""Of the arm with ITG, after `CONTRAST`."""
CONTRAST = 160
"""Steps in which the queries learn to compare, before all that is studied here: without them they see nothing yet."""


SCENES = WorldStyle(items=(1, 4), writing=0.0, chart=0.0)
CAPTIONS = (
    Source(of=WorldCaptions(split="train", style=SCENES), weight=0.35, whole_batches=True),
    Source(of=Textbook(task="describe", split="train"), weight=0.65, whole_batches=True),
)
"""Single scenes, where the chain sets each beside its twin."""
HELD_OUT = (Source(of=WorldCaptions(split="val", num_scenes=128, style=SCENES)),)


def shorter(stage: Stage, steps: int, num_queries: int = QUERIES) -> Stage:
    """A stage of the chain `blip2/tiny` with other numbers of steps and queries, fresh weights, and no twins."""
    assert isinstance(stage.model.connector, QFormerConfig)
    connector = replace(stage.model.connector, num_queries=num_queries)
    made = replace(stage, model=replace(stage.model, connector=connector), steps=steps, start_from=None)
    return made if made.model.llm is not None else replace(made, data=CAPTIONS, validation=HELD_OUT)


def with_itg() -> Study:
    """BLIP-2's first stage with and without writing captions, at equal compute: what it does for retrieval.

    The arm without ITG takes as many more steps as its FLOPs of training leave room for.

    Sources (here = chosen for this study):
        base: the recipe `blip2/tiny-stage1`
        base.data, base.validation: here: textbook figures and single scenes
        base.model.connector.num_queries, base.steps: here: what about an hour on two cores allows
        arms: paper section 4.4, table 6: ITC and ITM, with and without ITG; the steps of the arm without it are those
            of the base times the ratio of both arms' training FLOPs, in closed form. Both go on from one shorter
            `blip2/tiny-contrast`
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    base = shorter(tiny_stage1(), STEPS)
    without = replace(base, objectives=tuple(one for one in base.objectives if not isinstance(one, ITG)))
    steps = round(STEPS * training_work(base) / training_work(without))
    before = (shorter(tiny_contrast(), CONTRAST),)
    return Study(
        name="blip2/with-itg",
        base=base,
        arms=(
            Arm(name="ITC + ITM", replace=(("objectives", without.objectives), ("steps", steps)), before=before),
            Arm(name="ITC + ITM + ITG", before=before),
        ),
        seeds=SEEDS,
        tune_rates=(3e-4, 6e-4),
        tune_seeds=(101,),
        tune_fraction=0.4,
        tasks=("gallery/world", "gallery/textbook", "swaps/exchanged", "swaps/replaced"),
        headline=("gallery/world", "gallery/textbook"),
        items_per_task=100,
        headline_items=200,
        control_items=0,
        watch_items=50,
    )


def with_stage1() -> Study:
    """BLIP-2's second stage with and without the first before it, at an equal number of steps.

    The speaker stands still in both arms; the Q-Former starts from the bundled reader, and in one of them it is
    aligned first.

    Sources (here = chosen for this study):
        base: the recipe `blip2/tiny-stage2`
        base.model.connector.num_queries, base.steps: here: what about an hour on two cores allows
        arms: paper section 4.1, figure 5: with and without representation learning; the stages before are the recipes
            `blip2/tiny-contrast` and `blip2/tiny-stage1`, their steps are taken off the arm's own
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    steps, aligned = 400, 40
    return Study(
        name="blip2/with-stage1",
        base=shorter(tiny_stage2(), steps),
        arms=(
            Arm(name="stage 2 alone"),
            Arm(
                name="stage 1, then stage 2",
                replace=(("steps", steps - CONTRAST - aligned),),
                before=(shorter(tiny_contrast(), CONTRAST), shorter(tiny_stage1(), aligned)),
            ),
        ),
        seeds=SEEDS,
        tune_rates=(1.5e-4, 5e-4, 1.5e-3),
        tune_seeds=(101,),
        tune_fraction=0.4,
        tasks=("world/attribute", "world/position", "world/count"),
        headline=("world/attribute", "world/position", "world/count"),
        items_per_task=200,
        control_items=50,
        watch_items=60,
    )
