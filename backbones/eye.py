"""Train the eye: a CLIP vision tower, by contrast of regions with phrases and of pictures with descriptions.

Method: image-text contrast as in CLIP (arXiv:2103.00020), regions against phrases as in RegionCLIP
(arXiv:2112.09106), near-miss captions as in NegCLIP (arXiv:2210.01936), patches left out as in FLIP (arXiv:2212.00794),
here first those that no region covers. One command: `python -m backbones.eye --data DATA --out FOLDER --minutes 38`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionModel, PreTrainedTokenizerFast

from backbones.budget import Budget, Log, Means
from backbones.eye_batch import MEAN, SIDE, STD, EyeBatch, Sources, tokenise
from backbones.eye_model import Heads, TextTower, choose_patches, inner, new_tower, see
from backbones.optimise import Both
from backbones.real import read_figures, read_nlvr
from backbones.saving import save_bf16
from backbones.word_pieces import train_word_pieces
from isthmus.data.sources.world import WorldStyle, describe, make_scene

WEIGHTS = {"shape": 4.0, "colour": 1.0, "size": 1.5, "cell": 1.0, "colour shape": 1.5, "size colour shape": 1.0}
"""How much each pattern counts; every other pattern 0.4, written texts 1 in the later part of the training."""
LATE = {"text": 1.0, "first letter": 0.6, "second letter": 0.6, "third letter": 0.6, "bar value": 0.6, "count": 0.6}
OF_ONE_PATCH = ("shape", "colour", "size", "colour shape", "size colour shape")
"""Patterns that one patch of an item is to tell as well; a patch of a word or of a chart could not."""
TEXT_LIMIT = 56


def region_features(
    hidden: Float[Tensor, "views tokens width"], batch: EyeBatch, kept: Int[Tensor, "views seen"] | None
) -> tuple[Float[Tensor, "regions width"], Float[Tensor, "regions width"], Tensor]:
    """Mean over each region's patches, one patch of it, and whether any was kept."""
    covered = batch.covered if kept is None else batch.covered.gather(1, kept[batch.owner])
    weights = covered.float()
    there = weights.sum(1) > 0
    mean = torch.einsum("rp,rpw->rw", weights / weights.sum(1, keepdim=True).clamp(min=1), hidden[:, 1:][batch.owner])
    one = torch.multinomial(weights + 1e-6 * (~there).float()[:, None], 1)[:, 0]
    return mean, hidden[batch.owner, one + 1], there


def region_loss(
    features: list[Float[Tensor, "regions width"]],
    there: Tensor,
    batch: EyeBatch,
    heads: Heads,
    phrases: Tensor,
    weights: dict[str, float],
    means: Means,
) -> Tensor:
    """Cross-entropy of every region over the phrases of every pattern; `means` gets accuracies by pattern."""
    scale = heads.region_scale.exp().clamp(max=60)
    total, weight = torch.zeros(()), 0.0
    for place, feature in enumerate(features):
        projected = heads.regions(feature)
        for pattern, (asked, answer, among) in batch.choices.items():
            keep = there[asked]
            if place == 1 and pattern not in OF_ONE_PATCH:
                continue
            if not keep.any():
                continue
            logits = scale * projected[asked[keep]] @ phrases[among].T
            target = answer[keep]
            share = weights.get(pattern, 0.4) * (0.5 if place == 1 else 1.0)
            total = total + share * F.cross_entropy(logits, target)
            weight += share
            if place == 0:
                means.add(pattern, float((logits.argmax(1) == target).float().mean()), len(target))
            elif pattern == "shape":
                means.add("shape of one patch", float((logits.argmax(1) == target).float().mean()), len(target))
    return total / weight


def image_loss(images: Tensor, texts: Tensor, near: Tensor, scale: Tensor, means: Means) -> Tensor:
    """CLIP's two-sided loss; near-miss texts are further negatives of the pictures."""
    logits = scale * images @ torch.cat([texts, near]).T
    target = torch.arange(len(images))
    means.add("description", float((logits.argmax(1) == target).float().mean()))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, : len(texts)].T, target)) / 2


