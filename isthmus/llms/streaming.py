"""One answer token by token, from a key-value cache that stays: what was read once is not read again.

Positions are compared by what stands there, so a longer conversation goes on where the shorter one ended, and a changed
one from the first change. Checked against: `generate` without a cache (tests/llms).
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from isthmus.llms.base import Generation
from isthmus.llms.causal import CausalLanguageModel


class ReadSoFar:
    """The positions that a causal language model has read, and their keys and values."""

    def __init__(self, llm: CausalLanguageModel) -> None:
        self.llm = llm
        self.positions: list[Hashable] = []
        self.cache: Any = self._fresh()

    def forget(self) -> None:
        """Start anew."""
        self.positions, self.cache = [], self._fresh()

    def keep_common(self, wanted: Sequence[Hashable]) -> int:
        """Forget all behind the first position that differs from `wanted`; how many of them are known then.

        The last wanted position is never known: its output is what comes next.
        """
        known = 0
        for mine, theirs in zip(self.positions, wanted[:-1], strict=False):
            if mine != theirs:
                break
            known += 1
        surplus = len(self.positions) - known
        if surplus:
            try:
                self.cache.crop(-surplus)
                del self.positions[known:]
            except (RuntimeError, ValueError):  # a window that has slid, or a state that only goes forwards
                self.forget()
                known = 0
        return known

    def read(
        self, embeddings: Float[Tensor, "1 length width"], positions: Sequence[Hashable]
    ) -> Float[Tensor, "1 vocabulary"]:
        """Read further positions; the logits after the last one."""
        assert embeddings.shape[1] == len(positions)
        last = torch.tensor([len(positions) - 1], device=embeddings.device)
        inputs = {"inputs_embeds": embeddings, "past_key_values": self.cache}
        logits = self.llm._logits_at(last, inputs, use_cache=True)
        self.positions += positions
        return logits.float()

    def _fresh(self) -> Any:
        config: Any = self.llm.model.config
        return DynamicCache(config=config.get_text_config())


@torch.no_grad()
def stream(
    read: ReadSoFar,
    embeddings: Float[Tensor, "1 length width"],
    ids: Int[Tensor, "1 length"],
    positions: Sequence[Hashable],
    options: Generation,
    stop_ids: tuple[int, ...] = (),
    *,
    seed: int = 0,
) -> Iterator[int]:
    """New token ids one by one, ended before the first stop token; `positions` says what stands at each position.

    Greedy, or drawn by `seed`, the options as `generate` understands them.

    Raises:
        ValueError: options with a beam search, which has no first token before its last one.
    """
    if options.num_beams > 1:
        raise ValueError(f"An answer that is written token by token has one beam, got num_beams={options.num_beams}.")
    llm, choose = read.llm, _chooser(options)
    draw = torch.Generator(device=embeddings.device).manual_seed(seed)
    known = read.keep_common(positions)
    logits = read.read(embeddings[:, known:], positions[known:])
    ends = {*llm.ends, *stop_ids}
    for number in range(options.max_new_tokens):
        scores = choose(ids, logits)
        chosen = scores.argmax(dim=-1)
        if options.do_sample:
            chosen = torch.multinomial(scores.softmax(dim=-1), 1, generator=draw)[:, 0]
        token = int(chosen)
        if token in ends:
            return
        yield token
        if number + 1 < options.max_new_tokens:
            ids = torch.cat([ids, chosen.unsqueeze(1)], dim=1)
            logits = read.read(llm.embed(chosen.unsqueeze(1)), [token])


def _chooser(options: Generation) -> LogitsProcessorList:
    made = LogitsProcessorList()
    if options.repetition_penalty != 1.0:
        made.append(RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.do_sample and options.temperature != 1.0:
        made.append(TemperatureLogitsWarper(options.temperature))
    if options.do_sample and options.top_p < 1.0:
        made.append(TopPLogitsWarper(options.top_p))
    return made
