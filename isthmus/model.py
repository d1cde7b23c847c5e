"""The model: encoder, connector, arrangement and language model joined, and the forward pass on one page."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from isthmus.adapters import Lora
from isthmus.config import fingerprint, to_json
from isthmus.connectors import CONNECTORS, ConnectorConfig, MlpConfig
from isthmus.connectors.arrange import ARRANGEMENTS, Arrangement, ArrangementConfig, Concatenate
from isthmus.data.captions import CaptionStyle
from isthmus.data.collate import Batch, collate, collate_captions
from isthmus.data.instructions import ReadText, instructions
from isthmus.data.prompts import PROMPTS, PromptStyle, QuestionAnswer
from isthmus.data.sample import Sample
from isthmus.data.tokens import Placement
from isthmus.encoders import ENCODERS, TILINGS, Encoder, EncoderConfig, VisionEncoder
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Placed, Plan, Text
from isthmus.llms import LLMS, AddVisual, CausalLM, Generation, LanguageModel, LayerAddition, LLMConfig, join_additions


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which parts are joined, and how a prompt is written. Without an LLM the connector is trained alone (BLIP-2)."""

    encoder: EncoderConfig = field(default_factory=VisionEncoder)
    connector: ConnectorConfig = field(default_factory=MlpConfig)
    llm: LLMConfig | None = field(default_factory=CausalLM)
    arrange: ArrangementConfig = field(default_factory=Concatenate)
    placement: Placement = "in-place"
    """Visual tokens in place of the `<image>` mark (LLaVA), or in front of everything (BLIP-2)."""
    prompt: PromptStyle = field(default_factory=QuestionAnswer)
    captions: CaptionStyle = field(default_factory=CaptionStyle)
    """How the connector's own text is written when there is no LLM."""

    def source(self) -> FeatureShape:
        """What the connector reads."""
        return self.encoder.shape()

    def target(self) -> LLMShape:
        """What the connector writes for. Raises ValueError when there is no LLM."""
        return self._llm().shape()

    def num_visual_tokens(self, plan: Plan) -> int:
        """Positions that one image takes in the prompt: the one count that collate, model and costs use."""
        (placed,) = self.place([plan])
        return self.arrange.num_tokens(placed, self.connector.num_tokens(self.source().grid))

    def place(self, plans: Sequence[Plan]) -> tuple[Plan, ...]:
        """The same plans with how the connector's tokens of a view lie, which arrangements ask."""
        if not plans:
            return ()
        tokens = self.connector.token_grid(self.source().grid)
        return tuple(replace(plan, tokens=tokens) for plan in plans)

    def check(self) -> None:
        """Raises ValueError when connector, arrangement and language model do not fit, before anything is built."""
        if self.llm is None:
            return
        self.arrange.check(self.connector, self.source(), self.target())
        entering = self.connector.enters_layers
        if (entering or self.arrange.added_before()) and self.llm.kind != "causal":
            raise ValueError(
                f"{type(self.connector if entering else self.arrange).__name__} adds to the layers of the language "
                f"model, which has to be causal: the decoder of {type(self.llm).__name__} holds no image positions. "
                f"Use CausalLM, or another {'connector' if entering else 'arrangement'}."
            )

    def fingerprint(self) -> str:
        """Equal when architecture and frozen weights are; prompt, placement and lengths are left out."""
        return fingerprint(
            {
                "encoder": self.encoder.fingerprint(),
                "connector": to_json(self.connector),
                "arrange": to_json(self.arrange),
                "llm": None if self.llm is None else self.llm.fingerprint(),
            }
        )

    def batch(
        self,
        samples: Sequence[Sample],
        *,
        tokenizer: Any,
        plans: Sequence[Plan],
        features: Features | None = None,
        pixels: Float[Tensor, "views 3 height width"] | None = None,
        for_generation: bool = False,
    ) -> Batch:
        """Samples collated as this model reads them; see `collate`, and without an LLM `collate_captions`."""
        if self.llm is None:
            form = self.connector.captions
            if form == "none":
                raise ValueError(f"{type(self.connector).__name__} reads no text, and the model has no LLM to read it.")
            return collate_captions(
                samples,
                style=self.captions,
                form=form,
                tokenizer=tokenizer,
                plans=plans,
                features=features,
                pixels=pixels,
            )
        llm = self.llm
        per_view = self.connector.num_tokens(self.source().grid) if plans else 0
        return collate(
            samples,
            prompt=self.prompt,
            tokenizer=tokenizer,
            count_tokens=lambda plan: self.arrange.num_tokens(plan, per_view),
            plans=self.place(plans),
            placement=self.placement,
            max_tokens=llm.max_tokens,
            kind=llm.kind,
            for_generation=for_generation,
            features=features,
            pixels=pixels,
            read_text=self._read_text(),
        )

    def _read_text(self) -> ReadText | None:
        reads = self.connector.instruction
        if reads is None:
            return None
        tokenizer = self.connector.tokenizer()
        return functools.partial(instructions, tokenizer=tokenizer, turn=reads.turn, max_tokens=reads.max_tokens)

    def _llm(self) -> LLMConfig:
        if self.llm is None:
            raise ValueError("This model has no language model (llm=None). Give it one, for example CausalLM().")
        return self.llm


