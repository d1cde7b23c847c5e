"""What every language model is: a config that answers without weights, and a module that reads embeddings."""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, GenerationConfig

from isthmus.adapters import Lora, lora_parameters
from isthmus.config import fingerprint
from isthmus.features import LLMShape
from isthmus.llms.additions import AdditionDoor, LayerAddition
from isthmus.weights import folder_hash, read_tokenizer, resolve_model

Precision = Literal["float32", "bfloat16", "float16"]
Kind = Literal["causal", "encoder-decoder"]

IGNORED = -100
"""The label of a position without a target, as in transformers."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How answers are written. Greedy by default; `num_beams` > 1 is beam search, `do_sample` draws."""

    max_new_tokens: int = 16
    num_beams: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    min_new_tokens: int = 0
    """Until then nothing ends an answer."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.num_beams < 1:
            raise ValueError(
                f"An answer has one token at least and is searched with one beam at least, got "
                f"max_new_tokens={self.max_new_tokens} and num_beams={self.num_beams}."
            )
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ValueError(
                f"An answer of {self.min_new_tokens} tokens or more (min_new_tokens) cannot have {self.max_new_tokens} "
                f"at most (max_new_tokens)."
            )
        if not self.temperature > 0.0 or not 0.0 < self.top_p <= 1.0:
            raise ValueError(
                f"Draws need temperature above 0 and top_p above 0 and up to 1, got temperature={self.temperature} and "
                f"top_p={self.top_p}. Without do_sample an answer is greedy."
            )
        if self.length_penalty != 1.0 and self.num_beams < 2:
            raise ValueError(
                f"A length penalty ({self.length_penalty}) chooses among beams, and there is one. Set num_beams=5, as "
                f"BLIP-2 does, or leave the penalty out."
            )

    def settings(self) -> dict[str, Any]:
        """The settings that apply, as `transformers` names them; sampling ones only when it samples."""
        chosen: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "num_beams": self.num_beams,
            "do_sample": self.do_sample,
            "repetition_penalty": self.repetition_penalty,
        }
        if self.min_new_tokens:
            chosen["min_new_tokens"] = self.min_new_tokens
        if self.num_beams > 1:
            chosen["length_penalty"] = self.length_penalty
        if self.do_sample:
            chosen |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return chosen


@dataclass(frozen=True, kw_only=True)
class TokenLosses:
    """Cross-entropy in nats at each supervised token; `rows` says which row of the batch each token is in."""

    losses: Float[Tensor, " supervised"]
    rows: Int[Tensor, " supervised"]


@dataclass(frozen=True, kw_only=True)
class LLMConfig:
    """Which language model, and how much text it may get. Everything but `build` reads the model's config alone.

    `name` is a hub id, a folder, or a bundled model (`bundled/speaker`).
    """

    name: str
    max_tokens: int = 1024
    """Longest input, visual tokens included; longer conversations lose their last turns."""
    precision: Precision = "float32"
    """Number type of the weights in memory. bfloat16 is slow on CPUs without hardware for it."""
    checkpointing: bool = False
    """In training, compute each layer's activations again in the backward pass: less memory, one forward pass more."""
    lora: Lora = field(default_factory=Lora)
    """Adapters beside its linear layers; `lora.rank` 0 adds none."""

    kind: ClassVar[Kind]

    def shape(self) -> LLMShape:
        """Widths and number of decoder layers."""
        config = read_config(resolve_model(self.name))
        hidden = int(config.hidden_size)
        return LLMShape(
            embedding_width=int(getattr(config, "word_embed_proj_dim", hidden)),
            hidden_width=hidden,
            num_layers=int(config.num_hidden_layers),
        )

    def parameters(self) -> int:
        """Number of parameters without adapters; weights that are shared count once."""
        return sum(weight.numel() for weight in self.skeleton().parameters())

    def adapters(self) -> dict[str, int]:
        """Parameters of the adapters by the layer that they stand beside; none where `lora.rank` is 0."""
        return lora_parameters(self.skeleton(), self.lora)

    def skeleton(self) -> nn.Module:
        """The model on the meta device: every shape, no weight."""
        raise AssertionError(f"{type(self).__name__} does not define skeleton")

    def flops(self, num_tokens: int) -> int:
        """FLOPs to read `num_tokens` positions once, attention computed densely, without the output head."""
        raise AssertionError(f"{type(self).__name__} does not define flops")

    def kv_bytes(self, num_tokens: int) -> int:
        """Bytes that `num_tokens` read positions occupy in the key-value cache, at this precision."""
        raise AssertionError(f"{type(self).__name__} does not define kv_bytes")

    def tokenizer(self) -> Any:
        """The model's own fast tokenizer, without the model. Raises ValueError when it cannot be read."""
        return read_tokenizer(self.name)

    def fingerprint(self) -> str:
        """Equal when architecture and weights are: the folder's content, or hub id and commit; not `max_tokens`."""
        path = resolve_model(self.name)
        if Path(path).is_dir():
            identity = folder_hash(path)
        else:
            identity = f"{path}@{getattr(read_config(path), '_commit_hash', None)}"
        return fingerprint({"kind": self.kind, "model": identity})

    def build(self) -> "LanguageModel":
        """The model with its weights, frozen. Raises ValueError when `max_tokens` is beyond its positions."""
        raise AssertionError(f"{type(self).__name__} does not define build")

    @property
    def dtype(self) -> torch.dtype:
        """`precision` as torch names it."""
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.precision]


