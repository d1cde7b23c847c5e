"""Time to the first token, measured on this machine: image to pixels to features to visual tokens to one new token."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from isthmus.data.sample import Sample
from isthmus.llms import Generation
from isthmus.model import VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Median milliseconds over `repeats` runs; `spread_ms` is the lowest and the highest."""

    first_token_ms: float
    encoder_ms: float
    """Loading the inputs and encoding them."""
    spread_ms: tuple[float, float]
    repeats: int
    device: str
    threads: int


def time_to_first_token(model: VisionLanguageModel, sample: Sample, *, repeats: int = 5) -> Latency:
    """From the image reference to the first new token of one sample, alone in its batch; one run before is not counted.

    A figure for this machine and this size of model: for another it says nothing about which connector is faster.

    Raises:
        ValueError: no repeats, or a model without its encoder.
    """
    if repeats < 1:
        raise ValueError(f"Latency needs repeats of 1 or more, got {repeats}.")
    if model.encoder is None and sample.images:
        raise ValueError("Latency includes the encoder: load the model with with_encoder=True.")
    options = Generation(max_new_tokens=1)
    device = next(model.parameters()).device
    encode = _timer(device, lambda: _encode(model, sample))
    answer = _timer(device, lambda: model.answer([sample], options))
    encode()
    answer()
    encoder, whole = [encode() for _ in range(repeats)], [answer() for _ in range(repeats)]
    return Latency(
        first_token_ms=statistics.median(whole),
        encoder_ms=statistics.median(encoder),
        spread_ms=(min(whole), max(whole)),
        repeats=repeats,
        device=str(device),
        threads=torch.get_num_threads(),
    )


@torch.no_grad()
def _encode(model: VisionLanguageModel, sample: Sample) -> None:
    device = next(model.parameters()).device
    encoders = {"image": model.encoder, **{name: parts.encoder for name, parts in model.branches.items()}}
    for name, views in model.look([sample]).views.items():
        encoder = encoders[name]
        if views.pixels is not None and encoder is not None:
            encoder(views.pixels.to(device))


def _timer(device: torch.device, run: Callable[[], object]) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) * 1000

    return timed
