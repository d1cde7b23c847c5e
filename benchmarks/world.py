"""How many scenes of the exact world one core makes, draws, describes and asks about in a second.

python benchmarks/world.py
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable

from isthmus.data.sources.world import ask, describe, make_scene, render

SCENES = 1_000


def rate(work: Callable[[int], object]) -> float:
    """Calls per second, the best of three runs."""
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        for seed in range(SCENES):
            work(seed)
        best = max(best, SCENES / (time.perf_counter() - start))
    return best


def whole(seed: int) -> None:
    """One scene with its picture, a description and eight questions."""
    scene = make_scene(seed, "train")
    render(scene, 96)
    describe(scene, random.Random(seed))
    ask(scene, random.Random(seed))


def balance() -> None:
    """The commonest answer's share for every kind of question."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    chances: dict[str, float] = {}
    for seed in range(10_000):
        scene = make_scene(seed, "train")
        for question in ask(scene, random.Random(seed)):
            kind = f"{question.family}: {question.detail['kind']}"
            counted[kind][question.answer] += 1
            chances[kind] = question.chance
    print(f"{'kind of question':24} {'asked':>6} {'chance':>7} {'commonest answer':>20}")
    for kind, answers in sorted(counted.items()):
        (answer, most), total = answers.most_common(1)[0], sum(answers.values())
        print(f"{kind:24} {total:6} {chances[kind]:7.3f} {answer:>13} {most / total:6.3f}")


def main() -> None:
    scenes = [make_scene(seed, "train") for seed in range(SCENES)]
    print(f"make_scene, train        {rate(lambda seed: make_scene(seed, 'train')):8.0f} a second")
    print(f"make_scene, test         {rate(lambda seed: make_scene(seed, 'test')):8.0f}")
    for size in (96, 224, 336):
        print(f"render at {size:3}            {rate(lambda seed, size=size: render(scenes[seed], size)):8.0f}")
    print(f"ask, eight questions     {rate(lambda seed: ask(scenes[seed], random.Random(seed))):8.0f}")
    print(f"all of it at 96          {rate(whole):8.0f}")
    balance()


if __name__ == "__main__":
    main()