class Trainer:
    """The parts that learn, and one step over a batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, rate: float = 3e-3) -> None:
        self.tokenizer = tokenizer
        self.tower, self.text, self.heads = new_tower(), TextTower(len(tokenizer)), Heads()
        self.parts = (self.tower, self.text, self.heads)
        self.optimizer = Both(self.parts, matrix_rate=rate, other_rate=rate, decay=0.05)
        self.means = Means()

    def step(self, batch: EyeBatch, *, seen: int | None, factor: float, describe_too: bool, late: bool) -> None:
        """One update; `seen` patches of each picture, all when None; with the whole descriptions or regions alone."""
        views = len(batch.pixels)
        kept = None if seen is None else choose_patches(batch.covered, batch.owner, views, seen)
        hidden = see(self.tower, batch.pixels, kept)
        mean, one, there = region_features(hidden, batch, kept)
        phrases = self.text(*tokenise(batch.phrases, self.tokenizer, 32))
        weights = WEIGHTS | LATE if late else WEIGHTS
        loss = regions = region_loss([mean, one], there, batch, self.heads, phrases, weights, self.means)
        if describe_too:
            texts = self.text(*tokenise(batch.texts + batch.near, self.tokenizer, TEXT_LIMIT))
            images = self.heads.images(inner(self.tower).post_layernorm(hidden[:, 0]))
            scale = self.heads.image_scale.exp().clamp(max=100)
            whole = image_loss(images, texts[:views], texts[views:], scale, self.means)
            self.means.add("images", float(whole.detach()))
            loss = regions + 0.5 * whole
        torch.autograd.backward(loss)
        norm = self.optimizer.step(factor)
        self.means.add("regions", float(regions.detach()))
        self.means.add("gradient norm", norm)

    def save(self, out: Path) -> None:
        """The tower as a transformers folder; what is thrown away stands beside it in `rest/`."""
        save_bf16(self.tower, out)
        CLIPImageProcessorPil(
            size={"height": SIDE, "width": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            do_center_crop=False,
            image_mean=MEAN.flatten().tolist(),
            image_std=STD.flatten().tolist(),
        ).save_pretrained(str(out))
        rest = out / "rest"
        rest.mkdir(exist_ok=True)
        state = {f"text.{name}": value for name, value in self.text.state_dict().items()}
        state |= {f"heads.{name}": value for name, value in self.heads.state_dict().items()}
        save_file({name: value.contiguous() for name, value in state.items()}, rest / "heads.safetensors")
        self.tokenizer.save_pretrained(str(rest))


def vocabulary_texts(sources: Sources) -> list[str]:
    """What the text tower's word pieces are made from."""
    scenes = (make_scene(seed, "train", WorldStyle(writing=0.5)) for seed in range(6_000))
    texts = [describe(scene, sources.rng, "list") for scene in scenes]
    return texts + [text for figure in sources.figures for text in (figure.description, figure.caption)]


def load_trainer(folder: Path) -> Trainer:
    """A saved eye with its heads, to measure."""
    from safetensors.torch import load_file

    trainer = Trainer(PreTrainedTokenizerFast.from_pretrained(str(folder / "rest")))
    trainer.tower = CLIPVisionModel.from_pretrained(str(folder), dtype=torch.float32)
    state = load_file(folder / "rest" / "heads.safetensors")
    for prefix, part in (("text.", trainer.text), ("heads.", trainer.heads)):
        part.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with textbook_figures and nlvr")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=38.0)
    parser.add_argument("--steps", type=int, default=None, help="exact number of steps in place of minutes")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, nargs=3, default=(40, 5, 3), help="world, textbook and NLVR pictures")
    parser.add_argument("--seen", type=int, default=50, help="patches kept until the last phase")
    parser.add_argument(
        "--whole", type=float, default=0.72, help="share of the training after which all patches are seen"
    )
    parser.add_argument("--late", type=float, default=0.35, help="share after which writings and charts come often")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)
    sources = Sources(read_figures(args.data, "train"), read_nlvr(args.data, "dev"), args.seed)
    trainer = Trainer(train_word_pieces(vocabulary_texts(sources), 3_000), args.rate)
    log = Log(args.out / "rest" / "log.jsonl")
    budget = Budget(minutes=args.minutes, steps=args.steps)
    saved = 0.0
    while not budget.over():
        seen = args.seen if budget.progress() < args.whole else None
        late = budget.progress() >= args.late
        batch = sources.batch(*args.batch, late=late)
        trainer.step(
            batch, seen=seen, factor=budget.rate(warmup_steps=60), describe_too=budget.step % 3 == 0, late=late
        )
        budget.step += 1
        if budget.step % 20 == 0:
            log.write(step=budget.step, seconds=budget.elapsed(), progress=budget.progress(), **trainer.means.take())
        if budget.elapsed() - saved > 240:
            saved = budget.elapsed()
            trainer.save(args.out)
    trainer.save(args.out)


if __name__ == "__main__":
    main()
