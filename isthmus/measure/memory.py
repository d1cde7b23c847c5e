"""An estimate of the memory one training process needs, from configs alone.

Weights, gradients and optimizer state are exact for AdamW without sharding. Activations of connector and language model
are counted by running both on torch's meta device, where tensors have shapes and no content, and adding up what
autograd keeps, and so are those of a vision tower that learns. What comes on top, and is not counted: temporary
buffers, the allocator's slack, and torch itself.

With checkpointing a stack of L layers keeps the input of each and, while it goes back, the activations of one.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from isthmus.adapters import MARK, Lora, add_lora
from isthmus.connectors import ConnectorConfig
from isthmus.encoders import EncoderConfig, PairedEncoder, StackedVisionEncoder, VisionEncoder
from isthmus.features import Features, FeatureShape, LLMShape, Text
from isthmus.llms import LLMConfig
from isthmus.measure.cost import Cost, PartCost, cost
from isthmus.measure.inputs import ONE_IMAGE, Inputs
from isthmus.measure.known import offline
from isthmus.measure.parameters import below
from isthmus.model import Model

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes of one process at one micro-batch."""

    weights: int
    gradients: int
    optimizer: int
    """Two moments for each learned weight (AdamW)."""
    activations: int

    @property
    def total(self) -> int:
        """All of it together."""
        return self.weights + self.gradients + self.optimizer + self.activations


def training_memory(
    model: Model,
    *,
    train: tuple[str, ...] = ("connector",),
    samples: int = 1,
    text_tokens: int = 64,
    image: tuple[int, int] | None = None,
    inputs: Inputs = ONE_IMAGE,
) -> TrainingMemory:
    """Memory of a forward and backward pass over `samples` prompts of these inputs and `text_tokens` each.

    A branch for video or audio of which something learns counts with its views in the prompt, one where it has none.

    Raises:
        ValueError: as `cost` does.
    """
    known = offline(model)
    assert known.llm is not None or known.target()
    bill = cost(model, train=train, image=image, text_tokens=text_tokens, inputs=inputs)
    parts = {f"{name}": (part, precision_of(getattr(known, name))) for name, part in bill.parts.items()}
    for branch in bill.branches:
        config = known.branches[branch.name]
        parts |= {
            f"{branch.name}.{name}": (part, precision_of(getattr(config, name))) for name, part in branch.parts.items()
        }
    activations = _activations(known, bill, train)
    for branch in bill.branches:
        config = known.branches[branch.name]
        if branch.learned:
            views, learns = max(1, branch.views), branch.connector.learned > 0
            activations += _connector_activations(
                config.connector, config.encoder.shape(), known.target(), views, learns
            )
    return held(parts.values(), activations=samples * activations)


def held(parts: Iterable[tuple[PartCost, int]], *, activations: int) -> TrainingMemory:
    """Weights: bytes a number * parameters, summed over the parts. Gradients: bytes a number * parameters that learn,
    summed. AdamW: 2 * gradients. Activations: samples * those of one sample. The memory is the sum of these four.
    """
    listed = list(parts)
    learned = sum(number * part.learned for part, number in listed)
    return TrainingMemory(
        weights=sum(number * part.parameters for part, number in listed),
        gradients=learned,
        optimizer=2 * learned,
        activations=activations,
    )


def precision_of(config: object) -> int:
    """Bytes a number of what a config builds: that of its weights where it names one, else float32."""
    tower = getattr(config, "tower", getattr(config, "first", config))
    return _BYTES[getattr(tower, "precision", "float32")]


def _activations(model: Model, bill: Cost, train: tuple[str, ...]) -> int:
    """Bytes that autograd keeps of one sample: encoder, connector, language model, and the logits of the text."""
    assert model.llm is not None
    source, target = model.source(), model.target()
    learns, looks = bill.connector.learned > 0, bill.encoder.learned > 0
    kept = _connector_activations(
        model.connector, source, target, bill.views, learns, encoder=looks, text_tokens=bill.text_tokens
    )
    kept += tower_activations(model.encoder, bill.views) if bill.encoder.learned else 0
    if bill.encoder.learned or bill.connector.learned or bill.arrange.learned or bill.llm.learned:
        kept += llm_activations(model.llm, bill, train)
    return kept


def _connector_activations(
    config: ConnectorConfig,
    source: FeatureShape,
    target: LLMShape,
    views: int,
    learns: bool,
    *,
    encoder: bool = False,
    text_tokens: int = 1,
) -> int:
    """Of all views; a connector that reads the question reads so many tokens for each of them."""
    with torch.device("meta"):
        connector = config.build(source, target)
    connector.requires_grad_(learns)
    blank = _blank(source, views).requires_grad_(encoder)
    if config.instruction is None:
        return kept_bytes(connector, lambda: connector(_features(source, blank)).tokens)
    words = min(max(1, text_tokens), config.instruction.max_tokens)
    ids = torch.empty(views, words, dtype=torch.long, device="meta")
    text = Text(ids=ids, mask=torch.empty_like(ids, dtype=torch.bool))
    return kept_bytes(connector, lambda: connector(_features(source, blank), text).tokens)


