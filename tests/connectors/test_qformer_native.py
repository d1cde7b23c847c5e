"""Q-Former weights of the native `transformers` classes, loaded strictly by name, give the same visual tokens."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
)

from isthmus.connectors import InstructQFormerConfig, QFormerConfig
from isthmus.connectors.key_map import KeyMap, load_official
from isthmus.connectors.qformer_keys import BLIP2_NATIVE, INSTRUCTBLIP_NATIVE, below, connector_part
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Text
from isthmus.weights import quiet_transformers

VISION = {
    "hidden_size": 12,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
QFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "encoder_hidden_size": 12,
    "cross_attention_frequency": 2,
    "vocab_size": 40,
    "max_position_embeddings": 12,
}
LM = {
    "model_type": "opt",
    "hidden_size": 20,
    "word_embed_proj_dim": 20,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "ffn_dim": 24,
    "vocab_size": 50,
    "max_position_embeddings": 32,
}
INNER = QFormerConfig(num_queries=3, width=16, layers=3, heads=2, ffn_width=24, vocabulary=40, positions=12)
GRID = Grid(1, 2, 2)
SOURCE = FeatureShape(width=12, grid=GRID, prefix=1)
TARGET = LLMShape(embedding_width=20, hidden_width=20, num_layers=1)


def native(made: Any) -> Any:
    """The model with weights large enough to tell layers apart."""
    torch.manual_seed(1)
    with quiet_transformers():
        model = made().eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    return model


def looked_at(model: Any, pixels: Tensor) -> Tensor:
    """What the tower gives before the norm that stands between it and the Q-Former."""
    kept: list[Tensor] = []
    hook = model.vision_model.post_layernorm.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    with torch.no_grad():
        model.vision_model(pixels)
    hook.remove()
    return kept[0]


def loaded(connector: Any, keys: KeyMap, model: Any, *, text: bool, name: str = "") -> Any:
    part = connector_part(model.state_dict(), keys, text=text)
    load_official(connector, below(keys, name) if name else keys, part, "the native model")
    return connector.eval()


def test_blip2() -> None:
    config = Blip2Config(vision_config=VISION, qformer_config=QFORMER, text_config=LM, num_query_tokens=3)
    model = native(lambda: Blip2ForConditionalGeneration(config))
    pixels = torch.randn(2, 3, 8, 8)
    connector = loaded(INNER.build(SOURCE, TARGET), BLIP2_NATIVE, model, text=False)
    with torch.no_grad():
        seen = model.vision_model(pixels).last_hidden_state
        queries = model.qformer(
            query_embeds=model.query_tokens.expand(2, -1, -1), encoder_hidden_states=seen
        ).last_hidden_state
        wanted = model.language_projection(queries)
        given = connector(Features(tokens=looked_at(model, pixels), grid=GRID, prefix=1)).tokens
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)


def test_instructblip() -> None:
    config = InstructBlipConfig(vision_config=VISION, qformer_config=QFORMER, text_config=LM, num_query_tokens=3)
    model = native(lambda: InstructBlipForConditionalGeneration(config))
    pixels = torch.randn(2, 3, 8, 8)
    reading = InstructQFormerConfig(qformer=dataclasses.replace(INNER, text=True), max_text_tokens=12)
    connector = loaded(reading.build(SOURCE, TARGET), INSTRUCTBLIP_NATIVE, model, text=True, name="qformer")
    text = Text(ids=torch.randint(1, 40, (2, 5)), mask=torch.tensor([[True] * 5, [True] * 3 + [False] * 2]))
    with torch.no_grad():
        seen = model.vision_model(pixels).last_hidden_state
        mask = torch.cat([torch.ones(2, 3), text.mask.float()], dim=1)
        queries = model.qformer(
            input_ids=text.ids,
            attention_mask=mask,
            query_embeds=model.query_tokens.expand(2, -1, -1),
            encoder_hidden_states=seen,
        ).last_hidden_state[:, :3]
        wanted = model.language_projection(queries)
        given = connector(Features(tokens=looked_at(model, pixels), grid=GRID, prefix=1), text).tokens
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)


def test_a_missing_native_weight_is_named() -> None:
    connector = INNER.build(SOURCE, TARGET)
    state = BLIP2_NATIVE.to_official(connector.state_dict())
    del state["qformer.layernorm.weight"]
    with pytest.raises(ValueError, match=r"1 missing: qformer\.layernorm\.weight"):
        load_official(connector, BLIP2_NATIVE, state, "the native model")
