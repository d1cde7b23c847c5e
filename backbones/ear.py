"""Train the ear: a small audio spectrogram transformer, on spoken digits and on sounds of the surroundings.

The shape is AST's (arXiv:2104.01778) in small; half of the patches are left out in most of the training, as in PaSST
(arXiv:2110.05069). Linear heads name the digit and the sound from the mean of the patches, and, from every single
patch, the digit and which third of it is heard, or the sound; they are thrown away. One command:
`python -m backbones.ear --data DATA --out FOLDER --minutes 12`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import ASTConfig, ASTModel

from backbones.budget import Budget, Log, Means
from backbones.ear_sounds import (
    BINS,
    FRAMES,
    HELD_OUT,
    SOUNDS,
    Recordings,
    choose_patches,
    draw,
    extractor,
    heard_plainly,
    read,
)
from backbones.linear_probe import probe
from backbones.optimise import Both
from backbones.saving import save_bf16

WIDTH, DEPTH, HEADS = 128, 4, 4
PATCH, RISE, STEP = 16, 8, 8
"""Side of a patch, and from one to the next in mel bins and in frames."""
ROWS, COLUMNS = (BINS - PATCH) // RISE + 1, (FRAMES - PATCH) // STEP + 1


def new_tower() -> ASTModel:
    """An untrained ear."""
    config = ASTConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
        patch_size=PATCH, frequency_stride=RISE, time_stride=STEP, max_length=FRAMES, num_mel_bins=BINS,
        attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0,
    )  # fmt: skip
    tower = ASTModel._from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        tower.embeddings.position_embeddings[0, 2:] = 0.5 * _waves()
    return tower


def _waves() -> Float[Tensor, "patches width"]:
    """Sines and cosines of frequency and time."""
    rates = 10_000.0 ** (-torch.arange(WIDTH // 4) / (WIDTH // 4)) * 2
    rows, columns = (torch.arange(count)[:, None] * rates[None] for count in (ROWS, COLUMNS))
    rise = torch.cat([rows.sin(), rows.cos()], dim=1)[:, None].expand(-1, COLUMNS, -1)
    time = torch.cat([columns.sin(), columns.cos()], dim=1)[None].expand(ROWS, -1, -1)
    return torch.cat([rise, time], dim=2).flatten(0, 1)


@torch.no_grad()
def start_patches(tower: ASTModel, bins: Float[Tensor, "windows frames bins"]) -> None:
    """Let the patch embedding begin as the principal components of patches of sound, each brought to like size."""
    columns = bins.transpose(1, 2)[:, None]
    flat = F.unfold(columns, PATCH, stride=PATCH // 2).transpose(1, 2).flatten(0, 1)
    flat = flat[flat.std(1) > 1e-3]
    mean = flat.mean(0)
    flat = flat - mean
    values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    first = vectors.flip(1)[:, :WIDTH] / (values.flip(0)[:WIDTH] + 1e-2).sqrt()
    patches = tower.embeddings.patch_embeddings.projection
    patches.weight.copy_(0.5 * first.T.reshape(WIDTH, 1, PATCH, PATCH))
    patches.bias.copy_(-0.5 * mean @ first)


def hear(
    tower: ASTModel, bins: Float[Tensor, "windows frames bins"], kept: Int[Tensor, "windows kept"] | None
) -> Float[Tensor, "windows tokens width"]:
    """Two class tokens and the `kept` patches (all when None) after the last layer; equal to the tower's forward."""
    hidden = tower.embeddings(bins)
    if kept is not None:
        patches = hidden[:, 2:].gather(1, kept[:, :, None].expand(-1, -1, hidden.shape[2]))
        hidden = torch.cat([hidden[:, :2], patches], dim=1)
    for layer in tower.layers:
        hidden = layer(hidden, None)
    normed: Tensor = tower.layernorm(hidden)
    return normed


