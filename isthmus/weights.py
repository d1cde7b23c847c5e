"""Names of models, and safe strict loading: safetensors, or torch's weights-only loader; never pickled code.

A model's name is `bundled/NAME` (a backbone inside the package), a local folder in the `transformers` format, or a
hub id. Remote code is never run.
"""

import contextlib
import functools
import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from isthmus.config import did_you_mean

BUNDLED = Path(__file__).parent / "bundled"
"""The folder inside the package that holds the small backbones."""

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
"""How files of torch's own format end; they go through its weights-only loader."""
_HASHED_SUFFIXES = frozenset({".json", ".safetensors", ".bin", ".pt", ".pth", ".txt", ".model"})


def resolve_model(name: str) -> str:
    """The folder of a bundled or local model as an absolute path, or the hub id unchanged.

    Raises:
        ValueError: an unknown bundled name (with the nearest known one), or a path that is no model folder.
    """
    if name.startswith("bundled/"):
        known = sorted(f"bundled/{folder.parent.name}" for folder in BUNDLED.glob("*/config.json"))
        if name not in known:
            raise ValueError(f"No bundled model {name!r}.{did_you_mean(name, known)} Bundled: {', '.join(known)}.")
        return str(BUNDLED / name.removeprefix("bundled/"))
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"The folder {name!r} holds no config.json: give a folder in the transformers format.")
        return str(folder.resolve())
    if name.startswith(("/", "./", "../", "~")) or name.count("/") > 1 or not name:
        raise ValueError(f"No model folder {name!r}. Give an existing folder, a hub id (owner/name) or bundled/NAME.")
    return name


def read_tokenizer(name: str | Path, *, padding_side: Literal["left", "right"] | None = None) -> Any:
    """The fast tokenizer of a bundled model, a local folder or a hub id; a `Path` is a folder of a tokenizer alone.

    `padding_side` is kept when it is saved; `None` is its own.

    Raises:
        ValueError: there is none, it is in no format that `transformers` reads, or the hub cannot be reached.
    """
    from transformers import AutoTokenizer

    source = str(name) if isinstance(name, Path) else resolve_model(name)
    try:
        side = {} if padding_side is None else {"padding_side": padding_side}
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **side)
    except (OSError, ValueError, KeyError, ImportError) as error:
        came = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if Path(source).is_dir():
            way = "Save it into that folder: AutoTokenizer.from_pretrained(...).save_pretrained(folder)."
        else:
            way = (
                f"It is a hub id, neither in this machine's cache nor to be had: go online (without HF_HUB_OFFLINE), "
                f"or name a local folder that holds the model in place of {str(name)!r}, as --model.llm.name FOLDER."
            )
        raise ValueError(f"The tokenizer of {str(name)!r} is needed, but it cannot be read: {came} {way}") from error


def load_safetensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file, on the CPU.

    Raises:
        ValueError: the file is missing, or is not in the safetensors format.
    """
    if not Path(path).is_file():
        raise ValueError(f"No weights file {str(path)!r}.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{str(path)!r} is not a whole safetensors file ({error}). Save or download it again."
        ) from error


def names_in(path: str | Path) -> tuple[str, ...]:
    """The names of the tensors of one safetensors file, without reading them.

    Raises:
        ValueError: the file is missing, or is not in the safetensors format.
    """
    if not Path(path).is_file():
        raise ValueError(f"No weights file {str(path)!r}.")
    try:
        with safe_open(path, framework="pt") as file:
            return tuple(file.keys())
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is not a whole safetensors file ({error}). Save it again.") from error


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a weights file, or from a folder of them (all its `*.safetensors`, sharded or not).

    Other files (a folder's `*.bin`, else its `*.pt`, `*.pth`, `*.ckpt`) go through torch's weights-only loader, which
    runs no pickled code.

    Raises:
        ValueError: nothing to read, a broken file, or a file that holds more than named tensors.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if path.suffix == ".safetensors" or not path.is_file():
        return load_safetensors(path)
    if path.suffix.lower() not in PICKLED:
        raise ValueError(
            f"{str(path)!r} is no weights file: files that end in .safetensors, {', '.join(PICKLED)} are read. Name "
            f"the one that the weights were published in."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{str(path)!r} cannot be read without running code from it: {error}") from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]  # LAVIS puts the optimizer and the epoch beside it
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{str(path)!r} must hold a plain dictionary of tensors, but it holds {type(state).__name__}.")
    return state


def _read_folder(path: Path) -> dict[str, Tensor]:
    """The tensors of all weights files of one format: of safetensors if there are any."""
    for ending in (".safetensors", *PICKLED):
        files = sorted(one for one in path.glob(f"*{ending}") if one.name != "training_args.bin")
        if files:
            break
    else:
        held = ", ".join(sorted(one.name for one in path.iterdir())[:5])
        raise ValueError(
            f"The folder {str(path)!r} holds no weights: *.safetensors or *.bin are wanted, it has "
            f"{held if held else 'no file at all'}. Name the folder or file that the weights were downloaded to."
        )
    found: dict[str, Tensor] = {}
    for file in files:
        for key, value in read_state(file).items():
            if key in found and not torch.equal(found[key], value):
                raise ValueError(f"{file} holds another {key!r} than a file before it in {str(path)!r}: name one file.")
            found[key] = value
    return found


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copies `state` into `module` when names and shapes are exactly the module's own.

    Raises:
        ValueError: names every missing, unknown and misshapen key (the first ten of each); the module is unchanged.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [f"{key}{did_you_mean(key, missing)}" for key in state if key not in own]
    shapes = [
        f"{key} is {tuple(value.shape)}, wanted {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    problems = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    said = [
        f"{len(keys)} {kind}: {'; '.join(keys[:10])}{'; ...' if len(keys) > 10 else ''}"
        for kind, keys in problems.items()
        if keys
    ]
    if said:
        raise ValueError(
            f"The weights of {source} do not fit {type(module).__name__}. " + " | ".join(said) + ". "
            "Build it with the config it was saved with."
        )
    module.load_state_dict(dict(state))


def folder_hash(path: str | Path) -> str:
    """Sixteen hexadecimal digits of a model folder's own files (configs, weights, tokenizer; no card, no subfolders).

    Computed once for each state of the folder: the result is kept per file name, time and size. A folder written less
    than two seconds ago is read again each time, as file times are too coarse to tell two such states apart.
    """
    files = sorted(file for file in Path(path).glob("*") if file.is_file() and file.suffix in _HASHED_SUFFIXES)
    if not files:
        raise ValueError(f"The folder {str(path)!r} holds no model to hash.")
    stats = [(file, file.stat()) for file in files]
    state = tuple((str(file), stat.st_mtime_ns, stat.st_size) for file, stat in stats)
    fresh = max(stat.st_mtime for _, stat in stats) > time.time() - 2.0
    return (_hash_files if fresh else _hash_files_once)(str(path), state)


def _hash_files(root: str, files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, _, size in files:
        digest.update(f"{Path(name).relative_to(root).as_posix()}\n{size}\n".encode())
        with open(name, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


_hash_files_once = functools.lru_cache(maxsize=64)(_hash_files)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps `transformers` from printing its load report and progress bar; errors still raise."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
