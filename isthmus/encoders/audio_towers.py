"""The audio towers of `transformers` that can be used, and what differs between them: one function a family."""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.encoders.towers import read_any
from isthmus.weights import quiet_transformers

Run = Callable[[nn.Module, Float[Tensor, "windows channels height width"]], Float[Tensor, "windows f t width"]]


@dataclass(frozen=True, kw_only=True)
class AudioFamily:
    """The class of a family, the part of it that hears, and how spectrograms become a map of frequency by time."""

    model: str
    part: str
    run: Run


def _run_ast(tower: nn.Module, bins: Tensor) -> Tensor:
    """Two class tokens are dropped; patches lie by frequency, then time."""
    config: Any = tower.config
    rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    hidden = tower(bins[:, 0]).last_hidden_state[:, 2:]
    made: Tensor = rearrange(hidden, "windows (f t) c -> windows f t c", f=rows)
    return made


def _run_whisper(tower: nn.Module, bins: Tensor) -> Tensor:
    """A line of tokens in time."""
    made: Tensor = rearrange(tower(bins[:, 0]).last_hidden_state, "windows t c -> windows 1 t c")
    return made


def _run_clap(tower: nn.Module, bins: Tensor) -> Tensor:
    """The map before CLAP's pooling; fusion of longer sounds is not used, a window being short."""
    longer = torch.zeros(len(bins), 1, dtype=torch.bool, device=bins.device)
    hidden = tower(bins, is_longer=longer).last_hidden_state
    made: Tensor = rearrange(hidden, "windows c f t -> windows f t c")
    return made


FAMILIES: dict[str, AudioFamily] = {
    "audio-spectrogram-transformer": AudioFamily(model="ASTModel", part="", run=_run_ast),
    "whisper": AudioFamily(model="WhisperModel", part="encoder", run=_run_whisper),
    "clap_audio_model": AudioFamily(model="ClapAudioModel", part="", run=_run_clap),
}


def read_audio_config(source: str) -> Any:
    """The audio part of a model's config, from its config.json alone.

    Raises:
        ValueError: no readable config, or a model that is no audio tower known here.
    """
    whole = read_any(source)
    config = copy.deepcopy(getattr(whole, "audio_config", whole))
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"{source!r} is a {config.model_type!r} model, not an audio tower that can be used here: "
            f"{', '.join(FAMILIES)}. Of a whole CLAP or Whisper model the audio encoder is used."
        )
    if getattr(config, "enable_fusion", False):
        raise ValueError(
            f"{source!r} fuses several crops of a sound (enable_fusion); windows are heard one by one here. Use a CLAP "
            f"without fusion, such as laion/clap-htsat-unfused."
        )
    return config


def audio_family(config: Any) -> AudioFamily:
    """The family of a config that `read_audio_config` returned."""
    return FAMILIES[config.model_type]


@functools.lru_cache(maxsize=16)
def read_extractor(source: str) -> Any:
    """The feature extractor of a model folder or hub id.

    Raises:
        ValueError: the model comes without one, so how its spectrograms are made is unknown.
    """
    try:
        with quiet_transformers():
            return transformers.AutoFeatureExtractor.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"The model {source!r} comes without a feature extractor that can be read, so how its spectrograms are "
            f"made is unknown: {str(error).splitlines()[0]} Put its preprocessor_config.json beside its config.json."
        ) from error


def heard_s(extractor: Any) -> float:
    """The longest window that an extractor keeps whole, in seconds."""
    if hasattr(extractor, "max_length"):  # AST: spectrogram frames of 10 ms
        return float(extractor.max_length) / 100
    samples = getattr(extractor, "n_samples", None) or extractor.nb_max_samples
    return float(samples) / float(extractor.sampling_rate)


def make_audio_tower(config: Any, source: str | None) -> nn.Module:
    """The encoder of this config, with the weights in `source`, else freshly made.

    Raises:
        ValueError: the weights lack a part of it.
    """
    family = audio_family(config)
    made = getattr(transformers, family.model)
    if source is None:
        whole: nn.Module = made._from_config(config, dtype=torch.float32)
    else:
        with quiet_transformers():
            whole, info = made.from_pretrained(
                source, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
        if info["missing_keys"] or info["mismatched_keys"]:
            raise ValueError(
                f"The weights in {source!r} are not those of its config: missing {sorted(info['missing_keys'])[:5]}. "
                f"Download or save the model again."
            )
    return (getattr(whole, family.part) if family.part else whole).eval()
