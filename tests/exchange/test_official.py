"""Published connector weights come in by their own names, strictly."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from isthmus.connectors import ConnectorConfig, LinearConfig, MlpConfig, PixelShuffleConfig, QFormerConfig, QwenVlConfig
from isthmus.connectors.c_abstractor import CAbstractorConfig
from isthmus.exchange import import_official
from isthmus.exchange.official import LAYOUTS, Layout, find_layout
from isthmus.model import Model
from isthmus.runs import Run

QFORMER = QFormerConfig(num_queries=4, width=24, layers=2, heads=3, ffn_width=32)


def published(config: ConnectorConfig, system: str) -> tuple[Model, dict[str, Tensor]]:
    """A model, and its connector's weights as the named system saves them."""
    model = Model(connector=config)
    torch.manual_seed(5)
    own = model.connector.build(model.source(), model.target()).state_dict()
    layout = next(one for one in LAYOUTS if one.system == system and one.connector is type(config))
    return model, {layout.keys.prefix + key: value.clone() for key, value in layout.keys.to_official(own).items()}


CASES = {
    "LLaVA": LinearConfig(),
    "LLaVA-1.5": MlpConfig(depth=2),
    "InternVL-Chat": PixelShuffleConfig(),
    "transformers InternVL": PixelShuffleConfig(),
    "BLIP-2 (LAVIS, opt_proj)": QFORMER,
    "BLIP-2 (LAVIS, t5_proj)": QFORMER,
    "transformers Blip2": QFORMER,
    "Qwen-VL": QwenVlConfig(),
    "Honeybee": CAbstractorConfig(),
}


@pytest.mark.parametrize("system", list(CASES))
def test_weights_come_in_by_the_published_names(system: str, tmp_path: Path) -> None:
    model, state = published(CASES[system], system)
    torch.save(state, tmp_path / "weights.pth")
    done = import_official(tmp_path / "weights.pth", tmp_path / "run", model)
    assert done.taken["connector"] == len(state)
    assert done.left == {}
    again = Run(tmp_path / "run").load_model(with_encoder=False).connector.state_dict()
    torch.manual_seed(5)
    for key, value in model.connector.build(model.source(), model.target()).state_dict().items():
        torch.testing.assert_close(again[key], value, msg=key)


def test_lavis_puts_the_model_beside_other_things_and_keeps_its_text_side(tmp_path: Path) -> None:
    model, state = published(QFORMER, "BLIP-2 (LAVIS, opt_proj)")
    more = {
        "Qformer.bert.embeddings.position_ids": torch.zeros(1, 4),
        "Qformer.bert.embeddings.word_embeddings.weight": torch.zeros(9, 24),
        "visual_encoder.cls_token": torch.zeros(1, 1, 8),
        "opt_model.lm_head.weight": torch.zeros(2, 2),
    }
    torch.save({"model": state | more, "epoch": 3}, tmp_path / "blip2.pth")
    left = import_official(tmp_path / "blip2.pth", tmp_path / "run", model).left
    assert {what.split(" of ")[1] for what in left} == {
        "the vision encoder",
        "the language model",
        "the Q-Former's text side and heads, which this connector was built without",
    }


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"model.mm_projector.0.weight": None}, r"1 missing: 0\.weight"),
        ({"model.mm_projector.1.weight": torch.zeros(2, 2)}, r"1 unknown: 1\.weight"),
        ({"model.mm_projector.0.bias": torch.zeros(3)}, r"of another shape: 0\.bias is \(3,\)"),
        ({"model.stranger": torch.zeros(1)}, r"LLaVA-1.5 does not have: \['model.stranger'\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Tensor | None], wanted: str, tmp_path: Path) -> None:
    model, state = published(MlpConfig(depth=2), "LLaVA-1.5")
    changed = {key: value for key, value in (state | change).items() if value is not None}
    save_file(changed, tmp_path / "mm_projector.safetensors")
    with pytest.raises(ValueError, match=wanted):
        import_official(tmp_path / "mm_projector.safetensors", tmp_path / "run", model)
    assert not (tmp_path / "run").exists()


def test_weights_of_another_connector_are_refused(tmp_path: Path) -> None:
    _, state = published(MlpConfig(depth=2), "LLaVA-1.5")
    save_file(state, tmp_path / "mm_projector.safetensors")
    with pytest.raises(ValueError, match="holds no weights of QFormerConfig"):
        import_official(tmp_path / "mm_projector.safetensors", tmp_path / "run", Model(connector=QFORMER))


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",))

    torch.save({"model.mm_projector.0.weight": Hostile()}, tmp_path / "bad.bin")
    with pytest.raises(ValueError, match="without running code"):
        import_official(tmp_path / "bad.bin", tmp_path / "run", Model())
    assert not (tmp_path / "ran").exists()


def test_the_form_with_most_names_wins() -> None:
    model, state = published(QFORMER, "BLIP-2 (LAVIS, t5_proj)")
    own = model.connector.build(model.source(), model.target()).state_dict()
    found: Layout = find_layout(state, replace(QFORMER), own)
    assert found.system == "BLIP-2 (LAVIS, t5_proj)"