@dataclass(frozen=True, kw_only=True)
class Output:
    """The mean loss over all supervised tokens of a batch, and each token's own (in nats) with its row."""

    loss: Float[Tensor, ""]
    token_losses: Float[Tensor, " supervised"]
    rows: Int[Tensor, " supervised"]

    @property
    def num_supervised(self) -> int:
        """How many tokens the loss is the mean of."""
        return len(self.token_losses)

    def row_losses(self, num_rows: int) -> Float[Tensor, " rows"]:
        """The summed loss of each row: minus the log-likelihood of its answers."""
        total = torch.zeros(num_rows, dtype=self.token_losses.dtype, device=self.token_losses.device)
        return total.index_add(0, self.rows, self.token_losses)


class VisionLanguageModel(nn.Module):
    """Encoder, connector, arrangement, language model. Encoder and LLM are built frozen, the connector fresh.

    Without a language model the connector stands alone behind the encoder: it reads captions, and nothing is answered.
    `with_encoder=False` leaves the encoder out, for features that are kept elsewhere.
    """

    def __init__(self, config: Model, *, with_encoder: bool = True) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.source = config.source()
        self.token_grid = config.connector.token_grid(self.source.grid)
        self.encoder: Encoder | None = config.encoder.build().requires_grad_(False) if with_encoder else None
        self.arrange: Arrangement
        self.llm: LanguageModel
        if config.llm is None:
            self.connector = config.connector.build_alone(self.source)
            self.register_module("arrange", None)
            self.register_module("llm", None)
        else:
            target = config.target()
            self.connector = config.connector.build(self.source, target)
            self.arrange = config.arrange.build(target)
            self.llm = config.llm.build()

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of what the model reads: the language model's, or the connector's own where there is none."""
        return self.config.connector.tokenizer() if self.config.llm is None else self.llm.tokenizer

    def features(self, batch: Batch) -> Features:
        """The features of a batch's images. Raises ValueError when it has neither features nor pixels."""
        if batch.features is not None:
            return batch.features
        if batch.pixels is None:
            raise ValueError("The batch has images but neither features nor pixels. Collate it with one of them.")
        features: Features = self._encoder()(batch.pixels)
        return features

    def see(self, features: Features, plans: Sequence[Plan], text: Text | None = None) -> Placed:
        """Features of all views -> visual tokens of all images, packed; `text` has a row a view."""
        known = tuple(replace(plan, tokens=self.token_grid) for plan in plans)
        visual = self.connector(features) if text is None else self.connector(features, text)
        placed: Placed = self.arrange(visual, known)
        return placed

    def embed(self, batch: Batch, placed: Placed | None) -> Float[Tensor, "rows length width"]:
        """Text embeddings with the visual tokens written at the image places.

        Raises:
            ValueError: a sample's image places and visual tokens differ in number.
        """
        embedded = self.llm.embed(batch.ids)
        if placed is None:
            return embedded
        _check_places(batch, placed)
        tokens = placed.tokens.to(embedded.dtype)
        return embedded.masked_scatter(batch.visual.unsqueeze(-1), tokens)

    def forward(self, batch: Batch) -> Output:
        """The loss of a batch. Without images the connector runs on one blank view, times 0: every rank touches it."""
        self.config._llm()
        placed = self._placed(batch)
        embedded = self.embed(batch, placed)
        if placed is None and self.training:
            embedded = embedded + self._blank().to(embedded.dtype)
        self._open_door(batch, placed)
        labels = batch.labels if batch.decoder_labels is None else batch.decoder_labels
        said = self.llm(embedded, batch.mask, labels)
        assert len(said.losses), "collate refuses samples without supervised tokens"
        return Output(loss=said.losses.mean(), token_losses=said.losses, rows=said.rows)

    @torch.no_grad()
    def generate(self, batch: Batch, options: Generation | None = None) -> list[str]:
        """The answer of every row of a batch collated for generation; greedy by default."""
        self.config._llm()
        options = Generation() if options is None else options
        tokenizer, stop = self.llm.tokenizer, self.config.prompt.stop
        placed = self._placed(batch)
        embedded = self.embed(batch, placed)
        self._open_door(batch, placed)
        written = self.llm.generate(embedded, batch.ids, batch.mask, options, _stop_ids(stop, tokenizer))
        texts = tokenizer.batch_decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [(text.strip().split(stop)[0] if stop else text).strip() for text in texts]

    def answer(
        self, samples: Sequence[Sample], options: Generation | None = None, *, batch_size: int = 16
    ) -> list[str]:
        """Answers to samples, images included: loads, encodes, prompts and generates, a few at a time."""
        self.config._llm()
        answers: list[str] = []
        device = next(self.connector.parameters(), torch.zeros(())).device
        for first in range(0, len(samples), batch_size):
            some = samples[first : first + batch_size]
            pixels, plans = self.prepare(some)
            batch = self.config.batch(
                some, tokenizer=self.llm.tokenizer, plans=plans, pixels=pixels, for_generation=True
            )
            answers += self.generate(batch.to(device), options)
        return answers

    def prepare(
        self, samples: Sequence[Sample]
    ) -> tuple[Float[Tensor, "views 3 height width"] | None, tuple[Plan, ...]]:
        """The pixels of every view of the samples' images, and a plan for each image."""
        views: list[Tensor] = []
        plans: list[Plan] = []
        first = 0
        for image in (image for sample in samples for image in sample.images):
            ready = self._encoder().prepare(image.load())
            rows = range(first, first + len(ready.pixels))
            plans.append(Plan(size=ready.size, tiles=ready.tiles, views=rows, whole=ready.whole))
            views.append(ready.pixels)
            first = rows.stop
        return (torch.cat(views) if views else None), tuple(plans)

    def _placed(self, batch: Batch) -> Placed | None:
        if not batch.plans:
            return None
        return self.see(self.features(batch), batch.plans, batch.view_text())

    def _encoder(self) -> Encoder:
        if self.encoder is None:
            raise ValueError("This model was built without its encoder. Build it with with_encoder=True.")
        return self.encoder

    def _open_door(self, batch: Batch, placed: Placed | None) -> None:
        additions: list[LayerAddition] = []
        if placed is not None and placed.deeper:
            if self.config._llm().kind != "causal":
                raise ValueError(
                    "Tokens for deeper layers need a causal language model: the decoder of an encoder-decoder holds no "
                    "image positions. Use another arrangement."
                )
            deeper = tuple(self.llm.to_hidden(tokens) for tokens in placed.deeper)
            additions.append(AddVisual(visual=batch.visual, deeper=deeper, layers=placed.layers))
        own = self.connector.addition(placed, last_inputs(batch.visual, placed), batch.owner)
        additions += [] if own is None else [own]
        self.llm.add_to_layers(join_additions(additions), len(batch.ids))

    def _blank(self) -> Float[Tensor, ""]:
        """Zero, made with every parameter that a batch with images would touch."""
        source, weight = self.source, next(self.connector.parameters(), torch.zeros(()))
        if self.encoder is not None and any(part.requires_grad for part in self.encoder.parameters()):
            plan = self.config.encoder.plan((32, 32))
            size = self.encoder.prepare(_blank_image()).pixels.shape[1:]
            features = self.encoder(torch.zeros(len(plan.views), *size, device=weight.device))
        else:
            plan = Plan(size=(1, 1), tiles=Grid(1, 1, 1), views=range(1))
            features = _blank_features(source, weight)
        text = None
        if self.config.connector.instruction is not None:
            ids = torch.zeros(len(features.tokens), 1, dtype=torch.long, device=weight.device)
            text = Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))
        placed = self.see(features, (plan,), text)
        parts = (placed.tokens, *placed.deeper, *(() if placed.memory is None else (placed.memory,)))
        return torch.stack([part.sum().float() * 0.0 for part in parts]).sum()


