"""Qwen3-VL's mergers and deepstack: the class's own numbers, from its own weights.

The whole class cannot be imported: its tower takes rotary positions at any size, its language model three-dimensional
ones. So its tower makes the features, and its language model gets plain positions, where both kinds are the same.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
from einops import rearrange
from tiny_models import byte_tokenizer
from torch import Tensor, nn

from isthmus.connectors.key_map import load_official
from isthmus.connectors.qwen3vl_mergers import QWEN3VL_KEYS, Qwen3VlConfig, Qwen3VlMergers
from isthmus.features import Features, FeatureShape, Grid, LLMShape
from isthmus.llms import AddVisual, CausalLM, Generation, LanguageModel

GRID = Grid(1, 4, 6)
LEVELS = (0, 1)
TEXT = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}


def native() -> transformers.Qwen3VLForConditionalGeneration:
    torch.manual_seed(8)
    config = transformers.Qwen3VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "temporal_patch_size": 1,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": list(LEVELS),
        },
        text_config={
            **TEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        },
        tie_word_embeddings=False,
    )
    model = transformers.Qwen3VLForConditionalGeneration(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.2)
    return model


def row_major(blocks: Tensor) -> Tensor:
    """The tower keeps the patches of a block side by side; ours come row by row."""
    sizes = {"h": GRID.rows // 2, "w": GRID.columns // 2, "i": 2, "j": 2}
    return rearrange(blocks, "(h w i j) width -> 1 (h i w j) width", **sizes)


def seen(model: transformers.Qwen3VLForConditionalGeneration) -> tuple[Features, Tensor, list[Tensor]]:
    """What the mergers read, and what the class makes of it."""
    read: dict[str, Tensor] = {}
    visual = model.model.visual
    for name, merger in (
        ("main", visual.merger),
        *((str(k), one) for k, one in enumerate(visual.deepstack_merger_list)),
    ):
        merger.register_forward_pre_hook(lambda _, given, name=name: read.__setitem__(name, given[0].detach()))
    pixels = torch.randn(GRID.size, 3 * 4 * 4)
    with torch.no_grad():
        said = visual(pixels, grid_thw=torch.tensor([[1, GRID.rows, GRID.columns]]))
    levels = tuple(row_major(read[str(k)]) for k in range(len(LEVELS)))
    return (
        Features(tokens=row_major(read["main"]), grid=GRID, levels=levels),
        said.pooler_output,
        said.deepstack_features,
    )


def language_model(model: transformers.Qwen3VLForConditionalGeneration, root: Path) -> LanguageModel:
    """The class's language model as one of ours, with plain positions."""
    plain = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**TEXT, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    )
    text = {f"model.{key}": value for key, value in model.model.language_model.state_dict().items()}
    plain.load_state_dict(text | {"lm_head.weight": model.lm_head.weight})
    plain.save_pretrained(root / "llm")
    byte_tokenizer().save_pretrained(root / "llm")
    return CausalLM(name=str(root / "llm"), max_tokens=64).build()


