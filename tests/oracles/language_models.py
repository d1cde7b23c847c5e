"""Language models made of an oracle's weights, as model folders, with a tokenizer whose words are ids: `<7>` is 7."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from isthmus.data.sample import Sample, Turn
from isthmus.encoders import EncoderConfig
from isthmus.features import FeatureShape, Grid, Plan

ARCHITECTURES = {"opt": "OPTForCausalLM", "llama": "LlamaForCausalLM", "t5": "T5ForConditionalGeneration"}


def words(ids: Any) -> str:
    """Ids as the text that the tokenizer reads as these ids."""
    return " ".join(f"<{int(one)}>" for one in ids)


def id_tokenizer(size: int, *, pad: int, bos: int | None, eos: int, newline: int | None = None) -> Any:
    """Every word is `<id>`; `newline` is the id of a line's end, where there is one. Other characters are dropped."""
    names = {f"<{one}>": one for one in range(size)}
    specials = {"pad_token": f"<{pad}>", "eos_token": f"<{eos}>", "unk_token": f"<{pad}>"}
    if bos is not None:
        specials["bos_token"] = f"<{bos}>"
    if newline is not None:
        del names[f"<{newline}>"]
        names["\n"] = newline
    tokenizer = Tokenizer(models.WordLevel(vocab=names, unk_token=f"<{pad}>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"<\d+>|\n"), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)


def save_language_model(
    kind: str, sizes: Mapping[str, Any], weights: Mapping[str, Tensor], tokenizer: Any, folder: Path
) -> str:
    """A folder of this kind of model with exactly these weights, as the hub has it.

    Written by hand: saved by `transformers` 5, a T5 whose output head is its own comes back with it tied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {**sizes, "model_type": kind, "architectures": [ARCHITECTURES[kind]]}
    config.pop("transformers_version", None)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({key: weight.clone() for key, weight in weights.items()}, folder / "model.safetensors")
    tokenizer.save_pretrained(folder)
    return str(folder)


@dataclass(frozen=True, kw_only=True)
class Given(EncoderConfig):
    """Stands for an encoder whose features the oracle gives."""

    given: FeatureShape

    def shape(self) -> FeatureShape:
        return self.given

    def fingerprint(self) -> str:
        return "given"


class Picture:
    """Stands for an image; nothing here loads it."""

    key = "picture"

    def load(self) -> Any:
        raise AssertionError("the features are given")


def asking(row: int, question: str, answer: str) -> Sample:
    """One image, one question, one answer."""
    turns = (Turn(role="user", text=f"<image>{question}"), Turn(role="assistant", text=answer))
    return Sample(id=str(row), turns=turns, images=(Picture(),))


def one_view_each(rows: int) -> list[Plan]:
    """The plans of a batch with an image of one view in each row."""
    return [Plan(size=(1, 1), tiles=Grid(1, 1, 1), views=range(row, row + 1)) for row in range(rows)]
