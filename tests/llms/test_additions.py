"""The door to the layers, in whole models: DeepStack and gated cross-attention, one way for every family."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tiny_models import save_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from isthmus.connectors import ConnectorConfig, GatedCrossAttentionConfig, MlpConfig, PerceiverConfig
from isthmus.connectors.arrange import ArrangementConfig, Concatenate, DeepStack, Levels
from isthmus.data.collate import Batch
from isthmus.data.sample import Sample, Turn
from isthmus.encoders import EncoderConfig
from isthmus.features import Features, FeatureShape, Grid, Plan
from isthmus.llms import AddVisual, CausalLM, EncoderDecoderLM, Generation, LayerState
from isthmus.model import Model, VisionLanguageModel
from isthmus.train import recompute

SHAPE = FeatureShape(width=12, grid=Grid(1, 2, 2))
GATED = GatedCrossAttentionConfig(
    resampler=PerceiverConfig(num_latents=3, layers=1, heads=2, head_width=6, project=False), heads=2, head_width=8
)
WAYS: dict[str, tuple[ConnectorConfig, ArrangementConfig]] = {
    "deepstack": (MlpConfig(), DeepStack(groups=2, start_layer=0)),
    "deepstack-late": (MlpConfig(), DeepStack(groups=2, start_layer=1, sampling="1d")),
    "gated": (GATED, Concatenate()),
    "gated-all": (replace(GATED, every=2, see="all"), Concatenate()),
}
FAMILIES = ("llama", "qwen2", "opt", "gpt2", "neox")


@dataclass(frozen=True, kw_only=True)
class Given(EncoderConfig):
    """Features come ready: only their shape is asked."""

    def shape(self) -> FeatureShape:
        return SHAPE

    def fingerprint(self) -> str:
        return "given"


@dataclass(frozen=True)
class Picture:
    """An image that nobody opens; `tiles` of its views show its parts."""

    number: int
    tiles: int = 2

    @property
    def key(self) -> str:
        return str(self.number)

    def load(self) -> None:
        raise AssertionError("the features are given")


def sample(question: str, answer: str, *images: Picture) -> Sample:
    turns = (Turn(role="user", text="<image>\n" * len(images) + question), Turn(role="assistant", text=answer))
    return Sample(id=question, turns=turns, images=images)


SAMPLES = (
    sample("what?", "red", Picture(1)),
    sample("which of the two is it?", "no", Picture(2, tiles=1), Picture(3)),
    sample("why?", "so"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def build(root: Path, family: str, way: str, *, checkpointing: bool = False) -> VisionLanguageModel:
    connector, arrange = WAYS[way]
    llm = CausalLM(name=save_model(family, root), max_tokens=100, checkpointing=checkpointing)
    torch.manual_seed(3)
    model = VisionLanguageModel(
        Model(encoder=Given(), connector=connector, arrange=arrange, llm=llm), with_encoder=False
    )
    for name, weight in model.connector.named_parameters():
        if name.endswith("gate"):
            torch.nn.init.constant_(weight, 1.5)
        elif name.startswith("project"):
            torch.nn.init.normal_(weight, std=0.7)
    return model.eval()


def batch(model: VisionLanguageModel, *samples: Sample, for_generation: bool = False) -> Batch:
    plans: list[Plan] = []
    views: list[Tensor] = []
    for picture in (image for one in samples for image in one.images):
        draw = torch.Generator().manual_seed(picture.number)
        rows = range(len(views), len(views) + 1 + picture.tiles)
        views += list(torch.randn(1 + picture.tiles, 4, 12, generator=draw))
        plans.append(Plan(size=(20, 10), tiles=Grid(1, 1, picture.tiles), views=rows, whole="first"))
    features = Features(tokens=torch.stack(views), grid=SHAPE.grid) if views else None
    return model.config.batch(
        samples, tokenizer=model.llm.tokenizer, plans=plans, features=features, for_generation=for_generation
    )


def without(batch: Batch) -> Batch:
    """The same batch whose views all show nothing."""
    assert batch.features is not None
    return replace(batch, features=replace(batch.features, tokens=torch.zeros_like(batch.features.tokens)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_has_the_losses_of_its_rows_alone(family: str, way: str, root: Path) -> None:
    model = build(root, family, way)
    with torch.no_grad():
        together = model(batch(model, *SAMPLES)).row_losses(3)
        alone = torch.cat([model(batch(model, one)).row_losses(1) for one in SAMPLES])
        blind = model(without(batch(model, *SAMPLES))).row_losses(3)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert ((together - blind).abs() > 1e-4).tolist() == [True, True, False]


def written_without_cache(model: VisionLanguageModel, one: Sample, steps: int) -> str:
    """Greedy, every step reading the whole text again through the same door."""
    prompt = batch(model, one, for_generation=True)
    placed = model._placed(prompt)
    embedded = model.embed(prompt, placed)
    model._open_door(prompt, placed)
    written: list[int] = []
    for _ in range(steps):
        logits = model.llm.model(inputs_embeds=embedded, use_cache=False).logits[0, -1]
        written.append(int(logits.argmax()))
        if written[-1] in model.llm.ends:
            break
        embedded = torch.cat([embedded, model.llm.embed(torch.tensor([written[-1:]]))], dim=1)
    text = str(model.llm.tokenizer.decode(written, skip_special_tokens=True)).strip()
    return text.split(model.config.prompt.stop)[0].strip() if model.config.prompt.stop else text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_with_a_cache_is_what_is_written_without(family: str, way: str, root: Path) -> None:
    """Rows are padded on the left, and the cache holds what was read: equal to each row alone, read anew each step."""
    model = build(root, family, way)
    with torch.no_grad():
        together = model.generate(batch(model, *SAMPLES, for_generation=True), Generation(max_new_tokens=5))
        alone = [written_without_cache(model, one, 5) for one in SAMPLES]
        blind = model.generate(without(batch(model, *SAMPLES, for_generation=True)), Generation(max_new_tokens=5))
    assert together == alone
    assert together[2] == blind[2]


@pytest.mark.parametrize("way", ["deepstack", "gated"])
@pytest.mark.parametrize("family", FAMILIES)
def test_beams_of_a_batch_are_those_of_its_rows(family: str, way: str, root: Path) -> None:
    model, options = build(root, family, way), Generation(max_new_tokens=5, num_beams=3)
    together = model.generate(batch(model, *SAMPLES, for_generation=True), options)
    alone = [model.generate(batch(model, one, for_generation=True), options)[0] for one in SAMPLES]
    assert together == alone


@pytest.mark.parametrize("way", ["deepstack", "gated"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_equal_when_layers_are_computed_again(family: str, way: str, root: Path) -> None:
    grads = []
    for checkpointing in (False, True):
        model = build(root, family, way, checkpointing=checkpointing)
        assert bool(recompute.apply(model)) is checkpointing
        model(batch(model, *SAMPLES)).loss.backward()
        grads.append({name: weight.grad for name, weight in model.connector.named_parameters()})
    assert [name for name, value in grads[0].items() if value is None or not value.any()] == []
    for name, value in grads[0].items():
        torch.testing.assert_close(grads[1][name], value, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("way", ["deepstack", "gated"])
def test_a_batch_without_images_touches_every_weight_of_the_connector(way: str, root: Path) -> None:
    model = build(root, "llama", way).train()
    model(batch(model, SAMPLES[2])).loss.backward()
    assert [name for name, weight in model.connector.named_parameters() if weight.grad is None] == []


def test_groups_are_added_to_the_prompt_alone() -> None:
    """A new position's input passes through untouched: decoding costs nothing."""
    visual = torch.tensor([[False, True, True, False]])
    addition = AddVisual(visual=visual, deeper=(torch.ones(2, 3),), layers=(1,))
    hidden, new = torch.zeros(2, 4, 3), torch.zeros(2, 1, 3)
    assert addition(hidden, 1, LayerState(0, 2))[:, :, 0].tolist() == [[0, 1, 1, 0], [0, 1, 1, 0]]
    assert addition(new, 1, LayerState(4, 2)) is new
    assert addition(hidden, 0, LayerState(0, 2)) is hidden