def test_mergers_and_deepstack_are_equal(tmp_path: Path) -> None:
    model = native()
    features, merged, deeper = seen(model)
    source = FeatureShape(width=16, grid=GRID, level_widths=(16, 16))
    connector = Qwen3VlConfig().build(source, LLMShape(embedding_width=32, hidden_width=32, num_layers=4))
    assert isinstance(connector, Qwen3VlMergers)
    state = {key: value for key, value in model.model.visual.state_dict().items() if "merger" in key}
    load_official(connector, QWEN3VL_KEYS, state, "Qwen3-VL")
    with torch.no_grad():
        mine = connector(features)
    torch.testing.assert_close(mine.tokens[0], merged, atol=1e-5, rtol=1e-5)
    for level, theirs in zip(mine.levels, deeper, strict=True):
        torch.testing.assert_close(level[0], theirs, atol=1e-5, rtol=1e-5)

    llm = language_model(model, tmp_path)
    ids = torch.randint(5, 250, (1, 12))
    visual = torch.zeros(1, 12, dtype=torch.bool)
    visual[:, 3 : 3 + len(merged)] = True
    with torch.no_grad():
        embedded = llm.embed(ids).masked_scatter(visual[..., None], mine.tokens[0])
        places = torch.arange(12).expand(3, 1, 12)
        hidden = model.model.language_model(
            inputs_embeds=embedded.clone(), position_ids=places, visual_pos_masks=visual, deepstack_visual_embeds=deeper
        ).last_hidden_state
        wanted = model.lm_head(hidden)
        addition = AddVisual(visual=visual, deeper=tuple(level[0] for level in mine.levels), layers=(1, 2))
        llm.add_to_layers(addition, 1)
        said = llm.model(inputs_embeds=embedded).logits
        llm.add_to_layers(None, 1)
        without = llm.model(inputs_embeds=embedded).logits
    torch.testing.assert_close(said, wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(without, wanted, atol=1e-2)


@dataclass(frozen=True)
class Rows:
    """Two prompts of 14 and 11 tokens with visual tokens of their own, padded on one side."""

    ids: Tensor
    mask: Tensor
    visual: Tensor
    merged: Tensor
    deeper: list[Tensor]

    def embed(self, llm: LanguageModel) -> Tensor:
        return llm.embed(self.ids).masked_scatter(self.visual[..., None], self.merged)

    def theirs(self, model: transformers.Qwen3VLForConditionalGeneration, embedded: Tensor, new: int = 0) -> Tensor:
        """The class's logits after `new` more tokens, which are embedded already."""
        mask = torch.cat([self.mask, self.mask.new_ones(2, new)], dim=1)
        places = (mask.cumsum(1) - 1).clamp(min=0)
        hidden = model.model.language_model(
            inputs_embeds=embedded.clone(),
            attention_mask=mask,
            position_ids=places.expand(3, *mask.shape),
            visual_pos_masks=torch.cat([self.visual, self.visual.new_zeros(2, new)], dim=1),
            deepstack_visual_embeds=self.deeper,
        ).last_hidden_state
        return model.lm_head(hidden)

    def open_door(self, llm: LanguageModel) -> None:
        llm.add_to_layers(AddVisual(visual=self.visual, deeper=tuple(self.deeper), layers=(1, 2)), 2)


def padded(model: transformers.Qwen3VLForConditionalGeneration, side: str) -> Rows:
    _, merged, deeper = seen(model)
    count = len(merged)
    ids = torch.randint(5, 250, (2, 14))
    mask, visual = torch.ones(2, 14, dtype=torch.long), torch.zeros(2, 14, dtype=torch.bool)
    mask[1, slice(0, 3) if side == "left" else slice(11, 14)] = 0
    visual[0, 2 : 2 + count] = True
    visual[1, 4 : 4 + count] = True
    two = [torch.cat([one, -0.5 * one.flip(0)]).detach() for one in (merged, *deeper)]
    return Rows(ids=ids, mask=mask, visual=visual, merged=two[0], deeper=two[1:])


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_is_equal(side: str, tmp_path: Path) -> None:
    model = native()
    rows, llm = padded(model, side), language_model(model, tmp_path)
    embedded = rows.embed(llm)
    wanted = rows.theirs(model, embedded)
    rows.open_door(llm)
    places = (rows.mask.cumsum(1) - 1).clamp(min=0)
    said = llm.model(inputs_embeds=embedded, attention_mask=rows.mask, position_ids=places).logits
    real = rows.mask.bool()
    torch.testing.assert_close(said[real], wanted[real], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_greedy_writings_of_a_padded_batch_are_equal(tmp_path: Path) -> None:
    model = native()
    rows, llm = padded(model, "left"), language_model(model, tmp_path)
    embedded = rows.embed(llm)
    sequence, wanted = embedded, []
    for new in range(6):
        wanted.append(rows.theirs(model, sequence, new)[:, -1].argmax(dim=-1))
        sequence = torch.cat([sequence, llm.embed(wanted[-1][:, None])], dim=1)
    theirs = torch.stack(wanted, dim=1).tolist()
    assert all(2 not in row for row in theirs), "a row that ends early would be compared in part"
    options = Generation(max_new_tokens=6)
    rows.open_door(llm)
    assert llm.generate(embedded, rows.ids, rows.mask.bool(), options) == theirs
    llm.add_to_layers(None, 2)
    assert llm.generate(embedded, rows.ids, rows.mask.bool(), options) != theirs
