"""Flamingo's gated cross-attention block against OpenFlamingo's numbers."""

import torch
from oracle_files import Oracle, oracles

from isthmus.connectors.gated_cross_attention import (
    GATED_BLOCK_KEYS,
    GatedBlock,
    GatedCrossAttentionConfig,
)
from isthmus.connectors.identity import IdentityConfig
from isthmus.connectors.key_map import load_official
from isthmus.features import FeatureShape, Grid, LLMShape, Placed
from isthmus.llms import LayerState


@oracles("open_flamingo_gated_xattn")
def test_gated_block(name: str) -> None:
    with Oracle(name) as oracle:
        sizes, given = oracle.config, oracle.below("inputs/")
        rows, images, latents, width = given["media"].shape
        config = GatedCrossAttentionConfig(
            resampler=IdentityConfig(),
            heads=sizes["heads"],
            head_width=sizes["dim_head"],
            ffn_factor=oracle.tensors["weights/ff.1.weight"].shape[0] // sizes["dim"],
            see="last" if sizes["only_attend_immediate_media"] else "all",
        )
        target = LLMShape(embedding_width=sizes["dim"], hidden_width=sizes["dim"], num_layers=1)
        connector = config.build(FeatureShape(width=width, grid=Grid(1, 1, latents)), target)
        block = connector.blocks["0"]
        assert isinstance(block, GatedBlock)
        load_official(block, GATED_BLOCK_KEYS, oracle.below("weights/"), name)
        begun = given["media_locations"].cumsum(dim=1)
        seen = torch.where(begun > 0, torch.arange(rows)[:, None] * images + begun - 1, -1)
        memory = given["media"].flatten(0, 1).requires_grad_()
        placed = Placed(
            tokens=torch.zeros(rows * images, sizes["dim"]),
            lengths=(1,) * (rows * images),
            memory=memory,
            owner=tuple(range(rows * images)),
        )
        owners = tuple(row for row in range(rows) for _ in range(images))
        addition = connector.addition(placed, seen, owners)
        x = given["x"].requires_grad_()
        y = addition(x, 0, LayerState(0, 1))
        oracle.check("outputs/y", y)
        y.square().mean().backward()
        grads = GATED_BLOCK_KEYS.to_official({key: weight.grad for key, weight in block.named_parameters()})
        assert memory.grad is not None
        grads |= {"x": x.grad, "media": memory.grad.unflatten(0, (rows, images))}
        oracle.check_gradients(grads)