class Trainer:
    """The tower, two heads to be thrown away, and one step over a batch of digits and sounds."""

    def __init__(self, digits: Recordings, sounds: Recordings, *, rate: float, decay: float) -> None:
        self.digits, self.sounds = digits, sounds
        self.tower = new_tower()
        start_patches(self.tower, heard_plainly(digits.of(torch.arange(len(digits.labels)) % 2 == 0)))
        sizes = {"digit_head": 10, "sound_head": len(SOUNDS), "part_head": 30 + len(SOUNDS)}
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in sizes.items()})
        self.optimizer = Both((self.tower, self.heads), matrix_rate=rate, other_rate=rate, decay=decay)
        self.means = Means()

    def step(self, count: tuple[int, int], *, seen: int | None, factor: float, warp: float, strength: float) -> None:
        """One update on fresh alterations of random digits and sounds, `seen` patches of each kept (None: all)."""
        num_digits, num_sounds = count
        which = torch.randint(len(self.digits.labels), (num_digits,))
        heard = torch.randint(len(self.sounds.labels), (num_sounds,))
        said, thirds = draw(self.digits, which, self.sounds, warp=warp, strength=strength)
        noises, places = draw(self.sounds, heard, self.sounds, warp=0.08, strength=strength)
        bins = torch.cat([said, noises])
        parts_of = torch.cat(
            [
                torch.where(
                    thirds < 0, -1, self.digits.labels[which][:, None] * 3 + (thirds * 3).clamp(max=2.9).long()
                ),
                torch.where(places < 0, -1, 30 + self.sounds.labels[heard][:, None]),
            ]
        )
        kept = None if seen is None else choose_patches(bins, side=PATCH, step=STEP, rows=ROWS, kept=seen)
        hidden = hear(self.tower, bins, kept)[:, 2:]
        loss = self._part_loss(hidden, parts_of, kept)
        pooled = hidden.mean(1)
        parts = (
            ("digit", pooled[:num_digits], self.digits.labels[which]),
            ("sound", pooled[num_digits:], self.sounds.labels[heard]),
        )
        for name, part, labels in parts:
            logits = self.heads[f"{name}_head"](F.dropout(part, 0.1))
            loss = loss + F.cross_entropy(logits, labels, label_smoothing=0.1) * len(labels) / len(bins)
            self.means.add(name, float((logits.argmax(1) == labels).float().mean()))
        torch.autograd.backward(loss)
        self.means.add("gradient norm", self.optimizer.step(factor))
        self.means.add("loss", float(loss.detach()))

    def _part_loss(self, hidden: Tensor, parts: Int[Tensor, "windows frames"], kept: Tensor | None) -> Tensor:
        """Every patch names what its middle frame shows; -1 is not asked."""
        middle = parts[:, PATCH // 2 :: STEP][:, :COLUMNS].repeat(1, ROWS)
        asked = middle if kept is None else middle.gather(1, kept)
        there = asked >= 0
        logits, labels = self.heads["part_head"](hidden[there]), asked[there]
        self.means.add("part", float((logits.argmax(1) == labels).float().mean()))
        return F.cross_entropy(logits, labels, label_smoothing=0.05)

    @torch.no_grad()
    def named(self, digits: Recordings) -> float:
        """The share of digits that the head names right, of recordings as they are."""
        pooled = hear(self.tower, heard_plainly(digits), None)[:, 2:].mean(1)
        return float((self.heads["digit_head"](pooled).argmax(1) == digits.labels).float().mean())

    def save(self, out: Path) -> None:
        """The tower as a transformers folder, with its feature extractor."""
        save_bf16(self.tower, out)
        extractor().save_pretrained(str(out))


@torch.no_grad()
def features(tower: ASTModel, sounds: Recordings) -> Float[Tensor, "sounds width"]:
    """The mean over the patches of each recording's first window."""
    parts = torch.split(heard_plainly(sounds), 64)
    return torch.cat([hear(tower, part, None)[:, 2:].mean(1) for part in parts])


def probed(tower: ASTModel, known: Recordings, unknown: Recordings) -> dict[str, float]:
    """Accuracy of a linear probe fitted on `known`, tried on each group of `unknown` and on all of it."""
    train, test = features(tower, known), features(tower, unknown)
    with torch.enable_grad():
        right = probe(train, known.labels, test, 10, decay=1e-2) == unknown.labels
    groups = sorted(set(unknown.groups))
    found = {group: float(right[unknown.among((group,))].float().mean()) for group in groups}
    return {**found, "all": float(right.float().mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with audio_digits and audio_esc10")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--steps", type=int, default=None, help="exact number of steps in place of minutes")
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--batch", type=int, nargs=2, default=(56, 16), help="digits and sounds")
    parser.add_argument("--seen", type=int, default=14, help="patches kept until the last phase")
    parser.add_argument("--warp", type=float, default=0.2, help="largest change of frequencies, as a logarithm")
    parser.add_argument("--without", nargs="+", default=list(HELD_OUT), help="speakers never heard")
    parser.add_argument("--unheard", nargs="*", default=(), help="of the others, those left out to try settings on")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)
    digits, sounds = read(args.data / "audio_digits", 1.5), read(args.data / "audio_esc10", 5.0)
    known = digits.of(~digits.among((*args.without, *args.unheard)))
    tried = digits.of(digits.among(tuple(args.unheard or args.without)))
    trainer = Trainer(known, sounds.of(~sounds.among(("4",))), rate=args.rate, decay=args.decay)
    log = Log(args.out / "rest" / "log.jsonl")
    budget = Budget(minutes=args.minutes, steps=args.steps)
    while not budget.over():
        seen = args.seen if budget.progress() < 0.85 else None
        strength = min(1.0, budget.progress() / 0.4)
        factor = budget.rate(warmup_steps=40)
        trainer.step(tuple(args.batch), seen=seen, factor=factor, warp=args.warp, strength=strength)
        budget.step += 1
        if budget.step % 10 == 0:
            beside = {"unheard": trainer.named(tried)} if budget.step % 50 == 0 else {}
            log.write(step=budget.step, seconds=budget.elapsed(), **trainer.means.take(), **beside)
    trainer.save(args.out)
    log.write(step=budget.step, seconds=budget.elapsed(), **probed(trainer.tower, known, tried))


if __name__ == "__main__":
    main()
