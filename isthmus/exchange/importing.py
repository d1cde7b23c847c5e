"""A checkpoint of others becomes a run of ours, strictly: unknown, missing or misshapen weights are refused by name."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from isthmus.config import did_you_mean
from isthmus.connectors.instruct_qformer import InstructQFormerConfig
from isthmus.data.prompts import Bounded, PromptStyle
from isthmus.encoders import VisionEncoder
from isthmus.encoders.pixels import Fit
from isthmus.exchange.folders import (
    ENCODER_FOLDER,
    LLM_FOLDER,
    READER_FOLDER,
    Imported,
    name_parts,
    save_language_model,
    save_reader,
    write_run,
    write_whole_folder,
)
from isthmus.exchange.native import NATIVE, Parts
from isthmus.exchange.views import not_carried, tiles_of
from isthmus.model import Model
from isthmus.runs import Run
from isthmus.weights import PICKLED, quiet_transformers, read_tokenizer

PREPROCESSOR_FILE = "preprocessor_config.json"


def import_native(path: str | Path, folder: Path, *, prompt: PromptStyle | None = None) -> Imported:
    """A model folder of a class in `NATIVE` as a run: its tower, its language model and its connector, all equal.

    Raises:
        ValueError: no such class, an option of it that ours lacks, or weights that are not exactly the class's own.
    """
    path = Path(path)
    kind = _kind_of(path)
    if kind not in NATIVE:
        raise ValueError(
            f"{path} holds a {kind!r} model, which is no class that can be imported whole.{did_you_mean(kind, NATIVE)} "
            f"These can: {', '.join(NATIVE)}. To import its connector alone, name the recipe that the weights fit."
        )
    about = read_preprocessor(path)
    tokenizer = read_tokenizer(path)
    native = load_native(path, NATIVE[kind].class_name)
    parts = NATIVE[kind].split(native, fit_of(about), _usual_prompt(kind, tokenizer) if prompt is None else prompt)
    encoder = parts.model.encoder
    assert isinstance(encoder, VisionEncoder), "every class in NATIVE has one"
    check_ready(about, encoder.image_size)
    if kind == "internvl":
        parts = replace(parts, model=replace(parts.model, encoder=replace(encoder, tiles=tiles_of(kind, about))))
    left = not_carried(kind, about, encoder.image_size)

    def fill(partial: Path) -> None:
        with quiet_transformers():
            parts.tower.save_pretrained(partial / ENCODER_FOLDER)  # type: ignore[operator]
        (partial / ENCODER_FOLDER / PREPROCESSOR_FILE).write_text(json.dumps(about, indent=1), encoding="utf-8")
        save_language_model(parts.lm, tokenizer, partial / LLM_FOLDER)
        if isinstance(parts.model.connector, InstructQFormerConfig):
            save_reader(parts.model.connector, read_tokenizer(path / "qformer_tokenizer"), partial / READER_FOLDER)
        _write(parts, partial, folder, origin=f"{kind} {path}", left=left)

    write_whole_folder(folder, fill)
    _name_folder(folder)
    return Imported(run=Run(folder), taken=_counts(parts), left=left)


def _usual_prompt(kind: str, tokenizer: Any) -> PromptStyle:
    """How the class is asked; without tokens around images where its tokenizer does not have them."""
    prompt = NATIVE[kind].prompt
    if isinstance(prompt, Bounded) and not {prompt.before, prompt.after} <= set(tokenizer.get_vocab()):
        return prompt.style
    return prompt


def _kind_of(path: Path) -> str:
    """The `model_type` of a folder. Raises ValueError for what is no model folder, saying what it is."""
    give = "Give a folder in the format of transformers, with config.json and its weights beside it"
    if path.is_file():
        raise ValueError(
            f"{str(path)!r} is a file, not a model folder. {give}; for a file of connector weights (.safetensors, "
            f"{', '.join(PICKLED)}) name the recipe that they fit, with --recipe."
        )
    if not path.is_dir():
        raise ValueError(
            f"There is no model folder {str(path)!r}. {give}; for a file of connector weights name the recipe that "
            f"they fit, with --recipe."
        )
    if not (path / "config.json").is_file():
        held = ", ".join(sorted(one.name for one in path.iterdir())[:5])
        raise ValueError(
            f"The folder {str(path)!r} has no config.json: it holds {held if held else 'nothing'}. {give}; for "
            f"connector weights in it name the recipe that they fit, with --recipe."
        )
    return model_type(path)


def load_native(path: Path, class_name: str) -> Any:
    """The model of a native folder, from safetensors alone.

    Raises:
        ValueError: naming the weights that are missing, unknown or of another shape.
    """
    made = getattr(transformers, class_name)
    try:
        with quiet_transformers():
            native, info = made.from_pretrained(
                path,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ImportError) as error:
        raise ValueError(f"Cannot load {path} as {class_name}: {str(error).splitlines()[0]}") from error
    problems = {
        "missing": sorted(info["missing_keys"]),
        "unknown": sorted(info["unexpected_keys"]),
        "of another shape": sorted(str(one[0]) for one in info["mismatched_keys"]),
    }
    said = [f"{len(keys)} {kind}: {'; '.join(keys[:10])}" for kind, keys in problems.items() if keys]
    if said:
        raise ValueError(
            f"The weights in {path} are not those of its config ({class_name}): {' | '.join(said)}. "
            f"Download or save the model again."
        )
    return native.eval()


def model_type(path: Path) -> str:
    """The `model_type` in a folder's config.json, "" when there is none.

    Raises:
        ValueError: the file is no JSON object.
    """
    file = path / "config.json"
    if not file.is_file():
        return ""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return str(data.get("model_type", ""))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is not a JSON object: {error}") from error


def read_preprocessor(path: Path) -> dict[str, Any]:
    """What the folder's image processor is set to.

    Raises:
        ValueError: there is none.
    """
    for name in (PREPROCESSOR_FILE, "processor_config.json"):
        if (path / name).is_file():
            data: dict[str, Any] = json.loads((path / name).read_text(encoding="utf-8"))
            data = data.get("image_processor", data)
            if "image_mean" in data:
                return data
    raise ValueError(
        f"{path} has no {PREPROCESSOR_FILE}, so how its images are made ready is unknown. Save the model's processor "
        f"beside it: AutoProcessor.from_pretrained(...).save_pretrained(folder)."
    )


def check_ready(about: Mapping[str, Any], side: int) -> None:
    """Raises ValueError for an image processor whose pixels ours would not be: unscaled, not normalised, or resized."""
    wanted = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
    wrong = [
        f"{name}={about[name]!r}"
        for name, value in wanted.items()
        if about.get(name) is not None and abs(about[name] - value) > 1e-6
    ]
    named = about.get("crop_size") if about.get("do_center_crop") else about.get("size")
    sides = {named[name] for name in ("height", "width") if name in named} if isinstance(named, Mapping) else set()
    if sides - {side}:
        wrong.append(f"images of {dict(named or {})} before a tower for {side} px")
    if about.get("tile_size", side) != side:
        wrong.append(f"tile_size={about['tile_size']} before a tower for {side} px")
    if wrong:
        raise ValueError(
            f"Its image processor says {', '.join(wrong)}, which cannot be imported: images are resized to the tower's "
            f"own size, scaled to 0 to 1 and normalised here. Save the processor that the model was trained with."
        )


def fit_of(about: Mapping[str, Any]) -> Fit:
    """How an image processor brings an image to a square."""
    if about.get("do_pad") and about.get("image_processor_type", "").startswith("Llava"):
        return "pad"
    shorter = "shortest_edge" in (about.get("size") or {})
    return "crop" if about.get("do_center_crop") and shorter else "squash"


def _write(parts: Parts, partial: Path, folder: Path, *, origin: str, left: Mapping[str, str]) -> None:
    model = with_room(name_parts(parts.model, partial, folder), parts.lm)
    tensors = _checked(model, parts)
    write_run(partial, name=f"imported/{folder.name}", model=model, tensors=tensors, origin=origin, left=left)


def with_room(model: Model, lm: Any) -> Model:
    """The model with room in its prompt for all tiles of an image, as far as its language model has positions."""
    assert model.llm is not None, "a native class has a language model"
    more = (model.encoder.most_views() - 1) * model.connector.num_tokens(model.source().grid)
    longest = min(model.llm.max_tokens + more, int(getattr(lm.config, "max_position_embeddings", model.llm.max_tokens)))
    return replace(model, llm=replace(model.llm, max_tokens=longest)) if more else model


def _checked(model: Model, parts: Parts) -> dict[str, Tensor]:
    """The run's tensors, once they are known to be exactly those of the connector and the arrangement."""
    target = model.target()
    with torch.device("meta"):
        made = {"connector": model.connector.build(model.source(), target), "arrange": model.arrange.build(target)}
    tensors: dict[str, Tensor] = {}
    for part, given in (("connector", parts.connector), ("arrange", parts.arrange)):
        own = made[part].state_dict()
        wrong = [key for key in own if key not in given] + [key for key in given if key not in own]
        wrong += [key for key in own if key in given and own[key].shape != given[key].shape]
        if wrong:
            raise ValueError(f"The {part}'s weights do not fit {type(made[part]).__name__}: {'; '.join(wrong[:10])}.")
        tensors |= {f"{part}.{key}": value.float() for key, value in given.items()}
    return tensors


def _name_folder(folder: Path) -> None:
    """Names the parts by the place where they stand now: they were written into a folder that was then renamed."""
    file = folder / "stage.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    for part in (ENCODER_FOLDER, LLM_FOLDER):
        data["stage"]["model"][part]["name"] = str(folder.resolve() / part)
    file.write_text(json.dumps(data, indent=1), encoding="utf-8")


def _counts(parts: Parts) -> dict[str, int]:
    return {
        "encoder": len(parts.tower.state_dict()),
        "connector": len(parts.connector),
        "arrangement": len(parts.arrange),
        "language model": len(parts.lm.state_dict()),
    }
