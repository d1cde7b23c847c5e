"""The model carries a question of the chat to a connector that reads text, one for all views of a row."""

import dataclasses
from pathlib import Path

import pytest
import torch
from test_model import NONE, ONE, TWO, PatchConfig, batch, build, llm, sample
from tiny_models import VOCABULARY, save_byte_reader

from isthmus.connectors import InstructQFormerConfig, QFormerConfig
from isthmus.data.sample import Sample, Turn
from isthmus.features import Text
from isthmus.llms import Generation
from isthmus.model import Model, VisionLanguageModel


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def config(root: Path, family: str = "llama", **changes: object) -> Model:
    qformer = QFormerConfig(
        num_queries=4,
        width=16,
        layers=2,
        heads=2,
        ffn_width=24,
        text=True,
        text_model=save_byte_reader(root),
        vocabulary=VOCABULARY + 3,
        positions=32,
    )
    connector = InstructQFormerConfig(qformer=qformer, max_text_tokens=32)
    connector = dataclasses.replace(connector, **changes)
    return Model(encoder=PatchConfig(), connector=connector, llm=llm(root, family))


def louder(model: VisionLanguageModel) -> VisionLanguageModel:
    """The same model with larger weights in the connector, so that a question shows in the loss."""
    for weight in model.connector.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


def read(text: Text, model: VisionLanguageModel) -> list[str]:
    """What the rows say, without their marks."""
    tokenizer = model.config.connector.tokenizer()
    rows = [ids[mask].tolist() for ids, mask in zip(text.ids, text.mask, strict=True)]
    marks = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert all((row[0], row[-1]) == marks for row in rows)
    return [tokenizer.decode(row[1:-1]).replace("Ġ", " ") for row in rows]


def chat(*images: int) -> Sample:
    first = sample("chat", "what is it?", "a cat", *images)
    return dataclasses.replace(
        first, turns=(*first.turns, Turn(role="user", text="which colour?"), Turn(role="assistant", text="red"))
    )


@pytest.mark.parametrize(("reads", "words"), [("last-question", "which colour?"), ("first-question", "what is it?")])
def test_a_row_of_text_is_the_chosen_question_without_image_marks(reads: str, words: str, root: Path) -> None:
    model = build(config(root, reads=reads))
    given = batch(model, chat(1), NONE)
    assert given.text is not None
    assert read(given.text, model) == [words, "why?"]


def test_a_question_that_was_dropped_is_not_read(root: Path) -> None:
    chosen = config(root)
    assert chosen.llm is not None
    short = dataclasses.replace(chosen, llm=dataclasses.replace(chosen.llm, max_tokens=60))
    model = build(short)
    given = batch(model, chat(1))
    assert given.num_cut == 1
    assert given.text is not None
    assert read(given.text, model) == ["what is it?"]


def test_all_images_of_a_row_read_its_question(root: Path) -> None:
    model = build(config(root))
    given = batch(model, ONE, NONE, TWO)
    text = given.view_text()
    assert text is not None
    assert read(text, model) == ["what?", "both of them?", "both of them?"]


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_another_question_to_the_connector_alone_moves_its_own_row(family: str, root: Path) -> None:
    model = louder(build(config(root, family))).eval()
    given = batch(model, ONE, TWO)
    assert given.text is not None
    before = model(given).row_losses(2)
    ids = given.text.ids.clone()
    ids[0, 1] = ids[0, 1] + 1
    after = model(dataclasses.replace(given, text=Text(ids=ids, mask=given.text.mask))).row_losses(2)
    assert abs(after[0] - before[0]) > 1e-5
    assert torch.equal(after[1], before[1])


def test_a_batch_equals_its_samples_alone(root: Path) -> None:
    model = louder(build(config(root))).eval()
    samples = (ONE, TWO, NONE, chat(4))
    together = model(batch(model, *samples)).row_losses(4)
    alone = torch.stack([model(batch(model, one)).row_losses(1)[0] for one in samples])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    options = Generation(max_new_tokens=5)
    assert model.answer(samples, options) == [model.answer([one], options)[0] for one in samples]


def test_every_weight_takes_part_with_and_without_images(root: Path) -> None:
    model = build(config(root)).train()
    model(batch(model, ONE)).loss.backward()
    assert [name for name, weight in model.connector.named_parameters() if weight.grad is None] == []
    model.zero_grad()
    model(batch(model, NONE)).loss.backward()
    for weight in model.connector.parameters():
        assert weight.grad is not None
        assert not weight.grad.any()


def test_a_connector_that_reads_no_text_gets_none(root: Path) -> None:
    model = build(Model(encoder=PatchConfig(), llm=llm(root)))
    assert batch(model, ONE).text is None
    assert batch(model, ONE).view_text() is None