def last_inputs(visual: Bool[Tensor, "rows length"], placed: Placed | None) -> Int[Tensor, "rows length"]:
    """The number of the last input that begins at or before each position, -1 before the first of its row."""
    begun = torch.full(visual.shape, -1, dtype=torch.long, device=visual.device)
    if placed is not None:
        first = torch.tensor([0, *placed.lengths[:-1]], device=visual.device).cumsum(0)
        rows, columns = visual.nonzero()[first].unbind(1)
        begun[rows, columns] = torch.arange(len(first), device=visual.device)
    return begun.cummax(dim=1).values


def _check_places(batch: Batch, placed: Placed) -> None:
    expected = [0] * len(batch.ids)
    for row, length in zip(batch.owner, placed.lengths, strict=True):
        expected[row] += length
    for row, places in enumerate(batch.visual.sum(dim=1).tolist()):
        if places != expected[row]:
            raise ValueError(
                f"Sample {batch.sample_ids[row]!r} has {places} image places but {expected[row]} visual tokens. "
                f"Count places with Model.num_visual_tokens."
            )


def _blank_features(source: FeatureShape, like: Tensor) -> Features:
    patches = source.grid.size

    def blank(length: int, width: int) -> Tensor:
        return torch.zeros(1, length, width, dtype=like.dtype, device=like.device)

    return Features(
        tokens=blank(source.prefix + patches, source.width),
        grid=source.grid,
        prefix=source.prefix,
        levels=tuple(blank(patches, width) for width in source.level_widths),
    )


def _blank_image() -> Any:
    from PIL import Image

    return Image.new("RGB", (32, 32))


def _stop_ids(stop: str, tokenizer: Any) -> tuple[int, ...]:
    """The one token of a stop text, if it is one token; the text itself is looked for after decoding in any case."""
    ids = tokenizer(stop, add_special_tokens=False)["input_ids"] if stop else []
    return tuple(ids) if len(ids) == 1 else ()


TYPES: dict[str, type] = {
    made.__name__: made
    for made in (
        Model,
        CaptionStyle,
        Generation,
        Lora,
        *ENCODERS.values(),
        *TILINGS.values(),
        *CONNECTORS.values(),
        *ARRANGEMENTS.values(),
        *LLMS.values(),
        *PROMPTS.values(),
    )
}
"""Every config class that a saved model may name."""
