"""Spoken digits and sounds of the surroundings as spectrograms in memory, and batches of them, altered each time.

A spectrogram is made once; what a recording would have been in another voice, place or tempo is drawn on it: warped
frequencies (vocal tract length perturbation, Jaitly and Hinton 2013), stretched time, another loudness and tone, noise
or another sound behind it, and masks as in SpecAugment (arXiv:1904.08779).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import ASTFeatureExtractor

from isthmus.data.sound import FileSound

RATE, BINS, FRAMES, HEARD = 16_000, 32, 104, 102
"""Samples a second; mel bins; spectrogram frames (10 ms each) that the ear takes, and those that sound can fill."""
MEAN, SPREAD = -6.0, 2.5
HELD_OUT = ("theo", "yweweler")
"""Speakers that the bundled ear never hears: the last two by name."""
SOUNDS = (
    "dog bark", "rain", "sea waves", "baby cry", "clock tick", "person sneeze", "helicopter", "chainsaw", "rooster",
    "fire crackling",
)  # fmt: skip


def extractor(frames: int = FRAMES) -> ASTFeatureExtractor:
    """The ear's own feature extractor, or one that takes more frames."""
    return ASTFeatureExtractor(
        num_mel_bins=BINS, max_length=frames, sampling_rate=RATE, mean=MEAN, std=SPREAD, return_attention_mask=False
    )


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """Log-mel spectrograms, zero after each one's end, with a label and a group (speaker or fold) each."""

    bins: Float[Tensor, "sounds frames bins"]
    lengths: Int[Tensor, "sounds"]
    labels: Int[Tensor, "sounds"]
    groups: tuple[str, ...]

    def of(self, keep: Bool[Tensor, "sounds"]) -> Recordings:
        """Some of them."""
        groups = tuple(group for group, kept in zip(self.groups, keep.tolist(), strict=True) if kept)
        return Recordings(bins=self.bins[keep], lengths=self.lengths[keep], labels=self.labels[keep], groups=groups)

    def among(self, groups: tuple[str, ...]) -> Bool[Tensor, "sounds"]:
        """Which of them belong to one of these groups."""
        return torch.tensor([group in groups for group in self.groups])


