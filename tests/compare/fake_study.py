"""A made-up study result, with every case the report must show."""

import random

from isthmus.compare.report import Example, thumbnail
from isthmus.compare.results import ArmCost, JobResult, Results, TaskInfo
from isthmus.compare.study import TEXT_ONLY
from isthmus.data.sources.world_chat import questions
from isthmus.evaluate.levels import Levels

TASKS = (
    ("world/attribute", "Colour, shape, size", "exact world", (0.12, 0.14, 0.21)),
    ("world/position", "Position", "exact world", (0.11, 0.12, 0.13)),
    ("world/count", "Counting", "exact world", (0.2, 0.25, 0.27)),
    ("world/relation", "Spatial relation", "exact world", (0.5, 0.5, 0.52)),
    ("world/reading", "Reading a word or number", "exact world", (0.0, 0.01, 0.02)),
    ("textbook/kind", "Kind of figure", "real images", (0.14, 0.45, 0.45)),
    ("textbook/subject", "Subject of the book", "real images", (0.14, 0.3, 0.3)),
    ("nlvr/truth", "Is the sentence true?", "real images", (0.5, 0.55, 0.56)),
)
ARMS = {"mlp": 0.72, "average-pool": 0.70, "pixel-shuffle": 0.66, "q-former": 0.41}
COSTS = {
    "mlp": (115_000, 144, 33_000_000),
    "average-pool": (115_000, 36, 33_000_000),
    "pixel-shuffle": (264_000, 36, 19_000_000),
    "q-former": (1_900_000, 32, 480_000_000),
}
HEADLINE = ("world/attribute", "world/position", "world/count")


def fake_job(arm: str, level: float, seed: int, rng: random.Random) -> JobResult:
    """One judged run around an accuracy."""
    blind = arm == TEXT_ONLY
    scores = {name: min(1.0, max(0.0, level + rng.gauss(0, 0.01) - 0.03 * i)) for i, (name, *_) in enumerate(TASKS)}
    own = "text-only" if blind else "none"
    controls = {} if blind else {"mean-image": dict.fromkeys(HEADLINE, 0.19), "shuffled": dict.fromkeys(HEADLINE, 0.2)}
    curve = tuple((step, 3.0 * (1 - level) + 4 * 0.97**step + rng.gauss(0, 0.05)) for step in range(10, 401, 10))
    return JobResult(
        job=f"{arm}-{seed}",
        kind="final",
        arm=arm,
        seed=seed,
        rate=1e-3,
        steps=400,
        validation_loss=curve[-1][1],
        train_core_seconds=62.0 + 20 * (arm == "q-former"),
        evaluate_core_seconds=21.0,
        train_curve=curve,
        validation_curve=curve[7::8],
        scores={own: scores, **controls},
        counts={own: {name: 200 for name, *_ in TASKS}},
        watched=None if blind else (level - 0.03, level) if arm == "q-former" else (level - 0.002, level),
        first_token_ms=31.0,
    )


def fake_results(seeds: tuple[int, ...] = (1, 2, 3, 4, 5), name: str = "quickstart") -> Results:
    """Four arms and a text-only arm."""
    rng = random.Random(7)
    levels = {**ARMS, TEXT_ONLY: 0.22}
    jobs = [fake_job(arm, level, seed, rng) for arm, level in levels.items() for seed in seeds]
    jobs += [
        JobResult(
            job=f"tune-{arm}-{rate}", kind="tune", arm=arm, seed=101, rate=rate, steps=100,
            validation_loss=2.0 + abs(rate - 1e-3) * 100, train_core_seconds=15.0,
        )
        for arm in levels
        for rate in (3e-4, 1e-3, 3e-3)
    ]  # fmt: skip
    costs = {
        arm: ArmCost(
            connector_parameters=parameters,
            trained_parameters=parameters,
            visual_tokens=tokens,
            connector_flops=flops,
            encoder_flops=900_000_000,
            prefill_flops=8_000_000 * (tokens + 24),
            kv_bytes=8_192 * (tokens + 24),
        )
        for arm, (parameters, tokens, flops) in COSTS.items()
    }
    return Results(
        name=name,
        headline=HEADLINE,
        margin=0.02,
        arms=tuple(ARMS),
        blind_arm=TEXT_ONLY,
        tasks=tuple(
            TaskInfo(
                name=task, title=title, kind=kind, count=200,
                levels=Levels(chance=chance, majority=majority, question_only=question),
            )
            for task, title, kind, (chance, majority, question) in TASKS
        ),
        costs={**costs, TEXT_ONLY: costs["mlp"]},
        jobs=tuple(jobs),
        facts={"command": "isthmus compare quickstart", "machine": "2 cores"},
    )  # fmt: skip


def fake_examples() -> list[Example]:
    """Scenes with made-up answers."""
    examples = []
    for family in ("attribute", "position", "count", "relation", "reading", "chart"):
        item = questions(family, 1, seed=3)[0]
        truth = item.meta["answers"][0]
        examples.append(
            Example(
                picture=thumbnail(item.images[0].load()),
                task=family,
                question=item.turns[0].text.removeprefix("<image>").strip(),
                truth=truth,
                said=tuple((arm, truth if i % 2 else "blue", float(i % 2)) for i, arm in enumerate((*ARMS, TEXT_ONLY))),
            )
        )
    return examples
