"""Which question of a chat should an instruction-aware Q-Former look for? Both choices, trained and asked alike.

`python -m benchmarks.instruct_reads OUT --start runs/blip2/tiny/001/2-tiny-stage1` trains InstructBLIP's Q-Former
before the frozen speaker on chats of two questions about a scene, once for each choice of `reads` and each seed, from
the same aligned Q-Former. Held-out scenes are then asked the first question alone (both choices read it), and the
second one after the first and its true answer.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from isthmus.connectors import InstructQFormerConfig, QFormerConfig
from isthmus.data.instructions import QuestionTurn
from isthmus.data.sample import Sample
from isthmus.data.sources import Source, WorldChat
from isthmus.evaluate.bounds import difference_bounds, share_bounds
from isthmus.evaluate.runner import evaluate
from isthmus.evaluate.sight import open_run
from isthmus.recipes.blip2_tiny import tiny_stage1, tiny_stage2
from isthmus.runs import Run
from isthmus.train.loop import train
from isthmus.train.stage import Stage

READS: tuple[QuestionTurn, ...] = ("last-question", "first-question")
PLACES = ("alone", "second")


def stage(reads: QuestionTurn, seed: int, steps: int, start: Run) -> Stage:
    """The tiny second stage with a Q-Former that reads one of two questions."""
    base = tiny_stage2()
    known, [chat] = start.model_config.connector, [one.of for one in base.data]
    assert isinstance(known, QFormerConfig)
    assert isinstance(chat, WorldChat)
    two = replace(chat, questions=2, caption=False)
    inner = replace(known, embedding=0)
    return replace(
        base,
        name=f"instructblip/tiny-{reads}",
        start_from=tiny_stage1().name,
        model=replace(base.model, connector=InstructQFormerConfig(qformer=inner, reads=reads, max_text_tokens=64)),
        optimizer=replace(base.optimizer, rates=(("connector.qformer.project", 5e-3),)),
        data=(Source(of=two),),
        validation=(Source(of=replace(two, split="val", num_scenes=96)),),
        batch_size=16,
        steps=steps,
        save_every=steps,
        validate_every=steps,
        seed=seed,
    )


def questions(num: int) -> dict[str, list[Sample]]:
    """For each place the question of `num` held-out scenes that is asked there."""
    [chat] = [one.of for one in tiny_stage2().data]
    assert isinstance(chat, WorldChat)
    scenes = replace(chat, split="test", num_scenes=num, questions=2, caption=False).build()
    chats = [one for one in (scenes[index] for index in range(num)) if len(one.turns) == 4]
    return {
        place: [
            replace(one, turns=one.turns[:end], meta={"answers": (one.turns[end].text,), "group": one.id})
            for one in chats
        ]
        for place, end in (("alone", 1), ("second", 3))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, required=True, help="a finished run of blip2/tiny-stage1")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--num", type=int, default=400, help="held-out scenes")
    args = parser.parse_args()
    asked = questions(args.num)
    scores: dict[tuple[str, str], list[float]] = {}
    groups: dict[str, list[str]] = {place: [] for place in PLACES}
    for seed in args.seeds:
        for reads in READS:
            folder = args.out / f"{reads}-{seed}"
            wanted = stage(reads, seed, args.steps, Run(args.start))
            run = train(wanted, folder, start=args.start, resume=folder.is_dir())
            model, encoder = open_run(run)
            for place, items in asked.items():
                found = [one.score for one in evaluate(model, items, encoder=encoder)]
                scores.setdefault((reads, place), []).extend(found)
                print(f"{reads} seed {seed}: {place} {sum(found) / len(found):.3f}", flush=True)
        for place, items in asked.items():
            groups[place] += [str(item.meta["group"]) for item in items]
    for place in PLACES:
        for reads in READS:
            found = scores[reads, place]
            low, high = share_bounds(sum(found), len(found))
            print(f"{place}, {reads}: {sum(found) / len(found):.3f} ({low:.3f} to {high:.3f})")
        mean, low, high = difference_bounds(*(scores[reads, place] for reads in READS), groups[place])
        print(f"{place}, last less first: {100 * mean:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})")


if __name__ == "__main__":
    main()
