"""Training memory: exact where it can be, and counted from autograd's own graph elsewhere."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from isthmus.connectors import ConnectorConfig, LinearConfig, MlpConfig, QFormerConfig
from isthmus.encoders import StackedVisionEncoder, VisionEncoder
from isthmus.encoders.tiles import AnyresTiles
from isthmus.llms import CausalLM
from isthmus.measure import cost, training_memory
from isthmus.measure.memory import kept_bytes, tower_activations
from isthmus.model import Model


def model(connector: ConnectorConfig) -> Model:
    return Model(
        encoder=VisionEncoder(name="openai/clip-vit-large-patch14", image_size=224, precision="bfloat16"),
        connector=connector,
        llm=CausalLM(name="facebook/opt-2.7b", max_tokens=2_048, precision="bfloat16"),
    )


def test_weights_gradients_and_moments_are_exact() -> None:
    linear = model(LinearConfig())
    bill, memory = cost(linear), training_memory(linear)
    learned = 1_024 * 2_560 + 2_560
    assert bill.learned == learned
    assert memory.weights == 2 * bill.encoder.parameters + 4 * learned + 2 * bill.llm.parameters
    assert memory.gradients == 4 * learned
    assert memory.optimizer == 8 * learned
    assert memory.total == memory.weights + 12 * learned + memory.activations


def test_a_learned_llm_keeps_gradients_in_its_own_precision() -> None:
    tuned = training_memory(model(LinearConfig()), train=("connector", "llm"))
    bill = cost(model(LinearConfig()), train=("connector", "llm"))
    assert tuned.gradients == 4 * bill.connector.learned + 2 * bill.llm.learned
    assert tuned.activations > training_memory(model(LinearConfig())).activations


def test_a_second_layer_keeps_its_input_and_the_input_of_gelu() -> None:
    one, two = (training_memory(model(MlpConfig(depth=depth))).activations for depth in (1, 2))
    patches, width = 256, 2_560
    assert two - one == 2 * patches * width * 4


def test_activations_grow_with_samples_and_with_tokens() -> None:
    linear = model(LinearConfig())
    assert training_memory(linear, samples=3).activations == 3 * training_memory(linear).activations
    assert training_memory(linear, text_tokens=128).activations > training_memory(linear).activations


def test_no_weights_are_read_for_a_started_q_former() -> None:
    fresh = QFormerConfig(num_queries=8, width=64, layers=2, heads=2, ffn_width=128)
    started = replace(fresh, start_from="bundled/no-such-model")
    assert training_memory(model(started)) == training_memory(model(fresh))


@pytest.mark.parametrize("start", [0, 1, 2])
def test_crops_that_are_added_inside_the_encoder_are_counted(start: int) -> None:
    eye = VisionEncoder(name="bundled/eye", image_size=96, layers=(-1,), tiles=AnyresTiles(grids=((2, 2),), pad=False))
    stacked = StackedVisionEncoder(tower=eye, groups=4, start_block=start)
    encoder = stacked.build()
    pixels = encoder.prepare(Image.new("RGB", (192, 192), (200, 30, 30))).pixels
    seen = kept_bytes(encoder, lambda: encoder(pixels).tokens)
    assert tower_activations(stacked, 1) == pytest.approx(seen, rel=0.2)
    assert tower_activations(stacked, 3) == pytest.approx(3 * tower_activations(stacked, 1), abs=3)
    again = replace(stacked, tower=replace(eye, checkpointing=True))
    encoder, pictures = again.build(), 5 * 3 * 96**2 * 4
    three = torch.cat([pixels] * 3)
    kept = kept_bytes(encoder, lambda: encoder(three).tokens)
    assert kept == pytest.approx(3 * pictures, rel=0.1)
    assert tower_activations(again, 3) == pytest.approx(3 * pictures + seen, rel=0.2)