class LanguageModel(nn.Module):
    """A language model of `transformers` that reads embeddings, with its tokenizer and the door to its layers.

    It is built frozen: its weights get gradients only after someone calls `requires_grad_` on them.
    """

    recomputes = False
    """Whether its layers are computed again in the backward pass (`isthmus.train.recompute`)."""

    def __init__(self, model: nn.Module, tokenizer: Any, layers: nn.ModuleList, max_tokens: int) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.ends = end_ids(model.generation_config, tokenizer)
        # A model's own sampling settings (Vicuna's temperature 0.9) would fill whatever `Generation` leaves open.
        model.generation_config = GenerationConfig(
            eos_token_id=list(self.ends),
            pad_token_id=padding_id(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        )
        self.additions = AdditionDoor(layers)
        self._scored: Int[Tensor, " supervised"] | None = None
        self.head.register_forward_pre_hook(self._keep_scored)

    @property
    def head(self) -> nn.Module:
        """The module that turns hidden states into logits."""
        head: nn.Module = self.model.get_output_embeddings()  # type: ignore[operator]
        return head

    def embed(self, ids: Int[Tensor, "rows length"]) -> Float[Tensor, "rows length width"]:
        """Token embeddings, through the model's own module: some scale inside it."""
        table: nn.Module = self.model.get_input_embeddings()  # type: ignore[operator]
        embedded: Tensor = table(ids)
        return embedded

    def to_hidden(self, tokens: Float[Tensor, "total width"]) -> Float[Tensor, "total hidden"]:
        """Tokens of the embedding width as hidden states: through the model's own map where it has one (OPT-350m)."""
        maps = [part for name, part in self.model.named_modules() if name.endswith("project_in") and part is not None]
        widened: Tensor = maps[0](tokens) if maps else tokens
        return widened

    def add_to_layers(self, addition: LayerAddition | None, rows: int) -> None:
        """Use `addition` in every pass from now on, for batches of `rows` rows; `None` ends it."""
        self.additions.open(addition, rows)

    def forward(
        self,
        embeddings: Float[Tensor, "rows length width"],
        mask: Bool[Tensor, "rows length"],
        labels: Int[Tensor, "rows targets"],
    ) -> TokenLosses:
        """Cross-entropy of every label that is not -100. Logits are computed at those positions alone."""
        raise AssertionError(f"{type(self).__name__} does not define forward")

    def generate(
        self,
        embeddings: Float[Tensor, "rows length width"],
        ids: Int[Tensor, "rows length"],
        mask: Bool[Tensor, "rows length"],
        options: Generation,
        stop_ids: tuple[int, ...] = (),
    ) -> list[list[int]]:
        """New token ids per row through the model's own `generate`, ended before the first stop token."""
        raise AssertionError(f"{type(self).__name__} does not define generate")

    def _keep_scored(self, head: nn.Module, args: tuple[Any, ...]) -> Any:
        if self._scored is None:
            return None
        hidden = args[0]
        kept = hidden.flatten(0, 1).index_select(0, self._scored)
        return (kept.unsqueeze(0), *args[1:])

    def _logits_at(
        self, positions: Int[Tensor, " supervised"], inputs: dict[str, Any], *, use_cache: bool = False
    ) -> Float[Tensor, "supervised vocabulary"]:
        """The model's logits at flat positions only: the head sees no other hidden state, soft-caps stay right."""
        self._scored = positions
        try:
            logits: Tensor = self.model(**inputs, use_cache=use_cache).logits
        finally:
            self._scored = None
        assert logits.shape[:2] == (1, len(positions)), f"the head gave {tuple(logits.shape)}"
        return logits[0]

    def _write(self, inputs: dict[str, Any], options: Generation, stop_ids: tuple[int, ...]) -> Tensor:
        ends = list(dict.fromkeys((*self.ends, *stop_ids)))
        config = GenerationConfig(**options.settings(), eos_token_id=ends)
        with torch.no_grad():
            written: Tensor = self.model.generate(**inputs, generation_config=config)  # type: ignore[operator]
        return written


@lru_cache(maxsize=16)
def read_config(path: str) -> Any:
    """The text part of a model's config, from its config.json alone. Raises ValueError when it cannot be read."""
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"Cannot read the config of the language model {path!r}: {str(error).splitlines()[0]} Give a folder in the "
            f"transformers format, a hub id that this machine can reach or holds in its cache, or bundled/NAME."
        ) from error


def weight_products(layers: nn.Module, *, skip: tuple[str, ...] = ()) -> int:
    """Multiply-adds that one position costs in every linear map below `layers`, names containing `skip` left out."""
    return sum(
        weight.numel()
        for name, weight in layers.named_parameters()
        if weight.dim() == 2 and name.endswith("weight") and not any(part in name for part in skip)
    )


def check_positions(config: Any, max_tokens: int, name: str) -> None:
    """Raise ValueError when a model has fewer positions than `max_tokens`."""
    positions = getattr(config, "max_position_embeddings", math.inf)
    if max_tokens > positions:
        raise ValueError(f"{name} has {positions} positions, but max_tokens={max_tokens}. Lower max_tokens.")


def end_ids(generation_config: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a text: those of the model's generation config, and the tokenizer's own."""
    own = getattr(generation_config, "eos_token_id", None)
    ends = tuple(own) if isinstance(own, (list, tuple)) else (() if own is None else (own,))
    mine = tokenizer.eos_token_id
    return ends if mine is None or mine in ends else (*ends, mine)


def padding_id(tokenizer: Any) -> int:
    """The id written at padding: the tokenizer's, else its end of text, else 0. The mask carries the truth."""
    for known in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if known is not None:
            return int(known)
    return 0


def until_end(ids: list[int], ends: tuple[int, ...]) -> list[int]:
    """The ids before the first that ends the text."""
    for index, one in enumerate(ids):
        if one in ends:
            return ids[:index]
    return ids
