"""Measure an eye: what a linear probe reads off its frozen patches, next to an untrained eye; and retrieval.

One command: `python -m backbones.probe_eye --data DATA --eye isthmus/bundled/eye [--rest FOLDER]`.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import CLIPVisionModel

from backbones.eye import TEXT_LIMIT, Trainer, load_trainer
from backbones.eye_batch import GRID, SIDE, centre_of, patches_of, small, to_pixels, tokenise
from backbones.eye_model import inner, new_tower
from backbones.linear_probe import probe
from backbones.real import read_figures
from isthmus.data.sources.world import (
    CELLS,
    COLOURS,
    HELD_OUT,
    SHAPES,
    SIZES,
    Item,
    Split,
    WorldStyle,
    describe,
    make_scene,
    render,
)
from isthmus.data.sources.world.words import WORDS

ITEMS = WorldStyle(writing=0.0, chart=0.0)
WRITINGS = WorldStyle(items=(0, 3), writing=1.0, chart=0.0, numbers=0.0)
LAYERS = (-1, -2)
TYPES = ("photo", "chart", "diagram", "map", "painting", "micrograph", "table")


@torch.no_grad()
def encode(
    tower: CLIPVisionModel, pixels: Float[Tensor, "views 3 height width"]
) -> dict[int, Float[Tensor, "views tokens width"]]:
    """The states after the last and the last but one block, class token first."""
    hidden = [tower(part, output_hidden_states=True).hidden_states for part in torch.split(pixels, 50)]
    return {layer: torch.cat([states[layer] for states in hidden]) for layer in LAYERS}


def item_features(tower: CLIPVisionModel, split: Split, count: int) -> tuple[dict[int, Tensor], list[Item]]:
    """The patch at the centre of every item of `count` scenes."""
    scenes = [make_scene(7_000_000 + seed, split, ITEMS) for seed in range(count)]
    states = encode(tower, to_pixels([render(scene, SIDE) for scene in scenes]))
    places = [(view, item) for view, scene in enumerate(scenes) for item in scene.items]
    views = torch.tensor([view for view, _ in places])
    tokens = torch.tensor([1 + GRID * row + column for row, column in (centre_of(item.box) for _, item in places)])
    return {layer: states[layer][views, tokens] for layer in LAYERS}, [item for _, item in places]


def answers_of(items: list[Item]) -> dict[str, tuple[Int[Tensor, "items"], int]]:
    """What is to be read off each item, and among how many answers."""
    return {
        "colour": (torch.tensor([COLOURS.index(item.colour) for item in items]), len(COLOURS)),
        "shape": (torch.tensor([SHAPES.index(item.shape) for item in items]), len(SHAPES)),
        "cell": (torch.tensor([item.cell for item in items]), len(CELLS)),
        "size": (torch.tensor([SIZES.index(item.size) for item in items]), len(SIZES)),
    }


def probe_items(tower: CLIPVisionModel, train: int, test: int) -> dict[str, float]:
    """Accuracy on `test_combos` scenes by attribute and layer; `pairs` are the items of a never-seen pair alone."""
    seen, seen_items = item_features(tower, "train", train)
    held, held_items = item_features(tower, "test_combos", test)
    pairs = torch.tensor([(item.colour, item.shape) in HELD_OUT for item in held_items])
    truth, wanted = answers_of(seen_items), answers_of(held_items)
    found: dict[str, float] = {"items": float(len(held_items))}
    for layer in LAYERS:
        for name, (target, classes) in truth.items():
            right = probe(seen[layer], target, held[layer], classes) == wanted[name][0]
            found[f"{name}, layer {layer}"] = float(right.float().mean())
            if name in ("colour", "shape"):
                found[f"{name}, layer {layer}, pairs"] = float(right[pairs].float().mean())
    return found


def probe_letters(tower: CLIPVisionModel, train: int, test: int) -> dict[str, float]:
    """First letter of a written word, from the mean over the word's patches."""
    features, letters = {}, {}
    split: Split
    for split, count in (("train", train), ("test", test)):
        scenes = [make_scene(8_000_000 + seed, split, WRITINGS) for seed in range(count)]
        states = encode(tower, to_pixels([render(scene, SIDE) for scene in scenes]))[-1][:, 1:]
        masks = torch.stack([patches_of(scene.writings[0].box).float() for scene in scenes])
        features[split] = torch.einsum("vp,vpw->vw", masks / masks.sum(1, keepdim=True), states)
        letters[split] = torch.tensor([ord(scene.writings[0].text[0]) - ord("a") for scene in scenes])
    right = probe(features["train"], letters["train"], features["test"], 26, decay=3e-3) == letters["test"]
    return {"first letter": float(right.float().mean())}


