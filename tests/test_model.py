"""The joined model: a tiny linear encoder, real connectors, tiny language models with random weights."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from einops import rearrange
from PIL import Image
from tiny_models import save_model
from torch import nn

from isthmus.config import from_json, to_json
from isthmus.connectors import AveragePoolConfig, MlpConfig, PixelShuffleConfig, QFormerConfig
from isthmus.connectors.arrange import Arrangement, ArrangementConfig, Concatenate
from isthmus.connectors.base import ConnectorConfig
from isthmus.data.collate import Batch
from isthmus.data.prompts import Plain, Vicuna
from isthmus.data.sample import Sample, Turn
from isthmus.encoders import Encoder, EncoderConfig, Prepared
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Placed, Plan, VisualTokens
from isthmus.llms import CausalLM, EncoderDecoderLM, Generation, LLMConfig
from isthmus.model import TYPES, Model, VisionLanguageModel

GRID = Grid(1, 4, 4)
SHAPE = FeatureShape(width=12, grid=GRID)
CONNECTOR = AveragePoolConfig(side=2)
QFORMER = QFormerConfig(num_queries=4, width=16, layers=2, heads=2, ffn_width=24)


@dataclass(frozen=True, kw_only=True)
class PatchConfig(EncoderConfig):
    """Every 2 x 2 patch of an 8 px image, as it is."""

    salt: str = ""

    def shape(self) -> FeatureShape:
        return SHAPE

    def build(self) -> "Patches":
        return Patches()

    def fingerprint(self) -> str:
        return f"patches{self.salt}"

    def plan(self, size: tuple[int, int], first_view: int = 0) -> Plan:
        return Plan(size=size, tiles=Grid(1, 1, 1), views=range(first_view, first_view + 1))


class Patches(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.shape = SHAPE
        self.scale = nn.Parameter(torch.ones(()))

    def prepare(self, image: Image.Image) -> Prepared:
        values = torch.tensor(list(image.resize((8, 8)).tobytes()), dtype=torch.float32) / 255
        pixels = rearrange(values, "(h w c) -> 1 c h w", h=8, w=8, c=3)
        return Prepared(pixels=pixels, size=image.size, tiles=Grid(1, 1, 1))

    def forward(self, pixels: torch.Tensor) -> Features:
        tokens = rearrange(pixels, "views c (h dh) (w dw) -> views (h w) (c dh dw)", dh=2, dw=2) * self.scale
        return Features(tokens=tokens, grid=GRID)


@dataclass(frozen=True)
class Picture:
    """An image drawn from its number."""

    number: int

    @property
    def key(self) -> str:
        return str(self.number)

    def load(self) -> Image.Image:
        draw = torch.Generator().manual_seed(self.number)
        return Image.frombytes("RGB", (8, 8), bytes(torch.randint(0, 256, (192,), generator=draw).tolist()))


def sample(name: str, question: str, answer: str | None, *images: int) -> Sample:
    turns = [Turn(role="user", text="<image>\n" * len(images) + question)]
    turns += [Turn(role="assistant", text=answer)] if answer is not None else []
    return Sample(id=name, turns=tuple(turns), images=tuple(Picture(number) for number in images))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def llm(root: Path, family: str = "llama") -> LLMConfig:
    kind = EncoderDecoderLM if family == "t5" else CausalLM
    return kind(name=save_model(family, root), max_tokens=100)


def config(root: Path, family: str = "llama", **changes: Any) -> Model:
    return replace(Model(encoder=PatchConfig(), connector=CONNECTOR, llm=llm(root, family)), **changes)


def build(chosen: Model, **options: Any) -> VisionLanguageModel:
    torch.manual_seed(3)
    return VisionLanguageModel(chosen, **options)


def batch(model: VisionLanguageModel, *samples: Sample, **options: Any) -> Batch:
    pixels, plans = model.prepare(samples)
    return model.config.batch(samples, tokenizer=model.llm.tokenizer, plans=plans, pixels=pixels, **options)


ONE = sample("one", "what?", "red", 1)
TWO = sample("two", "both of them?", "no", 2, 3)
NONE = sample("none", "why?", "so")


@pytest.mark.parametrize(
    "connector", [CONNECTOR, MlpConfig(), PixelShuffleConfig(factor=2), QFORMER], ids=lambda one: type(one).__name__
)
def test_a_step_moves_the_connector_and_nothing_else(connector: ConnectorConfig, root: Path) -> None:
    model = build(config(root, connector=connector)).train()
    output = model(batch(model, ONE, TWO, NONE))
    assert output.num_supervised == len(" red$") + len(" no$") + len(" so$")
    torch.testing.assert_close(output.loss, output.token_losses.mean())
    torch.testing.assert_close(output.row_losses(3).sum(), output.token_losses.sum())
    output.loss.backward()
    learning = {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None}
    assert learning == {"connector"}


@pytest.mark.parametrize("family", ["llama", "opt", "t5"])
@pytest.mark.parametrize("placement", ["in-place", "before-bos"])
def test_a_batch_equals_its_samples_alone(family: str, placement: str, root: Path) -> None:
    model = build(config(root, family, placement=placement)).eval()
    samples = (ONE, TWO, NONE)
    together = model(batch(model, *samples)).row_losses(3)
    alone = torch.stack([model(batch(model, one)).row_losses(1)[0] for one in samples])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    options = Generation(max_new_tokens=6, num_beams=2)
    answers = model.generate(batch(model, *samples, for_generation=True), options)
    assert answers == [model.answer([one], options)[0] for one in samples]
    assert answers == model.answer(samples, options, batch_size=2)
    assert len(set(answers)) > 1


def test_visual_tokens_stand_at_their_places_and_matter(root: Path) -> None:
    model = build(config(root)).eval()
    given = batch(model, TWO, NONE)
    placed = model.see(model.encoder(given.pixels), given.plans)  # type: ignore[misc]
    assert placed.lengths == (4, 4)
    embedded = model.embed(given, placed)
    torch.testing.assert_close(embedded[0, 1:9], placed.tokens)
    torch.testing.assert_close(embedded[0, 9:], model.llm.embed(given.ids)[0, 9:])
    torch.testing.assert_close(embedded[1], model.llm.embed(given.ids)[1])
    other = batch(model, replace(TWO, images=(Picture(8), Picture(9))), NONE)
    assert abs(model(given).row_losses(2)[0] - model(other).row_losses(2)[0]) > 1e-6
    torch.testing.assert_close(model(given).row_losses(2)[1], model(other).row_losses(2)[1])


def test_kept_features_need_no_encoder(root: Path) -> None:
    whole, bare = build(config(root)).eval(), build(config(root), with_encoder=False).eval()
    assert bare.encoder is None
    given = batch(whole, ONE)
    features = whole.encoder(given.pixels)  # type: ignore[misc]
    bare.connector.load_state_dict(whole.connector.state_dict())
    torch.testing.assert_close(bare(replace(given, pixels=None, features=features)).loss, whole(given).loss)
    with pytest.raises(ValueError, match="without its encoder"):
        bare(given)
    with pytest.raises(ValueError, match="neither features nor pixels"):
        whole(replace(given, pixels=None))


@pytest.mark.parametrize("train_encoder", [False, True])
def test_a_batch_without_images_touches_every_connector_weight(train_encoder: bool, root: Path) -> None:
    model = build(config(root, connector=QFORMER)).train()
    plain = model.eval()(batch(model, NONE)).loss
    model.train()
    if train_encoder:
        model.encoder.requires_grad_(True)  # type: ignore[union-attr]
    loss = model(batch(model, NONE)).loss
    torch.testing.assert_close(loss, plain)
    loss.backward()
    parts = [model.connector, *([model.encoder] if train_encoder else [])]
    for weight in (weight for part in parts for weight in part.parameters()):  # type: ignore[union-attr]
        assert weight.grad is not None
        assert not weight.grad.any()


def test_a_wrong_number_of_visual_tokens_is_refused_by_name(root: Path) -> None:
    model = build(config(root))
    given = batch(model, NONE, ONE)
    visual = given.visual.clone()
    visual[1, -1] = True
    with pytest.raises(ValueError, match="Sample 'one' has 5 image places but 4 visual tokens"):
        model(replace(given, visual=visual))


def test_plain_captions_end_with_their_line(root: Path) -> None:
    model = build(config(root, prompt=Plain())).eval()
    newline = model.llm.tokenizer("\n", add_special_tokens=False)["input_ids"]
    written = [model.llm.tokenizer("a b", add_special_tokens=False)["input_ids"] + newline]
    model.llm.generate = lambda *args: [written[0] + written[0]]  # type: ignore[method-assign]
    assert model.generate(batch(model, sample("c", "", None, 1), for_generation=True)) == ["a b"]


@dataclass(frozen=True, kw_only=True)
class DeeperConfig(ArrangementConfig):
    """Gives the tokens again before layer 1."""

    def num_tokens(self, plan: Plan, per_view: int) -> int:
        return per_view

    def build(self, target: LLMShape) -> "Deeper":
        return Deeper()


class Deeper(Arrangement):
    def forward(self, visual: VisualTokens, plans: Any) -> Placed:
        tokens = rearrange(visual.tokens, "views tokens width -> (views tokens) width")
        lengths = (visual.tokens.shape[1],) * len(plans)
        return Placed(tokens=tokens, lengths=lengths, deeper=(10 * tokens,), layers=(1,))


def test_tokens_for_deeper_layers_reach_them(root: Path) -> None:
    plain, deep = build(config(root)).eval(), build(config(root, arrange=DeeperConfig())).eval()
    given = batch(plain, ONE, NONE)
    shallow, deeper = plain(given).row_losses(2), deep(given).row_losses(2)
    assert (shallow[0] - deeper[0]).abs() > 1e-4
    torch.testing.assert_close(shallow[1], deeper[1])
    torch.testing.assert_close(deep(batch(deep, ONE)).row_losses(1)[0], deeper[0])
    options = Generation(max_new_tokens=4, num_beams=2)
    assert deep.answer([ONE, NONE], options) == [deep.answer([one], options)[0] for one in (ONE, NONE)]
    torch.testing.assert_close(deep(batch(deep, NONE)).row_losses(1)[0], shallow[1])
    translator = build(config(root, "t5", arrange=DeeperConfig()))
    asked = batch(translator, ONE)
    with pytest.raises(ValueError, match="need a causal language model"):
        translator(asked)


def test_one_function_counts_tokens(root: Path) -> None:
    chosen = config(root)
    plan = Plan(size=(8, 8), tiles=Grid(1, 1, 2), views=range(2))
    assert chosen.num_visual_tokens(plan) == 8
    assert replace(chosen, connector=MlpConfig()).num_visual_tokens(plan) == 32


def test_fingerprint_is_of_architecture_and_frozen_weights(root: Path) -> None:
    chosen = config(root)
    same = replace(chosen, prompt=Vicuna(), placement="before-bos")
    assert chosen.fingerprint() == same.fingerprint()
    others = [
        replace(chosen, encoder=PatchConfig(salt="other")),
        replace(chosen, connector=MlpConfig()),
        replace(chosen, arrange=DeeperConfig()),
        replace(chosen, llm=llm(root, "opt")),
        replace(chosen, llm=None),
    ]
    assert len({one.fingerprint() for one in (chosen, *others)}) == 6


def test_a_model_reads_back_from_json_equal() -> None:
    chosen = Model(connector=QFORMER, arrange=Concatenate(), prompt=Vicuna(), llm=EncoderDecoderLM(max_tokens=9))
    assert from_json(to_json(chosen), TYPES) == chosen


def test_a_model_without_a_language_model_says_so(root: Path) -> None:
    with pytest.raises(ValueError, match="no language model"):
        VisionLanguageModel(config(root, llm=None))


@pytest.mark.parametrize(("family", "precision"), [("llama", "bfloat16"), ("opt", "float16"), ("t5", "bfloat16")])
def test_a_half_precision_language_model_teaches_the_connector(
    family: str, precision: Literal["bfloat16", "float16"], root: Path
) -> None:
    """OPT in float16 and T5 in bfloat16 are BLIP-2's."""
    full, half = (build(config(root, llm=replace(llm(root, family), precision=one))) for one in ("float32", precision))
    losses = []
    for model in (full, half):
        loss = model(batch(model, ONE)).loss
        loss.backward()
        losses.append(loss)
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.connector.parameters())
        assert model.llm.embed(torch.ones(1, 1, dtype=torch.long)).dtype == model.config.llm.dtype  # type: ignore[union-attr]
    torch.testing.assert_close(losses[0], losses[1], rtol=0.05, atol=0.05)
    assert losses[0] != losses[1]
    beams = Generation(max_new_tokens=3, num_beams=5, length_penalty=-1.0)
    assert len(half.eval().answer([ONE, NONE], beams)) == 2


def test_a_language_model_learns_when_it_is_named(root: Path) -> None:
    model = build(config(root)).train()
    model.llm.requires_grad_(True)
    model(batch(model, ONE)).loss.backward()
    silent = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert silent == []
