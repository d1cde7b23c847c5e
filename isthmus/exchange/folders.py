"""What an import writes: the parts as folders in the `transformers` format, and a run folder that names them."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from isthmus import __version__
from isthmus.config import to_json
from isthmus.connectors.instruct_qformer import InstructQFormerConfig
from isthmus.model import Model
from isthmus.runs import FINISHED_FILE, STAGE_FILE, WEIGHTS_FILE, Run
from isthmus.weights import quiet_transformers

ENCODER_FOLDER = "encoder"
LLM_FOLDER = "llm"
READER_FOLDER = "reader"
"""The tokenizer of a connector that reads text."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A run made of foreign weights: how many tensors each part took, and what was left out and why."""

    run: Run
    taken: dict[str, int]
    left: dict[str, str]

    def lines(self) -> list[str]:
        """The report, one line a part."""
        taken = [f"{part}: {count} tensors" for part, count in self.taken.items() if count]
        return taken + [f"left out: {what} ({why})" for what, why in self.left.items()]


def write_whole_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Makes `folder` in one step: `fill` writes into a folder beside it, which then takes its name.

    Raises:
        ValueError: the folder is there already.
    """
    if folder.exists():
        raise ValueError(f"{folder} is there already. Name a folder that is not, or take this one away.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fill(partial)
        partial.chmod(0o755)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_run(
    folder: Path,
    *,
    name: str,
    model: Model,
    tensors: Mapping[str, Tensor],
    origin: str,
    left: Mapping[str, str] | None = None,
) -> None:
    """`stage.json`, `weights.safetensors` and `finished.json` of a run of no step; `left` is what was left out."""
    about: dict[str, Any] = {
        "isthmus": __version__,
        "commit": None,
        "model_fingerprint": model.fingerprint(),
        "encoder": model.encoder.fingerprint(),
        "llm": None if model.llm is None else model.llm.fingerprint(),
        "start": None,
        "imported_from": origin,
        "stage": {"type": "Stage", "name": name, "model": to_json(model)},
    }
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, folder / WEIGHTS_FILE)
    (folder / STAGE_FILE).write_text(json.dumps(about, indent=1), encoding="utf-8")
    result = {"steps": 0, "imported_from": origin, "left_out": dict(left or {})}
    (folder / FINISHED_FILE).write_text(json.dumps(result), encoding="utf-8")


def name_parts(model: Model, folder: Path, final: Path) -> Model:
    """The model with its encoder and language model named as folders inside `folder`, which will stand at `final`."""
    encoder: Any = replace(model.encoder, name=str(folder / ENCODER_FOLDER))  # type: ignore[call-arg]
    assert model.llm is not None, "a native class has a language model"
    connector = model.connector
    if isinstance(connector, InstructQFormerConfig):
        named = replace(connector.qformer, text_model=str(final.resolve() / READER_FOLDER))
        connector = replace(connector, qformer=named)
    llm = replace(model.llm, name=str(folder / LLM_FOLDER))
    return replace(model, encoder=encoder, llm=llm, connector=connector)


def save_reader(connector: InstructQFormerConfig, tokenizer: Any, folder: Path) -> None:
    """The tokenizer of a connector that reads text, with the config that says whose it is."""
    qformer = connector.qformer
    transformers.BertConfig(
        vocab_size=qformer.vocabulary,
        hidden_size=qformer.width,
        num_hidden_layers=qformer.layers,
        num_attention_heads=qformer.heads,
        intermediate_size=qformer.ffn_width,
        max_position_embeddings=qformer.positions,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_language_model(lm: Any, tokenizer: Any, folder: Path) -> None:
    """A language model with its tokenizer, as a folder that `CausalLM` or `EncoderDecoderLM` opens."""
    with quiet_transformers():
        lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def whole_causal(config: Any, base: Any, head: Any, generation_config: Any) -> Any:
    """The causal language model of `config` around a decoder and an output head that are there already."""
    with torch.device("meta"):
        lm: Any = transformers.AutoModelForCausalLM.from_config(config)
    setattr(lm, lm.base_model_prefix, base)
    lm.set_output_embeddings(head)
    if generation_config is not None:
        lm.generation_config = generation_config
    return lm