@torch.no_grad()
def decoding_flops(model: VisionLanguageModel, prompt: Batch, *, door: bool) -> int:
    """What the language model's pass over one new position takes, behind a prompt that its cache holds."""
    placed = model._placed(prompt)
    embedded = model.embed(prompt, placed)
    model._open_door(prompt, placed)
    if not door:
        model.llm.add_to_layers(None, len(prompt.ids))
    cache = DynamicCache(config=model.llm.model.config)
    model.llm.model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)
    assert cache.get_seq_length() == embedded.shape[1], "groups take no place in the cache"
    with FlopCounterMode(display=False) as counter:
        model.llm.model(inputs_embeds=embedded[:, -1:], past_key_values=cache, use_cache=True)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("way", ["deepstack", "deepstack-late"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_position_costs_what_it_costs_without_groups(family: str, way: str, root: Path) -> None:
    model = build(root, family, way)
    prompt = batch(model, SAMPLES[0], for_generation=True)
    with_groups, without_groups = (decoding_flops(model, prompt, door=door) for door in (True, False))
    assert with_groups == without_groups > 0


@pytest.mark.parametrize("way", ["deepstack", "gated", "levels"])
def test_an_encoder_decoder_is_refused_when_it_is_built(way: str, root: Path) -> None:
    connector, arrange = {**WAYS, "levels": (MlpConfig(), Levels(layers=(1,)))}[way]
    llm = EncoderDecoderLM(name=save_model("t5", root))
    config = Model(encoder=Given(), connector=connector, arrange=arrange, llm=llm)
    wanted = "gives 0 levels" if way == "levels" else "has to be causal: the decoder of EncoderDecoderLM holds no image"
    with pytest.raises(ValueError, match=wanted):
        VisionLanguageModel(config, with_encoder=False)


def test_what_a_connector_gives_and_no_layer_takes_is_refused_when_it_is_built(root: Path) -> None:
    llm = CausalLM(name=save_model("llama", root))
    deep = Model(encoder=Given(), connector=MlpConfig(), arrange=DeepStack(start_layer=0), llm=llm)
    with pytest.raises(ValueError, match=r"before layers \(0, 1, 2, 3\).*has 3 layers"):
        VisionLanguageModel(deep, with_encoder=False)
    gated = Model(encoder=Given(), connector=GATED, arrange=DeepStack(groups=2), llm=llm)
    with pytest.raises(ValueError, match=r"DeepStack hands no memory on.*Use Concatenate"):
        VisionLanguageModel(gated, with_encoder=False)
