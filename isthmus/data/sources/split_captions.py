"""Another source of captions, each cut in two: the beginning is asked, the rest is the answer.

Source: BLIP-2 (arXiv:2301.12597), section 3.3, prefix language modelling for encoder-decoders. The paper does not say
where a text is cut, and no code for it is public: here before a word drawn by the caption's number.
"""

import hashlib
from dataclasses import dataclass, replace

from isthmus.data.sample import Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig


@dataclass(frozen=True, kw_only=True)
class SplitCaptions(SourceConfig):
    """The samples of `of`, of one answer each, with its beginning in the user's turn. One word alone stays whole."""

    of: SourceConfig
    seed: int = 0

    def build(self) -> Dataset:
        """The source underneath, cut."""
        return _Cut(self, self.of.build())


class _Cut:
    def __init__(self, config: SplitCaptions, captions: Dataset) -> None:
        self._config, self._captions = config, captions

    def __len__(self) -> int:
        return len(self._captions)

    def __getitem__(self, index: int) -> Sample:
        sample = self._captions[index]
        if [turn.role for turn in sample.turns] != ["user", "assistant"]:
            raise ValueError(f"SplitCaptions cuts one answer to one user turn; sample {sample.id!r} has other turns.")
        asked, answered = sample.turns
        words = answered.text.split()
        digest = hashlib.blake2b(f"{self._config.seed}|{index}".encode(), digest_size=8).digest()
        cut = 1 + int.from_bytes(digest, "big") % (len(words) - 1) if len(words) > 1 else 0
        begun, rest = " ".join(words[:cut]), " ".join(words[cut:])
        user = Turn(role="user", text=f"{asked.text}\n{begun}" if begun else asked.text)
        return replace(sample, turns=(user, Turn(role="assistant", text=rest)))
