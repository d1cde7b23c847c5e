"""A frozen language model's training step through fused attention and through plain products, by length of the rows.

python -m benchmarks.short_text             # two minutes of one core
python -m benchmarks.short_text --width 1024   # two layers of another width, with random weights
python -m benchmarks.short_text --tiny      # a check that it runs

The bundled speaker reads rows of one length and predicts every token, forward and backward to the embeddings, 2,048
tokens a step, in both number formats. Losses of both ways are compared first. Ways take turns; a ratio is that of their
medians over rounds, in one run. This is what `isthmus.llms.causal.SHORT` was chosen by.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from isthmus.llms import CausalLM
from isthmus.llms.additions import find_layers
from isthmus.llms.base import read_config
from isthmus.llms.causal import CausalLanguageModel
from isthmus.weights import read_tokenizer, resolve_model

LENGTHS = (32, 64, 128, 256, 512, 1024)
WAYS = ("sdpa", "eager")


def wider(width: int) -> CausalLanguageModel:
    """Two layers like the speaker's of another width, 64 a head, with random weights and its tokenizer."""
    config = copy(read_config(resolve_model("bundled/speaker")))
    for name, value in (("hidden_size", width), ("intermediate_size", width * 11 // 4), ("num_hidden_layers", 2)):
        setattr(config, name, value)
    config.num_attention_heads = config.num_key_value_heads = width // 64
    model = LlamaForCausalLM(config).eval()
    return CausalLanguageModel(model, read_tokenizer("bundled/speaker"), find_layers(model, 2), max(LENGTHS))


def step(model: CausalLanguageModel, ids: Tensor, way: str, low: bool) -> tuple[float, Tensor]:
    """Seconds of one step, and its mean loss."""
    model.model.set_attn_implementation(way)  # type: ignore[operator]
    embeddings = model.embed(ids).detach().requires_grad_()
    began = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        loss = model(embeddings, torch.ones_like(ids, dtype=torch.bool), ids).losses.mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - began, loss.detach()


def main(args: Sequence[str] | None = None) -> None:
    """Print milliseconds of both ways and their ratio, by number format and length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args(args)
    tokens, rounds = (128, 1) if asked.tiny else (2_048, asked.rounds)
    model = wider(asked.width) if asked.width else CausalLM(name="bundled/speaker").build()
    assert isinstance(model, CausalLanguageModel)
    model.recomputes = True  # the model's own choice between the ways stands aside
    print("format    positions  fused ms  plain ms  fused / plain")
    for low in (False, True):
        for length in LENGTHS[: 2 if asked.tiny else None]:
            ids = torch.randint(
                4, 8_000, (max(1, tokens // length), length), generator=torch.Generator().manual_seed(0)
            )
            losses = [step(model, ids, way, low)[1] for way in WAYS]
            torch.testing.assert_close(*losses, atol=0.02 if low else 1e-4, rtol=0.0)
            seconds: dict[str, list[float]] = {way: [] for way in WAYS}
            for number in range(rounds):
                for way in WAYS if number % 2 else WAYS[::-1]:
                    seconds[way].append(step(model, ids, way, low)[0])
            fused, plain = (1e3 * statistics.median(seconds[way]) for way in WAYS)
            print(f"{'bf16' if low else 'float32':9} {length:9} {fused:9.1f} {plain:9.1f} {fused / plain:14.2f}")


if __name__ == "__main__":
    main()
