"""Run folders: where they are, what is in them, and the model they hold. Every later room opens runs here.

A run folder holds `stage.json`, `weights.safetensors` (what was trained, and connectors always; frozen parts are named
by id and hash in `stage.json`), `best.safetensors` when there was validation, `state/` to resume from, `log.jsonl`
(equal for equal runs) and `timing.jsonl` (wall-clock, never equal).
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isthmus import weights
from isthmus.config import did_you_mean, from_json
from isthmus.connectors.reading import Vectors
from isthmus.model import TYPES, Model, VisionLanguageModel

STAGE_FILE = "stage.json"
WEIGHTS_FILE = "weights.safetensors"
BEST_FILE = "best.safetensors"
LOG_FILE = "log.jsonl"
TIMING_FILE = "timing.jsonl"
FINISHED_FILE = "finished.json"
STATE_FOLDER = "state"


def runs_root() -> Path:
    """Where runs go unless a folder is given: the environment's ISTHMUS_RUNS, or `runs/` in the current directory."""
    return Path(os.environ.get("ISTHMUS_RUNS", "runs"))


def new_run_folder(name: str, root: Path | None = None) -> Path:
    """The next free numbered folder for a stage of this name: `root/name/001`, `002`, ... Nothing is created."""
    parent = (runs_root() if root is None else root) / name
    numbers = [int(path.name) for path in parent.glob("*") if path.name.isdigit()] if parent.is_dir() else []
    return parent / f"{max(numbers, default=0) + 1:03d}"


def find_run(name: str, model: Model, root: Path | None = None) -> "Run":
    """The latest finished run of a recipe whose model has the same fingerprint as `model`.

    Raises:
        ValueError: there is none; says whether a run of the name exists with another model, or is unfinished.
    """
    place = runs_root() if root is None else root
    every = list(runs_in(place))
    named = [run for run in every if run.name == name]
    if not named:
        raise ValueError(
            f"No run of {name!r} in {place}.{did_you_mean(name, sorted({run.name for run in every}))} "
            f"Train it first: isthmus train {name}. Or name a run folder."
        )
    wanted = model.fingerprint()
    fitting = [run for run in named if run.finished and run.stage_json["model_fingerprint"] == wanted]
    fitting = fitting or [run for run in named if run.finished and can_start(run, model)]
    if not fitting:
        states = ", ".join(f"{run.folder} ({'another model' if run.finished else 'unfinished'})" for run in named)
        raise ValueError(
            f"Runs of {name!r} exist, but none is finished with an equal model: {states}. "
            f"Finish one with isthmus train --resume, or make the models equal (encoder, connector, arrange, llm)."
        )
    return max(fitting, key=lambda run: (run.folder / FINISHED_FILE).stat().st_mtime_ns)


def can_start(run: "Run", model: Model) -> bool:
    """Whether a model can start from a run's weights: the two are equal, or see images differently and nothing else.

    Resolution, fit, tiles and number format of the encoder may change between stages (Qwen-VL: 224 px, then 448 px),
    and an arrangement without weights may give way to another, whose weights start fresh (LLaVA-1.5-HD: the end of
    rows). A connector that was trained alone may go on before a language model (BLIP-2: the second stage), and one may
    go on inside another (InstructBLIP), before another language model where its way there starts fresh (Video-LLaMA).
    """
    known = run.stage_json["model_fingerprint"]
    if known == model.fingerprint():
        return True
    try:
        theirs = run.model_config
        if theirs.fingerprint() != known:
            return False
    except ValueError:  # its config, or a model that it names, cannot be read any more
        return False
    return goes_on_from(theirs, model)


def goes_on_from(theirs: Model, model: Model) -> bool:
    """Whether an earlier stage's weights can start a later one's model; `can_start` says where the two may differ."""
    changed = replace(theirs, encoder=theirs.encoder.seeing_as(model.encoder))
    if model.connector.shares_weights(theirs.connector):
        changed = replace(changed, connector=model.connector)
    if model.llm is not None and model.connector.continues(theirs.connector):
        anew = theirs.llm is None or (model.connector.projects_anew and model.connector != theirs.connector)
        changed = replace(changed, connector=model.connector)
        changed = replace(changed, llm=model.llm, arrange=model.arrange) if anew else changed
    if theirs.llm is not None and (
        not theirs.arrange.parameters(theirs.target()) or model.arrange.continues(theirs.arrange)
    ):
        changed = replace(changed, arrange=model.arrange)
    if not theirs.branches:  # further branches may be added: their weights start fresh
        changed = replace(changed, video=model.video, audio=model.audio)
    return changed.fingerprint() == model.fingerprint()


def runs_in(root: Path) -> Iterator["Run"]:
    """Every run folder under `root`, by path."""
    for path in sorted(root.glob(f"**/{STAGE_FILE}")):
        yield Run(path.parent)


