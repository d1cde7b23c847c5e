"""Bind the ear to the eye: two linear maps into one space, by contrast of spoken digits with drawn ones.

`python -m backbones.bind_ear --out FOLDER`; a minute on one core. Eye and ear stand still. A sound and a picture of the
same digit belong together, as in ImageBind (arXiv:2305.05665); all pairs of a step are compared at once. Only speakers
that the ear was trained on are heard here; what the two others come out as is printed at the end.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn

from backbones.linear_probe import probe
from isthmus.data.sources.drawn_digits import DigitPicture
from isthmus.data.sources.spoken_digits import DIGITS, DigitSplit, SpokenDigits
from isthmus.encoders import BoundEncoder, Encoder
from isthmus.encoders.bound import MAPS

SPEEDS = (0.8, 0.9, 1.0, 1.1, 1.25)
SHARPNESS = 10.0


@torch.no_grad()
def pooled(encoder: Encoder, pixels: list[Tensor]) -> Float[Tensor, "inputs width"]:
    """The mean over the patches."""
    return torch.cat([encoder(part).tokens.mean(1) for part in torch.split(torch.cat(pixels), 32)])


def pictures(encoder: Encoder, numbers: range) -> tuple[Tensor, Int[Tensor, "inputs"]]:
    """Features and digits of drawn digits, each digit as often."""
    drawn = [DigitPicture(digit=number % 10, seed=-number) for number in numbers]
    return pooled(encoder, [encoder.prepare(one.load()).pixels for one in drawn]), torch.tensor(list(numbers)) % 10


def sounds(encoder: Encoder, split: DigitSplit, speeds: tuple[float, ...]) -> tuple[Tensor, Int[Tensor, "inputs"]]:
    """Features and digits of the recordings of a split."""
    asked = SpokenDigits(split=split, speeds=speeds).build()
    samples = [asked[index] for index in range(len(asked))]
    heard = pooled(encoder, [encoder.prepare(one.sounds[0].load()).pixels for one in samples])
    return heard, torch.tensor([DIGITS.index(one.turns[1].text) for one in samples])


def bind(
    seen: tuple[Tensor, Tensor], heard: tuple[Tensor, Tensor], *, width: int, steps: int, decay: float
) -> dict[str, nn.Linear]:
    """Maps from the mean features of eye and ear, whose spread is taken into their weights."""
    spread = {key: (part[0].mean(0), part[0].std(0) + 1e-6) for key, part in (("eye", seen), ("ear", heard))}
    maps = {key: nn.Linear(len(mean), width) for key, (mean, _) in spread.items()}
    inputs = {key: (part[0] - spread[key][0]) / spread[key][1] for key, part in (("eye", seen), ("ear", heard))}
    parameters = [one for made in maps.values() for one in made.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=decay)
    same = (seen[1][:, None] == heard[1][None]).float()
    for _ in range(steps):
        near = {key: F.normalize(maps[key](part + 0.1 * torch.randn_like(part)), dim=1) for key, part in inputs.items()}
        likeness = SHARPNESS * near["eye"] @ near["ear"].T
        loss = sum(
            F.cross_entropy(scores, wanted / wanted.sum(1, keepdim=True))
            for scores, wanted in ((likeness, same), (likeness.T, same.T))
        )
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        for key, (mean, far) in spread.items():
            maps[key].weight.div_(far)
            maps[key].bias.sub_(maps[key].weight @ mean)
    return maps


@torch.no_grad()
def named_by(known: Tensor, labels: Tensor, asked: Tensor) -> Int[Tensor, "asked"]:
    """The digit whose mean among `known` is nearest in angle."""
    means = torch.stack([F.normalize(known[labels == digit], dim=1).mean(0) for digit in range(10)])
    return (F.normalize(asked, dim=1) @ F.normalize(means, dim=1).T).argmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=240)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    config = BoundEncoder()
    eye, ear = config.eye.build(), config.ear.build()
    seen, fresh = (pictures(eye, range(start, start + args.pictures)) for start in (10, 100_000))
    heard, taken, unheard = sounds(ear, "train", SPEEDS), sounds(ear, "val", (1.0,)), sounds(ear, "test", (1.0,))
    maps = bind(seen, heard, width=args.width, steps=args.steps, decay=args.decay)
    args.out.mkdir(parents=True, exist_ok=True)
    widths = {"width": args.width, "eye": maps["eye"].in_features, "ear": maps["ear"].in_features}
    (args.out / "config.json").write_text(json.dumps({"model_type": "binding", **widths}) + "\n")
    weights = {f"{key}.{name}": one.detach() for key, made in maps.items() for name, one in made.named_parameters()}
    save_file({name: one.to(torch.bfloat16).contiguous() for name, one in weights.items()}, args.out / MAPS)
    with torch.no_grad():
        known, space = maps["eye"](seen[0]), {"eye": maps["eye"], "ear": maps["ear"]}
        for name, key, (asked, digits) in (
            ("fresh pictures", "eye", fresh),
            ("further takes of known speakers", "ear", taken),
            ("unheard speakers", "ear", unheard),
        ):
            right = named_by(known, seen[1], space[key](asked)) == digits
            print(f"{name}, named by the nearest pictures: {float(right.float().mean()):.3f}")
    for name, fitted, tried in (("pictures", seen, fresh), ("unheard speakers", heard, unheard)):
        right = probe(fitted[0], fitted[1], tried[0], 10, decay=1e-2) == tried[1]
        print(f"{name}, linear probe before the maps: {float(right.float().mean()):.3f}")


if __name__ == "__main__":
    main()
