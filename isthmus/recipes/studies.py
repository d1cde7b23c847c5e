"""Studies: which connector is better between the bundled eye and speaker, at equal budgets."""

from dataclasses import replace

from isthmus.compare.study import Arm, Study
from isthmus.connectors import CONNECTORS
from isthmus.connectors.average_pool import AveragePoolConfig
from isthmus.connectors.mlp import MlpConfig
from isthmus.connectors.pixel_shuffle import PixelShuffleConfig
from isthmus.connectors.qformer import QFormerConfig
from isthmus.recipes.ablations import shorter
from isthmus.recipes.blip2_tiny import tiny_contrast, tiny_stage1, tiny_stage2
from isthmus.recipes.bundled import READER
from isthmus.recipes.quickstart import stage
from isthmus.recipes.shelf import arms

ARMS = (
    Arm(name="mlp", replace=(("model.connector", MlpConfig(depth=2)),)),
    Arm(name="average-pool", replace=(("model.connector", AveragePoolConfig(side=6)),)),
    Arm(name="pixel-shuffle", replace=(("model.connector", PixelShuffleConfig(factor=2)),)),
    Arm(name="q-former", replace=(("model.connector", QFormerConfig(num_queries=36, dropout=0.0, **READER)),)),
)
"""144 tokens without compression, and three ways to 36 tokens."""
CONTRAST, ALL_OBJECTIVES = 600, 60
"""Steps of the first stage before the aligned Q-Former: ITC alone, then all three objectives."""


def quickstart() -> Study:
    """Four connectors, two seeds, in minutes on two CPU cores.

    The same steps, data order and frozen models for every arm; a learning rate for each, chosen from three.

    Sources (here = chosen for this study):
        base: the recipe `quickstart`
        base.steps: here: what ten minutes on two cores allow
        arms: MLP: LLaVA-1.5, arXiv:2310.03744; average pool: DeCo, arXiv:2405.20985; pixel shuffle: InternVL 1.5,
            arXiv:2404.16821; Q-Former: BLIP-2, arXiv:2301.12597, with the sizes and first weights of the bundled reader
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here; a text-only arm would cost two minutes
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    return Study(
        name="quickstart",
        base=replace(stage(), steps=72, save_every=72, validate_every=72),
        arms=ARMS,
        seeds=(1, 2),
        tune_rates=(5e-3, 1e-2, 2e-2),
        tune_seeds=(101,),
        tune_fraction=0.15,
        items_per_task=40,
        control_items=40,
        watch_items=40,
    )


def aligned() -> Arm:
    """The Q-Former as BLIP-2 trains it: aligned with texts by its first stage, before it meets the language model.

    Its optimiser is that of the recipe `blip2/tiny-stage2`, and it tries lower rates than the other arms: at theirs its
    queries become one.
    """
    encoder = stage().model.encoder
    earlier = (shorter(tiny_contrast(), CONTRAST, 36), shorter(tiny_stage1(), ALL_OBJECTIVES, 36))
    own = shorter(tiny_stage2(), 1, 36)
    return Arm(
        name="q-former, aligned",
        replace=(("model.connector", own.model.connector), ("optimizer", own.optimizer)),
        before=tuple(replace(one, model=replace(one.model, encoder=encoder)) for one in earlier),
        rates=(5e-4, 1.5e-3, 5e-3),
    )


def readme() -> Study:
    """The quickstart, longer, with five seeds, more questions, an aligned Q-Former and a trained text-only arm.

    Sources (here = chosen for this study):
        base: the recipe `quickstart`
        arms: as in the study `quickstart`; and the Q-Former after BLIP-2's first stage, arXiv:2301.12597, section 3
        name, base.steps, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    return replace(
        quickstart(),
        name="readme",
        base=replace(stage(), steps=160, save_every=160, validate_every=40),
        arms=(*ARMS, aligned()),
        seeds=(1, 2, 3, 4, 5),
        tune_fraction=0.5,
        items_per_task=100,
        headline_items=1_000,
        control_items=100,
        watch_items=80,
        text_only="average-pool",
    )


def shelf() -> Study:
    """Every connector there is, two seeds, in under two hours on two CPU cores.

    The same steps, data order and frozen models for every arm; a learning rate for each, chosen from two. Connectors
    that read several encoder layers, a question, or the language model's layers get them; before the identity, which
    has nothing to learn, the language model learns.

    Sources (here = chosen for this study):
        base: the recipe `quickstart`
        base.steps: here: what two hours on two cores allow 27 connectors
        arms: the papers on each connector's page; sizes and what else an arm changes: here, in `recipes/shelf.py`
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    return Study(
        name="shelf",
        base=replace(stage(), steps=160, save_every=160, validate_every=32),
        arms=arms(CONNECTORS),
        seeds=(1, 2),
        tune_rates=(5e-3, 1.5e-2),
        tune_seeds=(101,),
        tune_fraction=0.3,
        items_per_task=40,
        control_items=30,
        watch_items=40,
        text_only="average-pool",
    )
