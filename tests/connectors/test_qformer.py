"""The Q-Former against public implementations, its three attention patterns, and its start from a BERT."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oracle_files import oracle, part
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, BertModel, Blip2QFormerConfig, Blip2QFormerModel

from isthmus.connectors import QFormerConfig
from isthmus.connectors.qformer import QFormer
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Text
from isthmus.weights import load_strict, quiet_transformers

SOURCE = FeatureShape(width=10, grid=Grid(1, 2, 3), prefix=1)
TARGET = LLMShape(embedding_width=14, hidden_width=14, num_layers=1)
CONFIG = QFormerConfig(num_queries=3, width=16, layers=3, heads=2, ffn_width=24, text=True, vocabulary=40, positions=12)

PUBLIC_NAMES = {
    "attention.query": "attention.{}.query",
    "attention.key": "attention.{}.key",
    "attention.value": "attention.{}.value",
    "attention.out": "attention.output.dense",
    "attention.norm": "attention.output.LayerNorm",
    "query_ffn.widen": "intermediate_query.dense",
    "query_ffn.narrow": "output_query.dense",
    "query_ffn.norm": "output_query.LayerNorm",
    "text_ffn.widen": "intermediate.dense",
    "text_ffn.narrow": "output.dense",
    "text_ffn.norm": "output.LayerNorm",
}
PUBLIC_NAMES |= {
    f"cross.{ours.removeprefix('attention.')}": f"cross{theirs}"
    for ours, theirs in PUBLIC_NAMES.items()
    if ours.startswith("attention.")
}


def from_public(module: QFormer, public: dict[str, Tensor], prefix: str, inner: str) -> None:
    """Copies the layers of a public Q-Former (its names, below `prefix`) into ours, every one of ours."""
    state = module.state_dict()
    for key in state:
        if not key.startswith("layers."):
            continue
        _, number, rest = key.split(".", 2)
        stem, kind = rest.rsplit(".", 1)
        state[key] = public[f"{prefix}{number}.{PUBLIC_NAMES[stem].format(inner)}.{kind}"]
    load_strict(module, state, "the public Q-Former")


def features(rows: int, seed: int = 1, width: int = 10) -> Features:
    return Features(
        tokens=torch.randn(rows, 7, width, generator=torch.Generator().manual_seed(seed)), grid=SOURCE.grid, prefix=1
    )


def words(rows: int, length: int = 5, lengths: tuple[int, ...] = ()) -> Text:
    ids = torch.randint(1, 40, (rows, length), generator=torch.Generator().manual_seed(2))
    ends = torch.tensor(lengths if lengths else (length,) * rows)
    return Text(ids=ids, mask=torch.arange(length)[None] < ends[:, None])


def made(config: QFormerConfig = CONFIG) -> QFormer:
    torch.manual_seed(0)
    module = config.build(SOURCE, TARGET).eval()
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return module


def test_queries_and_text_equal_transformers() -> None:
    with quiet_transformers():
        public = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=16,
                num_hidden_layers=3,
                num_attention_heads=2,
                intermediate_size=24,
                encoder_hidden_size=10,
                cross_attention_frequency=2,
                use_qformer_text_input=True,
                vocab_size=40,
            )
        ).eval()
    for weight in public.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    module = made()
    from_public(module, public.state_dict(), "encoder.layer.", "attention")
    module.norm.load_state_dict(public.layernorm.state_dict())
    image, text = features(2), words(2, lengths=(5, 3))
    seen = module.ln_vision(image.tokens)
    with torch.no_grad():
        queries = public(module.queries.expand(2, -1, -1), encoder_hidden_states=seen).last_hidden_state
        torch.testing.assert_close(module.read(image, None, mask="uni-modal").queries, queries, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(module(image).tokens, module.project(queries), atol=1e-5, rtol=1e-4)
        embedded = module.words(text.ids) + module.positions(torch.arange(5))
        joint = public(
            torch.cat([module.queries.expand(2, -1, -1), embedded], dim=1),
            query_length=3,
            attention_mask=torch.cat([torch.ones(2, 3), text.mask.float()], dim=1),
            encoder_hidden_states=seen,
        ).last_hidden_state
        ours = module.read(image, text, mask="bidirectional")
    torch.testing.assert_close(ours.queries, joint[:, :3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.text[text.mask], joint[:, 3:][text.mask], atol=1e-5, rtol=1e-4)


def test_all_three_patterns_give_the_numbers_of_blip2_stage_1() -> None:
    tensors, sizes = oracle("blip2_stage1")
    weights = part(tensors, "weights/")
    config = QFormerConfig(
        num_queries=sizes["queries"],
        width=sizes["hidden"],
        layers=sizes["layers"],
        heads=sizes["heads"],
        ffn_width=sizes["ffn"],
        cross_every=sizes["cross_freq"],
        text=True,
        vocabulary=sizes["vocab"],
        positions=sizes["maxpos"],
    )
    grid = Grid(1, 3, 3)
    module = config.build(FeatureShape(width=sizes["encoder_width"], grid=grid), TARGET).eval()
    from_public(module, weights, "Qformer.bert.encoder.layer.", "self")
    bert = part(weights, "Qformer.bert.embeddings.")
    module.words.load_state_dict(part(bert, "word_embeddings."))
    module.positions.load_state_dict(part(bert, "position_embeddings."))
    module.norm.load_state_dict(part(bert, "LayerNorm."))
    module.ln_vision.load_state_dict(part(weights, "ln_vision."))
    module.queries.data = weights["query_tokens"][0]
    given, said = part(tensors, "inputs/"), part(tensors, "outputs/")
    image = Features(tokens=given["visual_features"], grid=grid)
    text = Text(ids=given["input_ids"], mask=given["attention_mask"].bool())
    close = {"atol": 1e-5, "rtol": 1e-4}
    with torch.no_grad():
        apart = module.read(image, text, mask="uni-modal")
        torch.testing.assert_close(apart.queries, said["query_last_hidden_state"], **close)
        torch.testing.assert_close(apart.text[text.mask], said["text_last_hidden_state"][text.mask], **close)

        rows = list(range(4))
        owner = rows + given["itm_negative_image_index"].tolist() + rows
        order = torch.tensor(rows + rows + given["itm_negative_text_index"].tolist())
        pairs = Text(ids=text.ids[order], mask=text.mask[order])
        assert torch.equal(pairs.ids, said["itm_text_ids_all"])
        joint = module.read(image, pairs, mask="bidirectional", owner=owner)
        torch.testing.assert_close(joint.queries, said["itm_query_last_hidden_state"], **close)

        caption = Text(ids=said["lm_input_ids"], mask=text.mask)
        for told in (
            module.read(image, caption, mask="causal"),
            module.read(None, caption, mask="causal", past=apart),
        ):
            head = part(weights, "Qformer.cls.predictions.")
            hidden = functional.gelu(
                functional.linear(told.text, head["transform.dense.weight"], head["transform.dense.bias"])
            )
            norm = head["transform.LayerNorm.weight"], head["transform.LayerNorm.bias"]
            logits = functional.linear(
                functional.layer_norm(hidden, (48,), *norm, 1e-12), head["decoder.weight"], head["bias"]
            )
            torch.testing.assert_close(logits[text.mask], said["lm_logits"][text.mask], **close)


def test_uni_modal_streams_do_not_see_each_other() -> None:
    module, image, text = made(), features(2), words(3)
    both = module.read(image, text, mask="uni-modal")
    assert torch.equal(both.queries, module.read(image, None, mask="uni-modal").queries)
    assert torch.equal(both.text, module.read(None, text, mask="uni-modal").text)
    assert both.queries.shape == (2, 3, 16)
    assert both.text.shape == (3, 5, 16)


def test_causal_text_sees_the_queries_and_earlier_text_only() -> None:
    module, image, text = made(), features(1), words(1)
    before = module.read(image, text, mask="causal")
    later = Text(ids=text.ids.clone(), mask=text.mask)
    later.ids[0, 3] = (later.ids[0, 3] + 1) % 40
    after = module.read(image, later, mask="causal")
    assert torch.equal(before.text[:, :3], after.text[:, :3])
    assert not torch.allclose(before.text[:, 3:], after.text[:, 3:])
    assert torch.equal(before.queries, after.queries)
    other = module.read(features(1, seed=9), text, mask="causal")
    assert not torch.allclose(before.text, other.text)


def test_bidirectional_queries_read_the_text_and_not_its_padding() -> None:
    module, image = made(), features(1)
    text = words(1, lengths=(3,))
    before = module.read(image, text, mask="bidirectional")
    for place, same in ((4, True), (1, False)):
        changed = Text(ids=text.ids.clone(), mask=text.mask)
        changed.ids[0, place] = (changed.ids[0, place] + 1) % 40
        after = module.read(image, changed, mask="bidirectional")
        assert torch.allclose(before.queries, after.queries) is same


@pytest.mark.parametrize("mask", ["bidirectional", "causal"])
def test_owner_says_which_image_a_text_reads(mask: str) -> None:
    module, image, text = made(), features(2), words(3, lengths=(5, 4, 2))
    shared = module.read(image, text, mask=mask, owner=[1, 0, 1])
    repeated = Features(tokens=image.tokens[[1, 0, 1]], grid=image.grid, prefix=1)
    alone = module.read(repeated, text, mask=mask)
    torch.testing.assert_close(shared.text, alone.text, atol=1e-6, rtol=1e-5)
    if mask == "bidirectional":
        torch.testing.assert_close(shared.queries, alone.queries, atol=1e-6, rtol=1e-5)


def test_padded_patches_are_not_seen_and_the_class_token_is() -> None:
    module, image = made(), features(1)
    valid = torch.tensor([[True, True, True, True, False, True]])
    padded = Features(tokens=image.tokens, grid=image.grid, prefix=1, valid=valid)
    before = module(padded).tokens
    for place, same in ((5, True), (6, False), (0, False)):  # places count the class token
        changed = image.tokens.clone()
        changed[0, place] += 3 * torch.randn(10)
        after = module(Features(tokens=changed, grid=image.grid, prefix=1, valid=valid)).tokens
        assert torch.allclose(before, after) is same


def bert(folder: Path, **sizes: int) -> Path:
    config = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        BertModel(BertConfig(vocab_size=38, max_position_embeddings=12, **(config | sizes))).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("text", [True, False])
def test_starts_from_a_bert(tmp_path: Path, text: bool) -> None:
    folder = bert(tmp_path / "reader")
    public = BertModel.from_pretrained(folder).state_dict()
    config = QFormerConfig(
        num_queries=3,
        width=16,
        layers=3,
        heads=2,
        ffn_width=24,
        text=text,
        vocabulary=40,
        positions=12,
        start_from=str(folder),
    )
    state = config.build(SOURCE, TARGET).state_dict()
    for number in range(3):
        theirs = f"encoder.layer.{number}."
        assert torch.equal(state[f"layers.{number}.attention.key.weight"], public[theirs + "attention.self.key.weight"])
        for ours, name in (("widen", "intermediate.dense"), ("narrow", "output.dense"), ("norm", "output.LayerNorm")):
            for stream in ("query_ffn", "text_ffn") if text else ("query_ffn",):
                assert torch.equal(state[f"layers.{number}.{stream}.{ours}.weight"], public[f"{theirs}{name}.weight"])
    assert torch.equal(state["norm.weight"], public["embeddings.LayerNorm.weight"])
    assert 0.01 < float(state["layers.0.cross.query.weight"].std()) < 0.03
    assert not bool(state["layers.0.cross.query.bias"].any())
    assert ("words.weight" in state) is text
    if text:  # the two rows that the BERT lacks start fresh
        assert torch.equal(state["words.weight"][:38], public["embeddings.word_embeddings.weight"])
        assert bool(state["words.weight"][38:].any())


def test_the_head_that_fills_masks_becomes_the_writer(tmp_path: Path) -> None:
    folder = tmp_path / "masked"
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    masked = BertForMaskedLM(BertConfig(vocab_size=38, max_position_embeddings=12, **sizes))
    torch.nn.init.normal_(masked.cls.predictions.bias)
    with quiet_transformers():
        masked.save_pretrained(folder)
    config = replace(CONFIG, embedding=4, start_from=str(folder))
    state = config.build_alone(SOURCE).state_dict()
    head = masked.cls.predictions
    assert torch.equal(state["heads.transform.weight"], head.transform.dense.weight)
    assert torch.equal(state["heads.norm.bias"], head.transform.LayerNorm.bias)
    assert torch.equal(state["heads.bias"][:38], head.bias)
    assert not bool(state["heads.bias"][38:].any())  # of the words that the BERT lacks
    without = replace(config, start_from=str(bert(tmp_path / "reader"))).build_alone(SOURCE).state_dict()
    assert 0.01 < float(without["heads.transform.weight"].std()) < 0.03


def test_a_fresh_qformer_has_berts_initial_values() -> None:
    torch.manual_seed(0)
    state = QFormerConfig(width=64, layers=2, heads=4, ffn_width=128).build(SOURCE, TARGET).state_dict()
    assert 0.018 < float(state["queries"].std()) < 0.022
    assert 0.018 < float(state["layers.0.cross.value.weight"].std()) < 0.022
    assert not bool(state["layers.1.query_ffn.widen.bias"].any())


def test_other_initial_values_are_of_what_starts_fresh_alone(tmp_path: Path) -> None:
    folder = bert(tmp_path / "reader")
    config = QFormerConfig(width=16, layers=3, heads=2, ffn_width=24, start_from=str(folder), initializer_range=0.3)
    torch.manual_seed(0)
    wide, narrow = (one.build(SOURCE, TARGET).state_dict() for one in (config, replace(config, initializer_range=0.02)))
    for fresh in ("queries", "layers.0.cross.key.weight"):
        assert 0.2 < float(wide[fresh].std()) < 0.4
        assert float(narrow[fresh].std()) < 0.03
    assert torch.equal(wide["layers.0.attention.key.weight"], narrow["layers.0.attention.key.weight"])
    with pytest.raises(ValueError, match=r"initializer_range=0.0\) must be above 0"):
        replace(config, initializer_range=0.0)


def test_a_start_that_does_not_fit_says_what_differs(tmp_path: Path) -> None:
    folder = bert(tmp_path / "reader", num_hidden_layers=2)
    with pytest.raises(ValueError, match=r"num_hidden_layers=3 against 2"):
        QFormerConfig(width=16, layers=3, heads=2, ffn_width=24, start_from=str(folder)).build(SOURCE, TARGET)
    with pytest.raises(ValueError, match=r"vocab_size=30 against 38"):
        QFormerConfig(
            width=16, layers=2, heads=2, ffn_width=24, text=True, vocabulary=30, start_from=str(folder)
        ).build(SOURCE, TARGET)
    (folder / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match=r"BERT-shaped model, but .* is a 'vit' model"):
        QFormerConfig(width=16, layers=2, heads=2, ffn_width=24, start_from=str(folder)).build(SOURCE, TARGET)


def test_what_cannot_be_read_is_refused() -> None:
    module, image, text = made(), features(2), words(3)
    silent = made(QFormerConfig(num_queries=3, width=16, layers=1, heads=2, ffn_width=24))
    refused = [
        (lambda: module.read(None, None, mask="uni-modal"), "nothing to read"),
        (lambda: silent.read(image, text, mask="uni-modal"), r"QFormerConfig\(text=True\)"),
        (lambda: module.read(image, text, mask="causal"), "3 texts came with 2 feature rows"),
        (lambda: module.read(image, text, mask="causal", owner=[0, 1, 2]), "one of 2 feature rows for each of 3 texts"),
        (lambda: module.read(image, None, mask="uni-modal", owner=[0]), "no text came"),
        (lambda: module.read(None, text, mask="bidirectional"), "reads an image"),
        (lambda: module.read(None, words(1, length=13), mask="uni-modal"), "13 tokens .* 12 positions"),
        (
            lambda: module.read(image, text, mask="causal", past=module.read(image, None, mask="uni-modal")),
            "in place of",
        ),
    ]
    for attempt, message in refused:
        with pytest.raises(ValueError, match=message):
            attempt()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "width=768.*heads=5"),
        ({"num_queries": 0}, "num_queries=0"),
        ({"cross_every": 0}, "cross_every=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QFormerConfig(**change)


def test_dropout_works_in_training_only() -> None:
    module, image = made(), features(1)
    assert torch.equal(module(image).tokens, module(image).tokens)
    module.train()
    assert not torch.equal(module(image).tokens, module(image).tokens)
