"""The token sequence of images with tiles, and its place among the text, against the public code's own."""

from dataclasses import replace
from typing import Any

import torch
from oracle_files import Oracle, oracles
from torch import Tensor
from torch.nn import functional

from isthmus.connectors.arrange import Anyres, Concatenate
from isthmus.connectors.arrange.base import Arrangement, ArrangementConfig
from isthmus.encoders.tiles import AnyresTiles
from isthmus.features import Grid, LLMShape, Placed, Plan, VisualTokens

IMAGE = -200
IGNORED = -100
ARRANGEMENTS: dict[str, ArrangementConfig] = {
    "spatial_unpad": Anyres(),
    "spatial": Anyres(unpad=False, newline=False),
    "flat": Concatenate(),
}
"""What the public code calls its ways to merge tiles."""


def layout(oracle: Oracle) -> tuple[Arrangement, list[Plan], VisualTokens]:
    """Our arrangement with the file's newline, and the plans of its images as our tiling makes them."""
    config, newline = oracle.config, oracle.tensors["weights/image_newline"]
    side, tile = config["patches_per_side"], config["tile"]
    arrange = ARRANGEMENTS[config["mm_patch_merge_type"]]
    if isinstance(arrange, Anyres):
        arrange = replace(arrange, max_tiles=config.get("max_num_patches"))
    width = len(newline)
    made = arrange.build(LLMShape(embedding_width=width, hidden_width=width, num_layers=1))
    made.load_state_dict({"newline": newline} if made.state_dict() else {})
    tiling = AnyresTiles(grids=tuple((wide // tile, high // tile) for wide, high in config["pinpoints_wh"]))
    plans: list[Plan] = []
    views: list[Tensor] = []
    first = 0
    for number, (wide, high) in enumerate(config["image_sizes_wh"]):
        features = oracle.tensors[f"inputs/image_features_{number}"]
        cut = tiling.cut((wide, high), tile)
        if len(features) > 1:
            assert cut.num_views == len(features)
        rows = range(first, first + len(features))
        plans.append(Plan(size=(wide, high), tiles=cut.grid, views=rows, whole=cut.whole, tokens=Grid(1, side, side)))
        views.append(features)
        first = rows.stop
    for plan in plans:
        placed = made(VisualTokens(torch.cat(views)), [plan])
        assert arrange.num_tokens(plan, side * side) == len(placed.tokens)
    return made, plans, VisualTokens(torch.cat(views))


def in_order(oracle: Oracle, packed: list[Tensor]) -> list[Tensor]:
    """The images as the rows' marks use them up, where the file says in which order."""
    order = oracle.tensors.get("inputs/image_order")
    return packed if order is None else [packed[number] for number in order.tolist()]


def spliced(oracle: Oracle, parts: list[Tensor]) -> dict[str, Tensor]:
    """Text and images in one padded batch: an image in place of its mark; a row without a mark uses one up."""
    config, table = oracle.config, oracle.tensors["weights/embed_tokens.weight"]
    ids, mask = oracle.tensors["inputs/input_ids"], oracle.tensors["inputs/attention_mask"].bool()
    labels, waiting = oracle.tensors["inputs/labels"], iter(parts)
    rows: list[tuple[Tensor, Tensor]] = []
    for row in range(len(ids)):
        embedded, kept = [table[:0]], [labels[row, :0]]
        marks = 0
        for token, label in zip(ids[row][mask[row]], labels[row][mask[row]], strict=True):
            if int(token) == IMAGE:
                marks += 1
                embedded.append(next(waiting))
                kept.append(torch.full((len(embedded[-1]),), IGNORED))
            else:
                embedded.append(table[token][None])
                kept.append(label[None])
        if not marks:
            next(waiting, None)
        limit = config.get("tokenizer_model_max_length")
        rows.append((torch.cat(embedded)[:limit], torch.cat(kept)[:limit]))
    return padded(rows, left=config["padding_side"] == "left")


def padded(rows: list[tuple[Tensor, Tensor]], *, left: bool) -> dict[str, Tensor]:
    length = max(len(labels) for _, labels in rows)

    def fill(one: Tensor, value: Any) -> Tensor:
        blank = length - len(one)
        sides = (blank, 0) if left else (0, blank)
        return functional.pad(one, (0, 0, *sides) if one.dim() == 2 else sides, value=value)

    return {
        "inputs_embeds": torch.stack([fill(embedded, 0.0) for embedded, _ in rows]),
        "labels": torch.stack([fill(labels, IGNORED) for _, labels in rows]),
        "attention_mask": torch.stack([fill(torch.ones_like(labels), 0) for _, labels in rows]),
    }


@oracles("llava_next_layout")
def test_llava_next(name: str) -> None:
    with Oracle(name) as oracle:
        made, plans, visual = layout(oracle)
        placed: Placed = made(visual, plans)
        got = spliced(oracle, in_order(oracle, list(torch.split(placed.tokens, list(placed.lengths)))))
        for key, value in got.items():
            oracle.check(f"outputs/{key}", value, atol=0.0, rtol=0.0)


@oracles("llava_onevision_layout")
def test_onevision(name: str) -> None:
    with Oracle(name) as oracle:
        made, plans, visual = layout(oracle)
        placed: Placed = made(visual, plans)
        packed = list(torch.split(placed.tokens, list(placed.lengths)))
        for number, part in enumerate(packed):
            oracle.check(f"outputs/packed_{number}", part)
        got = spliced(oracle, in_order(oracle, packed))
        for key in ("inputs_embeds", "labels", "attention_mask"):
            oracle.check(f"outputs/{key}", got[key])
