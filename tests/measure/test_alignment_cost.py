"""Costs of aligning without a language model, against torch's own counter and published counts."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from isthmus.connectors import ConnectorConfig, MlpConfig, QFormerConfig, QLlamaConfig
from isthmus.data.collate import Batch
from isthmus.encoders import VisionEncoder
from isthmus.encoders.tiles import DynamicTiles
from isthmus.features import Captions, Features, FeatureShape, Grid, Plan, Text
from isthmus.measure import alignment_cost, alignment_memory, fits, formulas
from isthmus.model import Model, VisionLanguageModel
from isthmus.recipes import RECIPES
from isthmus.train.objectives import ITC, ITG, ITM, Objective
from isthmus.train.objectives.itm import Negatives
from isthmus.train.objectives.shared import Shared
from isthmus.train.stage import Stage

QFORMER = QFormerConfig(
    num_queries=3, width=8, layers=3, heads=2, ffn_width=20, dropout=0.0, text=True, vocabulary=30, positions=32,
    embedding=4,
)  # fmt: skip
QLLAMA = QLlamaConfig(
    num_queries=3, width=8, layers=3, heads=2, ffn_width=20, text=True, vocabulary=30, embedding=4, pool_heads=2
)
SOURCE = FeatureShape(width=6, grid=Grid(1, 2, 2), prefix=1)
ROWS, LENGTH = 4, 5


class Alone(VisionLanguageModel):
    """A connector alone where the objectives expect a model."""

    def __init__(self, connector: nn.Module) -> None:
        nn.Module.__init__(self)
        self.connector = connector


def batch() -> Batch:
    ids, mask = torch.randint(1, 30, (ROWS, LENGTH)), torch.ones(ROWS, LENGTH, dtype=torch.bool)
    told, none = Text(ids=ids, mask=mask), torch.zeros(ROWS, dtype=torch.bool)
    captions = Captions(
        contrast=told,
        match=told,
        write=told,
        targets=ids,
        image_ids=torch.arange(ROWS),
        empty=none,
        negatives=Text(ids=ids.roll(1, 0), mask=mask),
        negatives_empty=none,
    )
    return Batch(
        ids=ids,
        mask=mask,
        labels=torch.full_like(ids, -100),
        visual=torch.zeros_like(mask),
        plans=(Plan(size=(1, 1), tiles=Grid(1, 1, 1), views=range(1)),) * ROWS,
        owner=tuple(range(ROWS)),
        sample_ids=tuple(map(str, range(ROWS))),
        features=Features(tokens=torch.randn(ROWS, 5, 6), grid=SOURCE.grid, prefix=SOURCE.prefix),
        captions=captions,
    )


def counted(connector: ConnectorConfig, objectives: Sequence[Objective]) -> int:
    """FLOPs that torch counts of the objectives' losses, each image being in as many negatives as another."""
    shared = Shared(Alone(connector.build_alone(SOURCE)), batch())
    places = torch.arange(ROWS)
    drawn = Negatives(images=(places + 1) % ROWS, texts=(places + 2) % ROWS, kept=torch.ones(ROWS, dtype=torch.bool))
    with FlopCounterMode(display=False) as counter:
        for one in objectives:
            one.prepare(shared)
        for one in objectives:
            if isinstance(one, ITM) and one.negatives != "given":
                shared.any_comparison()
                one.judge(shared, drawn)
            else:
                one.losses(shared)
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    ("connector", "objectives"),
    [
        (QFORMER, (ITC(), ITM(), ITG())),
        (QFORMER, (ITC(),)),
        (QFORMER, (ITM(),)),
        (QFORMER, (ITG(),)),
        (QFORMER, (ITC(), ITG())),
        (replace(QFORMER, cross_every=1), (ITC(), ITM(negatives="random"))),
        (QLLAMA, (ITC(), ITM(negatives="given"), ITG())),
        (QLLAMA, (ITC(), ITM(negatives="given", given="both"))),
        (QLLAMA, (ITC(vectors="features"),)),
        (QLLAMA, (ITC(vectors="sum"),)),
        (QLLAMA, (ITC(), ITM())),
        (QLLAMA, (ITG(),)),
    ],
)
def test_flops_are_what_torch_counts(connector: ConnectorConfig, objectives: tuple[Objective, ...]) -> None:
    passes = replace(stage_of("blip2/stage1"), model=model_of(connector), objectives=objectives).passes
    stated = connector.alignment_flops(SOURCE, passes, text_tokens=LENGTH, pairs=ROWS)
    assert counted(connector, objectives) == ROWS * sum(stated.values())


