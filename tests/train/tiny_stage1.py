"""A first stage so small that a step takes milliseconds: the tiny eye, a tiny reader, pictures of one colour."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny_reader import save_reader
from tiny_stage import Swatch, Swatches, save_eye

from isthmus.connectors import QFormerConfig
from isthmus.data.captions import CaptionStyle
from isthmus.data.collate import Batch
from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Source
from isthmus.encoders import VisionEncoder
from isthmus.features import Features, Grid, Plan
from isthmus.model import Model, VisionLanguageModel
from isthmus.train.objectives import ITC, ITG, ITM
from isthmus.train.stage import AdamW, Cosine, Stage


def tiny_model(root: Path, **changes: Any) -> Model:
    connector = QFormerConfig(
        num_queries=3,
        width=16,
        layers=2,
        heads=2,
        ffn_width=24,
        dropout=0.0,
        start_from=save_reader(root),
        text=True,
        vocabulary=80,
        positions=64,
        embedding=8,
    )
    return Model(
        encoder=VisionEncoder(name=save_eye(root), image_size=16),
        connector=replace(connector, **changes),
        llm=None,
        captions=CaptionStyle(max_tokens=12),
    )


def drawn_model(root: Path) -> VisionLanguageModel:
    """The tiny model with weights large enough that its scores differ."""
    torch.manual_seed(0)
    made = VisionLanguageModel(tiny_model(root), with_encoder=False).eval()
    for weight in made.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return made


def tiny_stage1(root: Path, **changes: Any) -> Stage:
    stage = Stage(
        name="tiny1",
        model=tiny_model(root),
        train=("connector",),
        objectives=(ITC(), ITM(), ITG()),
        data=(Source(of=Swatches()),),
        validation=(Source(of=Swatches(num=6, first=100)),),
        optimizer=AdamW(peak_lr=3e-3, weight_decay=0.01),
        schedule=Cosine(warmup_fraction=0.1),
        batch_size=4,
        steps=4,
        log_every=2,
        save_every=2,
        validate_every=2,
    )
    return replace(stage, **changes)


def captioned(*pairs: tuple[int, str]) -> list[Sample]:
    """Samples of (number of the picture, caption)."""
    return [
        Sample(
            id=f"{place}",
            turns=(Turn(role="user", text=IMAGE_MARK), Turn(role="assistant", text=text)),
            images=(Swatch(colour="red", number=number),),
        )
        for place, (number, text) in enumerate(pairs)
    ]


def batch_of(model: VisionLanguageModel, samples: Sequence[Sample]) -> Batch:
    """With features drawn at random for each picture, equal for equal pictures."""
    grid = model.source.grid
    rows = [
        torch.randn(grid.size, model.source.width, generator=torch.Generator().manual_seed(int(one.images[0].number)))
        for one in samples
    ]
    plans = tuple(Plan(size=(16, 16), tiles=Grid(1, 1, 1), views=range(row, row + 1)) for row in range(len(rows)))
    features = Features(tokens=torch.stack(rows), grid=grid, prefix=model.source.prefix)
    return model.config.batch(samples, tokenizer=model.tokenizer, plans=plans, features=features)