class Run:
    """A run folder, open for reading.

    Raises:
        ValueError: the folder holds no run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / STAGE_FILE
        if not path.is_file():
            raise ValueError(
                f"{self.folder} is not a run folder: it has no {STAGE_FILE}. Give one that `isthmus train` wrote."
            )
        self.stage_json: dict[str, Any] = _read_object(path)
        """The file as read: version, commit, fingerprints, and the stage itself under "stage"."""
        stage = self.stage_json.get("stage")
        if not isinstance(stage, dict) or "model" not in stage or "name" not in stage:
            raise ValueError(f"{path} is not a stage file: it needs a 'stage' with a 'name' and a 'model'.")

    @property
    def name(self) -> str:
        """The stage's name."""
        return str(self.stage_json["stage"]["name"])

    @property
    def model_config(self) -> Model:
        """The model's config."""
        model = from_json(self.stage_json["stage"]["model"], TYPES)
        if not isinstance(model, Model):
            raise ValueError(f"{self.folder / STAGE_FILE} names a {type(model).__name__} where a Model belongs.")
        return model

    @property
    def vectors(self) -> Vectors:
        """What stands for an image where this run compares images with texts: what its ITC trained.

        Where it trained both the queries' vector and that of the pooled features, their sum (InternVL-G). An imported
        run, which says no objectives, is compared by its queries.
        """
        objectives = self.stage_json["stage"].get("objectives", ())
        trained = {one.get("vectors", "queries") for one in objectives if one["type"] == "ITC"}
        return "queries" if trained <= {"queries"} else "features" if trained == {"features"} else "sum"

    @property
    def finished(self) -> bool:
        """Whether the run reached its last step."""
        return (self.folder / FINISHED_FILE).is_file()

    @property
    def result(self) -> dict[str, Any]:
        """What a finished run says of itself: steps, last and best validation loss, samples it had to skip.

        Raises:
            ValueError: the run is not finished.
        """
        if not self.finished:
            raise ValueError(f"{self.folder} is not finished. Resume it: isthmus train --resume {self.folder}")
        return _read_object(self.folder / FINISHED_FILE)

    def log(self) -> list[dict[str, Any]]:
        """The lines of `log.jsonl`; a half-written last line of a killed run is left out."""
        return read_lines(self.folder / LOG_FILE)

    def timing(self) -> list[dict[str, Any]]:
        """The lines of `timing.jsonl`: step, seconds, samples and tokens a second."""
        return read_lines(self.folder / TIMING_FILE)

    def weights(self, which: Literal["last", "best"] = "last") -> dict[str, Tensor]:
        """The saved tensors by dotted name ("connector.project.0.weight").

        Raises:
            ValueError: nothing was saved yet, or no best is kept because the stage had no validation.
        """
        path = self.folder / (WEIGHTS_FILE if which == "last" else BEST_FILE)
        if not path.is_file():
            raise ValueError(f"{self.folder} has no {path.name}: nothing was saved yet, or nothing was validated.")
        return weights.load_safetensors(path)

    def has_own(self, part: str) -> bool:
        """Whether the run keeps weights of its own for a top-level part: this stage or an earlier one trained it."""
        path = self.folder / WEIGHTS_FILE
        return path.is_file() and any(name.startswith(part + ".") for name in weights.names_in(path))

    def load_model(
        self, device: str | torch.device = "cpu", which: Literal["last", "best"] = "last", with_encoder: bool = True
    ) -> VisionLanguageModel:
        """The trained model in evaluation mode.

        Raises:
            ValueError: a frozen part is not the one the run was trained with, or the weights do not fit the model.
        """
        config = self.model_config
        if config.fingerprint() != self.stage_json["model_fingerprint"]:
            raise ValueError(
                f"{self.folder} was trained on other frozen weights than {config.encoder} and {config.llm} name now. "
                f"Bring back the models it was trained with; a connector fits no other encoder or language model."
            )
        model = VisionLanguageModel(config, with_encoder=with_encoder)
        load_trained(model, self.weights(which), source=str(self.folder), with_encoder=with_encoder)
        return model.to(device).eval()


def load_trained(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    with_encoder: bool = True,
    fresh: tuple[str, ...] = (),
) -> frozenset[str]:
    """Copy saved tensors into a model in place, and say which names they had.

    Every tensor must have its place and shape, and every parameter of the connector and the arrangement its tensor,
    but for those below the prefixes in `fresh`.

    Raises:
        ValueError: naming the keys that are unknown, missing or of another shape.
    """
    places = saveable(model)
    absent = tuple(
        part
        for part in ("encoder.", "video.encoder.", "audio.encoder.")
        if (part == "encoder." and not with_encoder) or not any(name.startswith(part) for name in places)
    )
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith(absent)}
    unknown = sorted(set(given) - set(places))
    needed = [name for name in places if name.startswith(ALWAYS_SAVED) and not name.startswith(fresh)]
    missing = sorted(name for name in needed if name not in given)
    other = [
        f"{name} is {tuple(tensor.shape)}, wanted {tuple(places[name].shape)}"
        for name, tensor in given.items()
        if name in places and places[name].shape != tensor.shape
    ]
    if unknown or missing or other:
        raise ValueError(
            f"The weights of {source} do not fit this model: unknown {unknown[:4]}, missing {missing[:4]}, "
            f"misshapen {other[:4]} ({len(unknown)}, {len(missing)} and {len(other)} in all). "
            f"Start from a run with the same model."
        )
    with torch.no_grad():
        for name, tensor in given.items():
            places[name].copy_(tensor)
    return frozenset(given)


ALWAYS_SAVED = (
    "connector.",
    "arrange.",
    *(f"{branch}.{part}." for branch in ("video", "audio") for part in ("connector", "arrange")),
)
"""Parts that have no pretrained weights to come back from, so every run saves them."""


def saveable(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by dotted name; a tied weight has its first name alone."""
    kept = set(model.state_dict(keep_vars=True))
    found: dict[str, Tensor] = dict(model.named_parameters())
    found.update((name, buffer) for name, buffer in model.named_buffers() if name in kept)
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSON-lines file; an absent file has none."""
    if not path.is_file():
        return []
    text = path.read_bytes()
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(data).__name__}.")
    return data
