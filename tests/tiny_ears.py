"""Tiny random audio towers of every family, saved as folders in the transformers format."""

from pathlib import Path
from typing import Any

import torch
import transformers

from isthmus.weights import quiet_transformers

AST = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_length": 40,
    "num_mel_bins": 16,
    "patch_size": 8,
    "frequency_stride": 8,
    "time_stride": 8,
}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "num_mel_bins": 16,
    "max_source_positions": 50,
    "vocab_size": 50,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
CLAP = {
    "spec_size": 64,
    "num_mel_bins": 16,
    "window_size": 2,
    "hidden_size": 32,
    "patch_embeds_hidden_size": 16,
    "depths": [1, 1],
    "num_attention_heads": [2, 2],
    "patch_size": 4,
    "patch_stride": [4, 4],
}
CLAP_HEARS: dict[str, Any] = {
    "feature_size": 16,
    "truncation": "rand_trunc",
    "max_length_s": 1,
    "fft_window_size": 256,
    "hop_length": 500,
}

EARS: dict[str, tuple[str, dict[str, Any], str, str, dict[str, Any], int]] = {
    "ast": ("ASTConfig", AST, "ASTModel", "ASTFeatureExtractor", {"num_mel_bins": 16, "max_length": 40}, 16_000),
    "whisper": (
        "WhisperConfig",
        WHISPER,
        "WhisperModel",
        "WhisperFeatureExtractor",
        {"feature_size": 16, "chunk_length": 1},
        16_000,
    ),
    "clap": ("ClapAudioConfig", CLAP, "ClapAudioModel", "ClapFeatureExtractor", CLAP_HEARS, 48_000),
}
"""Family -> config class and sizes, model class, extractor class and settings, samples a second."""


def save_ear(family: str, folder: Path) -> torch.nn.Module:
    """Writes a tiny model and its feature extractor, and returns the model."""
    config, sizes, model, extractor, settings, _ = EARS[family]
    torch.manual_seed(0)
    with quiet_transformers():
        tower: torch.nn.Module = getattr(transformers, model)(getattr(transformers, config)(**sizes)).eval()
        for weight in tower.parameters():
            torch.nn.init.normal_(weight, std=0.1)
        tower.save_pretrained(folder)  # type: ignore[operator]
        getattr(transformers, extractor)(**settings).save_pretrained(folder)
    return tower
