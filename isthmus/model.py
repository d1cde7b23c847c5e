"""The model: encoder, connector, arrangement and language model joined, and the forward pass on one page."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from isthmus.adapters import Lora
from isthmus.branches import Branch, BranchParts, Looked, blank, check_places, check_tiles, join_placed, look
from isthmus.config import check_choices, fingerprint, to_json
from isthmus.connectors import CONNECTORS, ConnectorConfig, MlpConfig
from isthmus.connectors.arrange import ARRANGEMENTS, Arrangement, ArrangementConfig, Concatenate
from isthmus.data.captions import CaptionStyle
from isthmus.data.collate import NO_VIEWS, Batch, Views, collate, collate_captions
from isthmus.data.instructions import ReadText, instructions
from isthmus.data.prompts import PROMPTS, PromptStyle, QuestionAnswer
from isthmus.data.sample import Sample
from isthmus.data.tokens import Placement, Writing
from isthmus.encoders import ENCODERS, TILINGS, Encoder, EncoderConfig, VisionEncoder
from isthmus.features import BranchName, Features, FeatureShape, LLMShape, Placed, Plan, Text
from isthmus.llms import LLMS, AddVisual, CausalLM, Generation, LanguageModel, LayerAddition, LLMConfig, join_additions


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which parts are joined, and how a prompt is written. Without an LLM the connector is trained alone (BLIP-2).

    `encoder`, `connector` and `arrange` see images, and clips too (frame by frame) unless `video` does.
    """

    encoder: EncoderConfig = field(default_factory=VisionEncoder)
    connector: ConnectorConfig = field(default_factory=MlpConfig)
    llm: LLMConfig | None = field(default_factory=CausalLM)
    arrange: ArrangementConfig = field(default_factory=Concatenate)
    placement: Placement = "in-place"
    """Visual tokens in place of the `<image>` mark (LLaVA), or in front of everything (BLIP-2)."""
    prompt: PromptStyle = field(default_factory=QuestionAnswer)
    captions: CaptionStyle = field(default_factory=CaptionStyle)
    """How the connector's own text is written when there is no LLM."""
    video: Branch | None = None
    """Sees the clips, where they have an encoder and a connector of their own."""
    audio: Branch | None = None
    """Hears the sounds."""

    def __post_init__(self) -> None:
        check_choices(self)

    def source(self) -> FeatureShape:
        """What the connector reads."""
        return self.encoder.shape()

    def target(self) -> LLMShape:
        """What the connector writes for. Raises ValueError when there is no LLM."""
        return self._llm().shape()

    def num_visual_tokens(self, plan: Plan) -> int:
        """Positions that one input takes in the prompt: the one count that collate, model and costs use."""
        (placed,) = self.place([plan])
        return self._counting([plan])(placed)

    def place(self, plans: Sequence[Plan]) -> tuple[Plan, ...]:
        """The same plans with how their connector's tokens of a view lie, which arrangements ask."""
        grids = {name: self._branch(name).token_grid() for name in {plan.branch for plan in plans}}
        return tuple(replace(plan, tokens=grids[plan.branch]) for plan in plans)

    def _branch(self, name: BranchName) -> Branch:
        own = Branch(encoder=self.encoder, connector=self.connector, arrange=self.arrange)
        return own if name == "image" else self.branches[name]

    def _counting(self, plans: Sequence[Plan]) -> Callable[[Plan], int]:
        """Counts the positions of placed plans of the branches of these; every config is read once."""
        parts = {name: self._branch(name) for name in {plan.branch for plan in plans}}
        per_view = {name: part.connector.num_tokens(part.encoder.shape().grid) for name, part in parts.items()}
        return lambda plan: parts[plan.branch].arrange.num_tokens(plan, per_view[plan.branch])

    @property
    def branches(self) -> dict[BranchName, Branch]:
        """The branches besides that of images."""
        found: dict[BranchName, Branch | None] = {"video": self.video, "audio": self.audio}
        return {name: branch for name, branch in found.items() if branch is not None}

    def check(self) -> None:
        """Raises ValueError when connector, arrangement and language model do not fit, before anything is built."""
        if self.llm is None:
            if self.branches:
                raise ValueError("Branches for video or audio need a language model, but the model has llm=None.")
            return
        for branch in self.branches.values():
            branch.check(self.target(), causal=self.llm.kind == "causal")
        self.arrange.check(self.connector, self.source(), self.target())
        check_tiles(self.encoder, self.arrange, self.num_visual_tokens)
        entering = self.connector.enters_layers
        if (entering or self.arrange.added_before()) and self.llm.kind != "causal":
            raise ValueError(
                f"{type(self.connector if entering else self.arrange).__name__} adds to the layers of the language "
                f"model, which has to be causal: the decoder of {type(self.llm).__name__} holds no image positions. "
                f"Use CausalLM, or another {'connector' if entering else 'arrangement'}."
            )

    def fingerprint(self) -> str:
        """Equal when architecture and frozen weights are; prompt, placement and lengths are left out."""
        own = {
            "encoder": self.encoder.fingerprint(),
            "connector": to_json(self.connector),
            "arrange": to_json(self.arrange),
            "llm": None if self.llm is None else self.llm.fingerprint(),
        }
        return fingerprint({**own, **{str(name): branch.fingerprint() for name, branch in self.branches.items()}})

    def batch(
        self,
        samples: Sequence[Sample],
        *,
        tokenizer: Any,
        plans: Sequence[Plan],
        features: Features | None = None,
        pixels: Float[Tensor, "views *steps channels height width"] | None = None,
        others: Mapping[BranchName, Views] = NO_VIEWS,
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
        return collate(
            samples,
            writing=Writing(
                prompt=self.prompt,
                tokenizer=tokenizer,
                placement=self.placement,
                max_tokens=llm.max_tokens,
                kind=llm.kind,
                for_generation=for_generation,
            ),
            count_tokens=self._counting(plans),
            plans=self.place(plans),
            views={"image": Views(features=features, pixels=pixels), **others},
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
        self.video: BranchParts | None = None
        self.audio: BranchParts | None = None
        if config.llm is None:
            self.connector = config.connector.build_alone(self.source)
            self.register_module("arrange", None)
            self.register_module("llm", None)
        else:
            target = config.target()
            self.connector = config.connector.build(self.source, target)
            self.arrange = config.arrange.build(target)
            self.llm = config.llm.build()
            for name, branch in config.branches.items():
                setattr(self, name, BranchParts(branch, target, with_encoder=with_encoder))

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of what the model reads: the language model's, or the connector's own where there is none."""
        return self.config.connector.tokenizer() if self.config.llm is None else self.llm.tokenizer

    @property
    def branches(self) -> dict[BranchName, BranchParts]:
        """The branches besides that of images."""
        found: dict[BranchName, BranchParts | None] = {"video": self.video, "audio": self.audio}
        return {name: parts for name, parts in found.items() if parts is not None}

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
        check_places(batch, placed)
        tokens = placed.tokens.to(embedded.dtype)
        return embedded.masked_scatter(batch.visual.unsqueeze(-1), tokens)

    def forward(self, batch: Batch) -> Output:
        """The loss of a batch. Connectors without inputs run on one blank view, times 0: every rank touches them."""
        self.config._llm()
        placed = self._placed(batch)
        embedded = self.embed(batch, placed)
        if self.training:
            seen = {plan.branch for plan in batch.plans}
            unseen = [] if "image" in seen else [self._blank()]
            unseen += [blank(parts, reads_text=False) for name, parts in self.branches.items() if name not in seen]
            embedded = embedded + torch.stack(unseen).sum().to(embedded.dtype) if unseen else embedded
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
        device = next(self.parameters()).device
        for first in range(0, len(samples), batch_size):
            some = samples[first : first + batch_size]
            seen = self.look(some)
            batch = self.config.batch(
                some,
                tokenizer=self.llm.tokenizer,
                plans=seen.plans,
                pixels=seen.image.pixels,
                others=seen.others,
                for_generation=True,
            )
            answers += self.generate(batch.to(device), options)
        return answers

    def prepare(
        self, samples: Sequence[Sample]
    ) -> tuple[Float[Tensor, "views *steps channels height width"] | None, tuple[Plan, ...]]:
        """The pixels of every view of the samples' images, and a plan for each image; for other inputs see `look`."""
        seen = self.look(samples)
        if seen.others:
            raise ValueError(f"The samples hold inputs for {', '.join(seen.others)}: use look(samples).")
        return seen.image.pixels, seen.plans

    def look(self, samples: Sequence[Sample]) -> Looked:
        """The pixels of every view of the samples' images, videos and sounds, and a plan for each of these."""
        encoders = {name: parts.built_encoder() for name, parts in self.branches.items()}
        if any(sample.images or sample.videos for sample in samples):
            encoders["image"] = self._encoder()
        return look(samples, encoders, tile_several=self.config.encoder.tiles_several())

    def _placed(self, batch: Batch) -> Placed | None:
        if not batch.plans:
            return None
        mine: dict[BranchName, list[Plan]] = {}
        for plan in batch.plans:
            mine.setdefault(plan.branch, []).append(plan)
        parts: dict[BranchName, Placed] = {}
        for name, plans in mine.items():
            if name == "image":
                parts[name] = self.see(self.features(batch), plans, batch.view_text())
            else:
                branch = self.branches[name]
                parts[name] = branch.see(branch.features(batch.others.get(name, Views())), plans)
        return join_placed(batch.plans, parts)

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
        return blank(self, reads_text=self.config.connector.instruction is not None)


def last_inputs(visual: Bool[Tensor, "rows length"], placed: Placed | None) -> Int[Tensor, "rows length"]:
    """The number of the last input that begins at or before each position, -1 before the first of its row."""
    begun = torch.full(visual.shape, -1, dtype=torch.long, device=visual.device)
    if placed is not None:
        first = torch.tensor([0, *placed.lengths[:-1]], device=visual.device).cumsum(0)
        rows, columns = visual.nonzero()[first].unbind(1)
        begun[rows, columns] = torch.arange(len(first), device=visual.device)
    return begun.cummax(dim=1).values


def _stop_ids(stop: str, tokenizer: Any) -> tuple[int, ...]:
    """The one token of a stop text, if it is one token; the text itself is looked for after decoding in any case."""
    ids = tokenizer(stop, add_special_tokens=False)["input_ids"] if stop else []
    return tuple(ids) if len(ids) == 1 else ()


TYPES: dict[str, type] = {
    made.__name__: made
    for made in (
        Model,
        Branch,
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
