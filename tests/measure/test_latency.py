"""Time to the first token: measured parts are there, in order, and mistakes are refused. No time is asserted."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_models import save_model
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from isthmus.connectors import LinearConfig
from isthmus.data.images import FileImage
from isthmus.data.sample import Sample, Turn
from isthmus.encoders import VisionEncoder
from isthmus.llms import CausalLM
from isthmus.measure import time_to_first_token
from isthmus.model import Model, VisionLanguageModel
from isthmus.weights import quiet_transformers


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Model:
    root = tmp_path_factory.mktemp("latency")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with quiet_transformers():
        CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(root / "tower")
    CLIPImageProcessor().save_pretrained(root / "tower")
    return Model(
        encoder=VisionEncoder(name=str(root / "tower"), image_size=32),
        connector=LinearConfig(),
        llm=CausalLM(name=save_model("llama", root), max_tokens=64),
    )


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    turn = Turn(role="user", text="<image>\nWhat?")
    return Sample(id="red", turns=(turn,), images=(FileImage(root=str(tmp_path), path="red.png"),))


def test_the_parts_are_measured(config: Model, sample: Sample) -> None:
    took = time_to_first_token(VisionLanguageModel(config).eval(), sample, repeats=3)
    assert took.encoder_ms > 0
    assert took.spread_ms[0] <= took.first_token_ms <= took.spread_ms[1]
    assert (took.repeats, took.device, took.threads) == (3, "cpu", torch.get_num_threads())


def test_one_token_is_generated(config: Model, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    model = VisionLanguageModel(config).eval()
    asked: list[int] = []
    answer = model.answer

    def counted(samples: list[Sample], options: object) -> list[str]:
        asked.append(vars(options)["max_new_tokens"])
        return answer(samples, options)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "answer", counted)
    time_to_first_token(model, sample, repeats=2)
    assert asked == [1, 1, 1]


def test_what_cannot_be_measured_is_refused(config: Model, sample: Sample) -> None:
    blind = VisionLanguageModel(config, with_encoder=False).eval()
    with pytest.raises(ValueError, match="with_encoder=True"):
        time_to_first_token(blind, sample)
    with pytest.raises(ValueError, match="repeats of 1 or more"):
        time_to_first_token(blind, sample, repeats=0)


def test_the_page_of_this_room_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "measure.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(compile(code, "docs/measure.md", "exec"), names)
    assert len(names) > 1
