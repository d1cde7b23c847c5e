"""The query atlas: attention where there is some, gradients elsewhere, each on the patches that were really read."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_models import save_model
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from isthmus.connectors import (
    AveragePoolConfig,
    ChannelConcatConfig,
    ConnectorConfig,
    InstructQFormerConfig,
    QFormerConfig,
)
from isthmus.data.sample import Sample, Turn
from isthmus.encoders import PairedEncoder, VisionEncoder
from isthmus.features import Grid
from isthmus.llms import CausalLM
from isthmus.measure.atlas import SIDE, Atlas, atlas, draw
from isthmus.measure.signs import cross_attentions
from isthmus.model import Model, VisionLanguageModel
from isthmus.weights import quiet_transformers


@dataclass(frozen=True)
class Stripes:
    """A picture that is not the same everywhere."""

    key: str = "stripes"

    def load(self) -> Image.Image:
        picture = Image.new("RGB", (40, 40), "white")
        picture.paste("red", (0, 0, 20, 40))
        picture.paste("blue", (0, 30, 40, 40))
        return picture


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionEncoder, CausalLM]:
    root = tmp_path_factory.mktemp("atlas")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with quiet_transformers():
        CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(root / "tower")
    CLIPImageProcessor().save_pretrained(root / "tower")
    eye = VisionEncoder(name=str(root / "tower"), image_size=32, class_token=False)
    return eye, CausalLM(name=save_model("gpt2", root), max_tokens=128)


def made(parts: tuple[VisionEncoder, CausalLM], connector: ConnectorConfig) -> VisionLanguageModel:
    torch.manual_seed(1)
    return VisionLanguageModel(Model(encoder=parts[0], connector=connector, llm=parts[1])).eval()


SAMPLE = Sample(id="one", turns=(Turn(role="user", text="<image>\nWhat?"),), images=(Stripes(),))
SMALL = QFormerConfig(num_queries=3, width=16, heads=2, layers=2, ffn_width=32, initializer_range=0.3)


def test_a_pooled_token_is_read_from_its_own_square(parts: tuple[VisionEncoder, CausalLM]) -> None:
    found = atlas(made(parts, AveragePoolConfig(side=2)), SAMPLE)
    assert found.kind == "gradient"
    assert found.maps.shape == (1, 4, 16)
    square = torch.zeros(4, 4)
    square[:2, 2:] = 1 / 4
    assert torch.allclose(found.maps[0, 1].reshape(4, 4), square, atol=1e-5)
    assert found.patches_seen == pytest.approx(4, rel=1e-3)
    assert found.likeness == pytest.approx(0, abs=1e-4)


def test_a_querys_map_is_its_attention(parts: tuple[VisionEncoder, CausalLM]) -> None:
    model = made(parts, SMALL)
    found = atlas(model, SAMPLE)
    assert found.kind == "attention"
    assert found.maps.shape == (1, 3, 16)
    assert torch.allclose(found.maps.sum(dim=-1), torch.ones(1, 3))
    assert found.maps.std() > 0
    for one in cross_attentions(model.connector):
        torch.nn.init.zeros_(one.key.weight)
    even = atlas(model, SAMPLE)
    assert torch.allclose(even.maps, torch.full((1, 3, 16), 1 / 16), atol=1e-6)
    assert (even.patches_seen, even.likeness) == (pytest.approx(16, rel=1e-4), pytest.approx(1, rel=1e-4))


def test_two_towers_are_drawn_on_what_the_first_saw(parts: tuple[VisionEncoder, CausalLM]) -> None:
    pair = PairedEncoder(first=parts[0], second=parts[0])
    torch.manual_seed(1)
    model = VisionLanguageModel(Model(encoder=pair, connector=ChannelConcatConfig(), llm=parts[1])).eval()
    found = atlas(model, SAMPLE)
    assert found.maps.shape == (1, 16, 16)
    assert torch.allclose(found.maps[0], torch.eye(16), atol=1e-5)
    assert found.views[0].size == (32, 32)
    red, green, _ = found.views[0].split()
    assert red.getpixel((4, 8)) > 200
    assert green.getpixel((4, 8)) < 60


def test_a_connector_that_reads_text_reads_the_question(parts: tuple[VisionEncoder, CausalLM]) -> None:
    reader = replace(SMALL, text=True, text_model="bundled/reader", vocabulary=2_500, positions=32)
    model = made(parts, InstructQFormerConfig(qformer=reader, max_text_tokens=32))
    other = Sample(id="two", turns=(Turn(role="user", text="<image>\nHow many dogs?"),), images=SAMPLE.images)
    assert not torch.equal(atlas(model, SAMPLE).maps, atlas(model, other).maps)


def test_maps_are_drawn_under_their_view(tmp_path: Path) -> None:
    maps = torch.zeros(1, 9, 4)
    maps[0, :, 3] = 1.0
    found = Atlas(kind="attention", maps=maps, grid=Grid(1, 2, 2), views=(Image.new("RGB", (8, 8), "white"),))
    sheet = draw(found, 64)
    assert sheet.size == (8 * SIDE, 3 * SIDE)
    corner, far = sheet.getpixel((SIDE - 2, 2 * SIDE - 2)), sheet.getpixel((SIDE // 2, SIDE + SIDE // 8))
    assert corner == (255, 255, 255)
    assert far[0] < 60
    assert draw(found, 1).size == (8 * SIDE, 2 * SIDE)


def test_a_sample_without_a_picture_has_no_atlas(parts: tuple[VisionEncoder, CausalLM]) -> None:
    with pytest.raises(ValueError, match="'none' holds something else or nothing"):
        atlas(made(parts, AveragePoolConfig(side=2)), Sample(id="none", turns=SAMPLE.turns[:0]))
