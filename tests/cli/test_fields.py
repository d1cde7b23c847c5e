"""Any field of a recipe can be set, and nothing that is not a field."""

import pytest

from isthmus.cli.fields import option_names, with_fields
from isthmus.connectors import AveragePoolConfig, MlpConfig, QFormerConfig
from isthmus.encoders import VisionEncoder
from isthmus.llms import EncoderDecoderLM
from isthmus.recipes.llava15 import stage1, tiny_stage1
from isthmus.train.stage import Stage


def set_fields(*arguments: str) -> Stage:
    return with_fields(stage1(), arguments, command="train llava15/stage1")


def test_nothing_set_is_the_recipe() -> None:
    assert set_fields() == stage1()


def test_numbers_tuples_choices_and_none() -> None:
    stage = set_fields(
        *("--model.encoder.layers", "-2", "-5", "--model.encoder.fit", "crop", "--optimizer.peak-lr", "2e-4"),
        *("--optimizer.rates", "connector", "1e-3", "--train", "connector", "llm"),
        *("--epochs", "None", "--steps", "7", "--data.0.weight", "2"),
    )
    assert isinstance(stage.model.encoder, VisionEncoder)
    assert (stage.model.encoder.layers, stage.model.encoder.fit) == ((-2, -5), "crop")
    assert (stage.optimizer.peak_lr, stage.optimizer.rates) == (2e-4, (("connector", 1e-3),))
    assert (stage.train, stage.epochs, stage.steps) == (("connector", "llm"), None, 7)
    assert stage.data[0].weight == 2.0


def test_a_kind_by_name_then_its_fields() -> None:
    assert set_fields("--model.connector", "q-former").model.connector == QFormerConfig()
    pool = set_fields("--model.connector", "average-pool", "--model.connector.depth", "1", "--batch-size", "8")
    assert pool.model.connector == AveragePoolConfig(depth=1)
    assert pool.batch_size == 8
    assert set_fields("--model.llm", "encoder-decoder").model.llm == EncoderDecoderLM()
    assert set_fields("--model.connector", "mlp").model.connector == MlpConfig()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model.encoder.image_siz", "96"), "Did you mean '--model.encoder.image-size'"),
        (("--data.1.weight", "1"), "Did you mean '--data.0.weight'"),
        (("--model.arrange", "concat"), "Did you mean 'concatenate'"),
    ],
)
def test_what_is_wrong_is_named(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        set_fields(*arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--batch-size", "many"), "--batch-size"),
        (("--steps", "7"), "exactly one of `epochs` and `steps`"),
    ],
)
def test_a_value_that_is_refused_ends_with_code_2(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        set_fields(*arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_help_shows_every_field_with_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        with_fields(tiny_stage1(), ["--help"], command="train llava15/tiny-stage1")
    assert end.value.code == 0
    text = capsys.readouterr().out
    leaves = [name for name in option_names(tiny_stage1()) if name.startswith("--model.encoder.")]
    assert len(leaves) > 5
    assert [name for name in leaves if name not in text] == []
    assert "--model.encoder.tiles (one-view, anyres, dynamic," in " ".join(text.split())
    assert "bundled/eye" in text