def probe_types(tower: CLIPVisionModel, data: Path) -> dict[str, float]:
    """The type of textbook figures: fitted on train, tried on val, from the mean over all patches."""
    features, types = {}, {}
    for split in ("train", "val"):
        figures = [one for one in read_figures(data, split) if one.type in TYPES]
        figures = figures[::2] if split == "train" else figures
        states = [
            encode(tower, to_pixels([small(one.image, SIDE) for one in figures[at : at + 50]]))[-1]
            for at in range(0, len(figures), 50)
        ]
        features[split] = torch.cat([part[:, 1:].mean(1) for part in states])
        types[split] = torch.tensor([TYPES.index(one.type) for one in figures])
    right = probe(features["train"], types["train"], features["val"], len(TYPES), decay=1e-2) == types["val"]
    majority = types["train"].bincount().argmax()
    return {"type": float(right.float().mean()), "type, majority": float((types["val"] == majority).float().mean())}


@torch.no_grad()
def read_words(trainer: Trainer, count: int) -> dict[str, float]:
    """The written word among all words, by likeness to "the word ..." in the shared space; no probe is fitted."""
    scenes = [make_scene(9_000_000 + seed, "test", WRITINGS) for seed in range(count)]
    states = encode(trainer.tower, to_pixels([render(scene, SIDE) for scene in scenes]))[-1][:, 1:]
    masks = torch.stack([patches_of(scene.writings[0].box).float() for scene in scenes])
    regions = trainer.heads.regions(torch.einsum("vp,vpw->vw", masks / masks.sum(1, keepdim=True), states))
    words = trainer.text(*tokenise([f"the word {word}" for word in WORDS], trainer.tokenizer, 32))
    best = (regions @ words.T).argmax(1).tolist()
    found: dict[str, list[bool]] = {}
    for scene, place in zip(scenes, best, strict=True):
        writing = scene.writings[0]
        for name in ("word", f"word of {round(writing.glyph_height * SIDE)} px"):
            found.setdefault(name, []).append(WORDS[place] == writing.text)
    return {name: sum(right) / len(right) for name, right in sorted(found.items())}


@torch.no_grad()
def retrieve(trainer: Trainer, count: int) -> dict[str, float]:
    """Description to scene and back among `count` test scenes: share found first."""
    rng = random.Random(5)
    scenes = [make_scene(6_000_000 + seed, "test", WorldStyle(items=(2, 6))) for seed in range(count)]
    pixels = to_pixels([render(scene, SIDE) for scene in scenes])
    states = encode(trainer.tower, pixels)[-1][:, 0]
    images = trainer.heads.images(inner(trainer.tower).post_layernorm(states))
    texts = [describe(scene, rng, "list") for scene in scenes]
    likeness = trainer.text(*tokenise(texts, trainer.tokenizer, TEXT_LIMIT)) @ images.T
    target = torch.arange(count)
    return {
        "retrieval, text to scene R@1": float((likeness.argmax(1) == target).float().mean()),
        "retrieval, scene to text R@1": float((likeness.argmax(0) == target).float().mean()),
    }


def measure(tower: CLIPVisionModel, data: Path, train: int, test: int) -> dict[str, float]:
    """All probes of one tower."""
    return probe_items(tower, train, test) | probe_letters(tower, train, test) | probe_types(tower, data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--eye", type=Path, required=True)
    parser.add_argument("--train", type=int, default=2_000, help="scenes that a probe is fitted on")
    parser.add_argument("--test", type=int, default=1_000, help="scenes that it is tried on")
    parser.add_argument("--untrained", action="store_true", help="measure an untrained eye as well")
    parser.add_argument("--quick", action="store_true", help="items alone")
    args = parser.parse_args()
    torch.manual_seed(0)
    trainer = load_trainer(args.eye)
    trainer.tower.eval()
    if args.quick:
        print(json.dumps(probe_items(trainer.tower, args.train, args.test), indent=1))
        return
    found = {"trained": measure(trainer.tower, args.data, args.train, args.test)}
    found["trained"] |= read_words(trainer, args.test) | retrieve(trainer, 500)
    if args.untrained:
        found["untrained"] = measure(new_tower().eval(), args.data, args.train, args.test)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