def tower_activations(encoder: EncoderConfig, views: int) -> int:
    """views * K where it learns, K bytes being what autograd keeps of one view; with checkpointing views * pixels *
    bytes a number + min(views, views_at_once) * K.

    Crops that are added inside the encoder hold the blocks they pass; with checkpointing one image does at a time.
    Other encoders than these are not counted.
    """
    if isinstance(encoder, StackedVisionEncoder):
        blocks = int(encoder.tower.trimmed().num_hidden_layers)
        crops = encoder.groups * encoder.start_block / blocks
        an_image = (1 + crops) * tower_activations(replace(encoder.tower, checkpointing=False), 1)
        if not encoder.tower.checkpointing:
            return round(views * an_image)
        pictures = 3 * encoder.tower.image_size**2 * torch.float32.itemsize
        return round(views * (1 + encoder.groups) * pictures + min(views, 1) * an_image)
    if isinstance(encoder, PairedEncoder):
        return tower_activations(encoder.first, views) + tower_activations(encoder.second, views)
    if not isinstance(encoder, VisionEncoder):
        return 0
    tower, options = encoder.skeleton()
    tower = _adapted(tower.to(encoder.dtype), encoder.lora)
    side = encoder.image_size
    pixels = torch.empty(1, 3, side, side, dtype=encoder.dtype, device="meta")
    a_view = kept_bytes(tower, lambda: tower(pixels, output_hidden_states=True, **options).last_hidden_state)
    if not encoder.checkpointing:
        return views * a_view
    return views * pixels.numel() * encoder.dtype.itemsize + min(views, encoder.views_at_once) * a_view


def llm_activations(llm: LLMConfig, bill: Cost, train: tuple[str, ...]) -> int:
    """K + text tokens * vocabulary * (bytes a number + 4), where K bytes are what autograd keeps of its body over T.

    With checkpointing K becomes L * T * hidden width * bytes a number + K / L, rounded up, if that is less. An
    encoder-decoder counts with its encoder.
    """
    skeleton = _adapted(copy.deepcopy(llm.skeleton()).to(llm.dtype), llm.lora)
    for name, parameter in skeleton.named_parameters():
        own = MARK in name or not llm.lora.rank
        parameter.requires_grad_(own and any(below(f"llm.model.{name}", path) for path in train))
    length = bill.visual_tokens + bill.text_tokens
    width = llm.shape().embedding_width
    # With a mask of four axes transformers builds none of its own, which would need real numbers.
    mask = torch.empty(1, 1, length, length, dtype=llm.dtype, device="meta")
    embedded = torch.empty(1, length, width, dtype=llm.dtype, device="meta", requires_grad=True)
    body = skeleton.base_model if llm.kind == "causal" else skeleton.get_encoder()  # type: ignore[operator]
    assert isinstance(body, nn.Module)
    places = torch.empty(1, length, dtype=torch.int64, device="meta")
    options = {"use_cache": False, "position_ids": places} if llm.kind == "causal" else {}
    kept = kept_bytes(skeleton, lambda: body(inputs_embeds=embedded, attention_mask=mask, **options).last_hidden_state)
    if llm.checkpointing:
        layers = llm.shape().num_layers
        kept = min(kept, layers * length * llm.shape().hidden_width * llm.dtype.itemsize + -(-kept // layers))
    logits = bill.head_flops // 2 // llm.shape().hidden_width * bill.text_tokens
    return kept + logits * (llm.dtype.itemsize + 4)


def _adapted(skeleton: nn.Module, lora: Lora) -> nn.Module:
    """A skeleton with its adapters, which alone learn; as it is where there are none."""
    if not lora.rank:
        return skeleton
    with torch.device("meta"):
        adapted = add_lora(skeleton.train(), lora)
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_(MARK in name)
    return adapted


def kept_bytes(module: nn.Module, run: Callable[[], Tensor]) -> int:
    """Bytes of the distinct tensors that autograd keeps while `run` runs, the module's own weights left out."""
    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage()._cdata
        if place not in own:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _blank(source: FeatureShape, views: int) -> Tensor:
    return torch.empty(views, source.prefix + source.grid.size, source.width, device="meta")


def _features(source: FeatureShape, tokens: Tensor) -> Features:
    levels = tuple(torch.empty(len(tokens), source.grid.size, width, device="meta") for width in source.level_widths)
    return Features(tokens=tokens, grid=source.grid, prefix=source.prefix, levels=levels)
