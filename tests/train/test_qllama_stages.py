"""InternVL 1.0's stages on a tiny QLLaMA: its three texts, whole runs, its start from a LLaMA, and a gallery."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import VOCABULARY, save_model
from tiny_stage import Swatches
from tiny_stage1 import batch_of, captioned, tiny_stage1
from transformers import LlamaConfig, LlamaForCausalLM

from isthmus.connectors import QLlamaConfig
from isthmus.data.captions import CaptionStyle
from isthmus.data.sources.base import Source
from isthmus.features import FeatureShape, Grid
from isthmus.model import VisionLanguageModel
from isthmus.train.loop import train
from isthmus.train.objectives import ITC, ITG, ITM
from isthmus.train.stage import Stage

SMALL = QLlamaConfig(
    num_queries=3,
    width=16,
    layers=2,
    heads=2,
    ffn_width=24,
    text=True,
    vocabulary=VOCABULARY,
    embedding=8,
    pool_heads=2,
)
CONTRAST, MATCH, WRITE = (
    ITC(label_smoothing=0.0, gradients="both"),
    ITM(negatives="given"),
    ITG(label_smoothing=0.0),
)


def stage(root: Path) -> Stage:
    tiny = tiny_stage1(root, steps=2)
    connector = replace(SMALL, text_model=save_model("llama", root))
    captions = CaptionStyle(max_tokens=20, contrast_prefix="s:", write_prefix="cap:")
    model = replace(tiny.model, connector=connector, captions=captions)
    return replace(tiny, model=model, objectives=(CONTRAST, MATCH, WRITE))


def test_each_caption_is_written_three_ways(root: Path) -> None:
    model = VisionLanguageModel(stage(root).model, with_encoder=False)
    captions = batch_of(model, captioned((1, "ab"), (1, "c"), (2, "d"))).captions
    decode = model.tokenizer.decode
    assert decode(captions.match.ids[0]) == "<s>ab</s>"
    assert decode(captions.contrast.ids[1][captions.contrast.mask[1]]) == "<s>s:c</s>"
    assert decode(captions.write.ids[2][captions.write.mask[2]]) == "<s>cap:d</s>"
    learnt = captions.targets[0] != -100
    assert decode(captions.targets[0][learnt]) == ":ab</s>"  # the prefix's last token is learnt too
    assert [decode(row[mask]) for row, mask in zip(captions.negatives.ids, captions.negatives.mask, strict=True)] == [
        "<s>d</s>",
        "<s>d</s>",
        "<s>ab</s>",
    ]
    assert not bool(captions.negatives_empty.any())
    alone = batch_of(model, captioned((1, "ab"), (1, "c"))).captions
    assert bool(alone.negatives_empty.all())


def test_the_middleware_trains(root: Path, tmp_path: Path) -> None:
    run = train(stage(root), tmp_path / "run", progress=False)
    assert {"itc", "itm", "itg"} <= set(run.log()[1])
    assert run.finished


def test_contrast_with_a_learning_encoder_trains_what_it_touches(root: Path, tmp_path: Path) -> None:
    first = replace(
        stage(root),
        objectives=(replace(CONTRAST, vectors="features"),),
        train=("encoder", "connector.words", "connector.layers", "connector.norm", "connector.heads"),
        validation=(),
        data=(Source(of=Swatches(num=8)),),
    )
    run = train(first, tmp_path / "run", progress=False)
    assert "itc_features" in run.log()[1]
    assert any(name.startswith("encoder.") for name in run.weights())


def test_starts_from_a_llama_and_says_what_does_not_fit(root: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    made = LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=24, vocab_size=VOCABULARY, rms_norm_eps=1e-6))
    made.save_pretrained(tmp_path / "llama")
    source = FeatureShape(width=6, grid=Grid(1, 2, 2))
    started = replace(SMALL, start_from=str(tmp_path / "llama")).build_alone(source).state_dict()
    theirs = made.state_dict()
    assert torch.equal(started["layers.1.gate.weight"], theirs["model.layers.1.mlp.gate_proj.weight"])
    assert torch.equal(started["layers.0.attention.out.weight"], theirs["model.layers.0.self_attn.o_proj.weight"])
    assert torch.equal(started["heads.write.weight"], theirs["lm_head.weight"])
    assert 0.01 < float(started["layers.0.cross.key.weight"].std()) < 0.03
    with pytest.raises(ValueError, match=r"intermediate_size=32 against 24"):
        replace(SMALL, ffn_width=32, start_from=str(tmp_path / "llama")).build_alone(source)
    with pytest.raises(ValueError, match="num_key_value_heads"):
        replace(SMALL, width=32, layers=3, heads=4, ffn_width=48, start_from=save_model("llama", root)).build_alone(
            source
        )


def test_a_text_of_an_image_scores_alike_alone_and_in_one_pass(root: Path) -> None:
    """Mined negatives take a pass of their own, given ones the joint pass: the same pair has the same logits."""
    torch.manual_seed(0)
    model = VisionLanguageModel(stage(root).model, with_encoder=False).eval()
    batch = batch_of(model, captioned((1, "ab"), (2, "cd"), (3, "e")))
    features, captions = batch.features, batch.captions
    apart = model.connector.reading(features, captions)
    joint = model.connector.reading(features, captions)
    for part in ("contrast", "match", "write"):
        joint.expect(part)
    with torch.no_grad():
        one = apart.match(captions.match, [0, 1, 2], None)
        other = joint.match(captions.match, [0, 1, 2], None)
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(apart.images("queries"), joint.images("queries"), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(apart.texts(), joint.texts(), atol=1e-5, rtol=1e-4)
        turned = joint.match(captions.match, [1, 0, 2], None)
    assert not torch.allclose(turned[:2], one[:2], atol=1e-4)