def stage_of(name: str) -> Stage:
    return RECIPES[name]()


def model_of(connector: ConnectorConfig) -> Model:
    return Model(encoder=VisionEncoder(), connector=connector, llm=None)


def test_blip2s_first_stage_in_exact_integers() -> None:
    stage = stage_of("blip2/stage1")
    bill = alignment_cost(stage.model, stage.passes, train=stage.train, text_tokens=32, pairs=stage.batch_size)
    assert bill.connector.parameters == bill.learned == 186_705_470
    assert bill.encoder.learned == 0
    assert bill.queries == 32
    assert bill.passes["keys and values of the image"] == 6 * 4 * 257 * 1_408 * 768
    assert bill.connector.flops == sum(bill.passes.values())
    assert bill.training_flops() == bill.encoder.flops + 3 * bill.connector.flops
    assert bill.training_flops(cached_features=True) == 3 * bill.connector.flops
    assert bill.flops == bill.encoder.flops + bill.connector.flops
    assert bill.parameters == bill.encoder.parameters + 186_705_470


def test_a_subset_of_the_objectives_costs_less() -> None:
    stage = stage_of("blip2/stage1")
    bill = alignment_cost(stage.model, replace(stage, objectives=(ITC(),)).passes)
    assert list(bill.passes) == ["keys and values of the image", "queries alone", "caption alone"]


@pytest.mark.parametrize("connector", [QFORMER, QLLAMA])
def test_memory(connector: ConnectorConfig) -> None:
    given = "given" if connector is QLLAMA else "hard"
    objectives = (ITC(), ITM(negatives=given), ITG())
    stage = replace(stage_of("blip2/stage1"), model=model_of(connector), objectives=objectives)
    bill = alignment_cost(stage.model, stage.passes, text_tokens=8)
    memory = alignment_memory(stage.model, stage.passes, text_tokens=8)
    assert memory.weights == 4 * bill.parameters
    assert (memory.gradients, memory.optimizer) == (4 * bill.learned, 8 * bill.learned)
    assert alignment_memory(stage.model, stage.passes, text_tokens=8, samples=3).activations == 3 * memory.activations
    assert alignment_memory(stage.model, stage.passes, text_tokens=12).activations > memory.activations
    alone = replace(stage, objectives=(ITC(),)).passes
    assert 0 < alignment_memory(stage.model, alone, text_tokens=8).activations < memory.activations
    tuned = alignment_memory(stage.model, stage.passes, train=("connector", "encoder"), text_tokens=8)
    assert tuned.activations > memory.activations
    found = fits(stage.model, 2**30, text_tokens=8, passes=stage.passes)
    assert found[0].samples == (2**30 - memory.total + memory.activations) // memory.activations


def test_what_cannot_be_aligned_is_refused() -> None:
    passes = stage_of("blip2/stage1").passes
    with pytest.raises(ValueError, match="MlpConfig has no heads"):
        alignment_cost(model_of(MlpConfig()), passes)
    with pytest.raises(ValueError, match="2 tokens or more"):
        alignment_cost(model_of(QFORMER), passes, text_tokens=1)
    tiled = replace(model_of(QFORMER), encoder=VisionEncoder(tiles=DynamicTiles()))
    with pytest.raises(ValueError, match="one view an image"):
        alignment_cost(tiled, passes, image=(400, 200))
    with pytest.raises(ValueError, match="Did you mean 'connector'"):
        alignment_cost(model_of(QFORMER), passes, train=("conector",))


def test_formulas_are_those_of_aligning() -> None:
    found = {(one.part, one.quantity): one.text for one in formulas(stage_of("blip2/stage1").model)}
    assert "8 d d + 4 d f" in found["connector", "alignment_flops"]
    assert ("llm", "flops") not in found