def read(folder: Path, longest_s: float) -> Recordings:
    """Both files of `audio_digits` or `audio_esc10`: digits with their speakers, sounds with their folds."""
    rows = [
        json.loads(line) for name in ("train", "val") for line in (folder / f"{name}.jsonl").read_text().splitlines()
    ]
    frames = round(longest_s * 100)
    hear = extractor(frames)
    bins = torch.zeros(len(rows), frames, BINS)
    lengths = torch.zeros(len(rows), dtype=torch.long)
    for place, row in enumerate(rows):
        samples = FileSound(root=str(folder), path=row["audio"], rate=RATE).load().samples
        made = hear(samples, sampling_rate=RATE, return_tensors="pt").input_values[0]
        lengths[place] = min(frames, 1 + (len(samples) - 400) // 160)
        bins[place] = made * 2 * SPREAD + MEAN
    labels = [row["digit"] if "digit" in row else SOUNDS.index(row["label"]) for row in rows]
    groups = tuple(str(row.get("speaker", row.get("fold"))) for row in rows)
    return Recordings(bins=bins, lengths=lengths, labels=torch.tensor(labels), groups=groups)


def normalised(bins: Float[Tensor, "*sounds frames bins"]) -> Float[Tensor, "*sounds frames bins"]:
    """What the feature extractor does last."""
    return (bins - MEAN) / (2 * SPREAD)


def heard_plainly(sounds: Recordings) -> Float[Tensor, "windows frames bins"]:
    """Each recording's first window as the ear's extractor gives it."""
    bins = sounds.bins[:, :FRAMES].clone()
    bins[:, HEARD:] = 0.0
    return normalised(F.pad(bins, (0, 0, 0, FRAMES - bins.shape[1])))


def draw(
    sounds: Recordings, chosen: Int[Tensor, "batch"], noise: Recordings, *, warp: float, strength: float
) -> tuple[Float[Tensor, "batch frames bins"], Float[Tensor, "batch frames"]]:
    """These recordings, each altered anew, the more the larger `strength` (0 to 1); `noise` may sound behind them.

    Also, for every frame, which part of its recording it shows, from 0 to 1, and -1 where it shows none.
    """
    count = len(chosen)
    lengths = sounds.lengths[chosen].float()
    rate = torch.exp(strength * _between(count, -0.3, 0.3))
    lasts = lengths / rate
    room = (HEARD - lasts).clamp(min=0)
    alone = torch.rand(count) < 1 - 0.5 * strength
    offset = torch.where(alone, 0.0, torch.rand(count) * room)
    into = torch.rand(count) * (lengths - HEARD * rate).clamp(min=0)  # a longer sound may begin anywhere in it
    times = (torch.arange(FRAMES)[None] - offset[:, None]) * rate[:, None] + into[:, None]
    sounding = (times >= 0) & (times <= lengths[:, None] - 1)
    made = _sampled(sounds.bins[chosen], times, torch.exp(strength * _between(count, -warp, warp)))
    made = made + strength * (_between(count, -4.0, 4.0)[:, None, None] + _tone(count))
    level = made.masked_fill(~sounding[:, :, None], -16.0).flatten(1).topk(200, dim=1).values.mean(1)
    behind = _behind(count, noise, level - _between(count, 1.5, 8.0))
    silent = (torch.rand(count) < 1 - 0.7 * strength) & alone
    made = torch.where(sounding[:, :, None], made, torch.full((), -16.0))
    made = torch.where(silent[:, None, None], made, torch.logaddexp(made, behind))
    ends = torch.where(alone, lasts, offset + lasts + torch.rand(count) * 1.2 * (HEARD - offset - lasts))
    over = torch.arange(FRAMES)[None] >= ends.clamp(max=HEARD)[:, None]
    altered = normalised(made.clamp(min=-15.95).masked_fill(over[:, :, None], 0.0))
    shown = (times / lengths[:, None]).masked_fill(~sounding, -1.0)
    return (_masked(altered) if torch.rand(()) < strength else altered), shown


def choose_patches(bins: Float[Tensor, "windows frames bins"], *, side: int, step: int, rows: int, kept: int) -> Tensor:
    """[windows, kept]: numbers of patches to keep, at random, those that lie wholly in the padding last."""
    sounding = (bins != normalised(torch.zeros(())))[:, :, 0].float()
    columns = F.max_pool1d(sounding[:, None], side, step)[:, 0]
    score = torch.rand(len(bins), rows, columns.shape[1]) + columns[:, None]
    return score.flatten(1).topk(kept, dim=1).indices


def _between(count: int, low: float, high: float) -> Float[Tensor, "count"]:
    return low + (high - low) * torch.rand(count)


def _sampled(bins: Tensor, times: Tensor, warp: Tensor) -> Float[Tensor, "batch frames bins"]:
    """Values at these times, every frequency multiplied by `warp`, between neighbours by straight lines."""
    top = 1127 * torch.log(torch.tensor(1 + RATE / 2 / 700))
    mel = (torch.arange(BINS) + 1.0) / (BINS + 1) * top
    hertz = 700 * (torch.exp(mel / 1127) - 1)
    asked = 1127 * torch.log1p(hertz[None] * warp[:, None] / 700) / top * (BINS + 1) - 1
    place = torch.stack(
        [
            (asked * 2 / (BINS - 1) - 1)[:, None, :].expand(-1, times.shape[1], -1),
            (times * 2 / (bins.shape[1] - 1) - 1)[:, :, None].expand(-1, -1, BINS),
        ],
        dim=3,
    )
    return F.grid_sample(bins[:, None], place, align_corners=True, padding_mode="border")[:, 0]


def _tone(count: int) -> Float[Tensor, "count 1 bins"]:
    """Smooth curves over frequency, as other microphones and rooms have them."""
    waves = torch.cos(torch.arange(4)[:, None] * torch.pi * torch.arange(BINS)[None] / BINS)
    return (torch.randn(count, 4) * torch.tensor([0.0, 0.8, 0.6, 0.4]) @ waves)[:, None]


def _behind(count: int, noise: Recordings, level: Tensor) -> Float[Tensor, "count frames bins"]:
    """Rough noise of a random tone at this level, or a stretch of another sound."""
    hiss = torch.log(-torch.log(torch.rand(count, FRAMES, BINS).clamp(1e-6, 1 - 1e-6))) * 0.6
    hiss = hiss + _tone(count) * 2 + level[:, None, None]
    chosen = torch.randint(len(noise.labels), (count,))
    starts = (torch.rand(count) * (noise.lengths[chosen] - FRAMES)).long()
    places = starts[:, None] + torch.arange(FRAMES)[None]
    other = noise.bins[chosen[:, None], places]
    other = other - other.flatten(1).topk(200, dim=1).values.mean(1)[:, None, None] + level[:, None, None]
    return torch.where((torch.rand(count) < 0.35)[:, None, None], other, hiss)


def _masked(bins: Float[Tensor, "batch frames bins"]) -> Float[Tensor, "batch frames bins"]:
    """A band of frequencies and a stretch of time left out of each."""
    count = len(bins)
    for size, length, axis in ((BINS // 5, BINS, 2), (14, 60, 1)):
        width = torch.rand(count) * size
        start = torch.rand(count) * (length - width)
        place = torch.arange(bins.shape[axis])[None]
        hidden = (place >= start[:, None]) & (place < (start + width)[:, None])
        bins = bins.masked_fill(hidden[:, None, :] if axis == 2 else hidden[:, :, None], 0.0)
    return bins
