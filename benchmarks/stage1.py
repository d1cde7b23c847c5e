"""Image-text pairs a second of BLIP-2's first stage, forward and backward, against the straightforward three passes.

python benchmarks/stage1.py                      # paper size; takes minutes on a CPU
python benchmarks/stage1.py --bf16               # under bf16 autocast, for processors that multiply it quickly
python benchmarks/stage1.py --profile            # and where each arm's time goes
python benchmarks/stage1.py --tiny               # a check that it runs

Arms, each in a process of its own, one after another in every round; times are medians over all rounds' steps:
    released  three passes over concatenated queries and text with additive masks, captions padded to 32 tokens, the
              image's keys and values computed again in every pass: how the released code goes about it
    shared    the same, captions padded to the longest of the batch, keys and values computed once an image
    isthmus   ITC, ITM and ITG over one reading
All have the same weights, the same dropout rate (the first two by torch's own dropout) and the same negatives; losses
and gradients are compared first, without dropout. The machine's matrix rate is that of the feed-forward's own product;
what an arm reaches of it is by its own products, which torch counts (GFLOP a pair).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from isthmus.connectors import QFormerConfig
from isthmus.connectors.dropout import Dropout
from isthmus.connectors.qformer import QFormer
from isthmus.connectors.qformer_layers import Attention, QFormerLayer
from isthmus.data.collate import Batch
from isthmus.features import Captions, Features, FeatureShape, Grid, Plan, Text
from isthmus.model import VisionLanguageModel
from isthmus.train.freed_memory import kept_memory
from isthmus.train.objectives import ITC, ITG, ITM
from isthmus.train.objectives.itm import Negatives
from isthmus.train.objectives.shared import Shared

BLOCKED = -10_000.0


@dataclass(frozen=True)
class Size:
    """One problem: the Q-Former, the features, the batch and its texts."""

    config: QFormerConfig
    source: FeatureShape
    batch: int
    shortest: int
    longest: int
    padded: int


PAPER = Size(
    QFormerConfig(text=True, embedding=256), FeatureShape(width=1_408, grid=Grid(1, 16, 16), prefix=1), 16, 8, 23, 32
)
TINY = Size(
    QFormerConfig(
        num_queries=4, width=32, layers=2, heads=2, ffn_width=64, text=True, vocabulary=90, positions=32, embedding=16
    ),
    FeatureShape(width=24, grid=Grid(1, 3, 3), prefix=1),
    4, 3, 6, 8,
)  # fmt: skip


class Alone(VisionLanguageModel):
    """A connector alone where the objectives expect a model."""

    def __init__(self, connector: QFormer) -> None:
        nn.Module.__init__(self)
        self.connector = connector


def problem(size: Size, arm: str) -> tuple[QFormer, Batch, Negatives]:
    """Weights, a batch and its negatives, the same ones every time."""
    torch.manual_seed(0)
    module = size.config.build_alone(size.source).train()
    if arm != "isthmus":
        use_torch_dropout(module)
    rows, width = size.batch, size.source.width
    lengths = torch.linspace(size.shortest, size.longest, rows).round().long()[torch.randperm(rows)]
    mask = torch.arange(size.longest)[None] < lengths[:, None]
    ids = torch.randint(5, size.config.vocabulary - 1, (rows, size.longest)).masked_fill(~mask, 0)
    write = ids.clone()
    write[:, 0] = size.config.vocabulary - 1
    told = Text(ids=ids, mask=mask)
    captions = Captions(
        contrast=told,
        match=told,
        write=Text(ids=write, mask=mask),
        targets=write.masked_fill(~mask, -100),
        image_ids=torch.arange(rows),
        empty=torch.zeros(rows, dtype=torch.bool),
    )
    tokens = torch.randn(rows, size.source.prefix + size.source.grid.size, width)
    plan = Plan(size=(1, 1), tiles=Grid(1, 1, 1), views=range(1))
    batch = Batch(
        ids=ids,
        mask=mask,
        labels=torch.full_like(ids, -100),
        visual=torch.zeros_like(mask),
        plans=(plan,) * rows,
        owner=tuple(range(rows)),
        sample_ids=tuple(map(str, range(rows))),
        features=Features(tokens=tokens, grid=size.source.grid, prefix=size.source.prefix),
        captions=captions,
    )
    shift = torch.arange(rows)
    drawn = Negatives(images=(shift + 1) % rows, texts=(shift + 2) % rows, kept=torch.ones(rows, dtype=torch.bool))
    return module, batch, drawn


def set_dropout(module: nn.Module, rate: float) -> None:
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate


def use_torch_dropout(module: nn.Module) -> None:
    """torch's own dropout in place of ours, which draws its masks faster."""
    for parent in list(module.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, Dropout):
                setattr(parent, name, nn.Dropout(part.p))


def ours(module: QFormer, batch: Batch, drawn: Negatives) -> Tensor:
    """The sum of the three losses, by the objectives."""
    shared = Shared(Alone(module), batch)
    itc, itm, itg = ITC(), ITM(), ITG()
    for objective in (itc, itm, itg):
        objective.prepare(shared)
    rows = len(batch.ids)
    loss = itc.losses(shared)["itc"] / rows + itg.losses(shared)["itg"] / itg.counts(batch)["itg"]
    judged = itm.judge(shared, drawn)
    return loss + functional.cross_entropy(judged.logits, judged.labels)


def attend(part: Attention, hidden: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """BERT's attention as it is written down: heads by view, scores, bias, softmax, dropout, product."""
    rows, places, width = hidden.shape
    heads, inner = part.heads, width // part.heads
    q, k, v = (x.view(rows, -1, heads, inner).transpose(1, 2) for x in (part.query(hidden), keys, values))
    scores = q @ k.transpose(-1, -2) / inner**0.5
    weights = functional.dropout((scores if bias is None else scores + bias).softmax(-1), part.dropout.p, part.training)
    seen = (weights @ v).transpose(1, 2).reshape(rows, places, width)
    out: Tensor = part.norm(part.dropout(part.out(seen)) + hidden)
    return out


class Straight:
    """The three passes. `share` computes an image's keys and values once; else each pass computes its own."""

    def __init__(self, module: QFormer, features: Features, *, share: bool) -> None:
        self.module, self.share = module, share
        self.layers = [layer for layer in module.layers if isinstance(layer, QFormerLayer)]
        self.seen = module.ln_vision(features.tokens)
        self.pairs = [layer.cross.pair(self.seen) if share and layer.cross else None for layer in self.layers]

    def run(
        self, ids: Tensor | None, bias: Tensor | None, images: Tensor | None, past: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """One pass over [queries; text]; `images` are the rows that its queries look at, `None` without queries."""
        module = self.module
        parts = [] if images is None else [module.queries.expand(len(images), -1, -1)]
        if ids is not None:
            assert module.words is not None
            assert module.positions is not None
            parts.append(module.words(ids) + module.positions.weight[: ids.shape[1]])
        hidden = module.dropout(module.norm(torch.cat(parts, dim=1)))
        count = 0 if images is None else len(module.queries)
        kept = []
        for number, layer in enumerate(self.layers):
            own = layer.attention.pair(hidden)
            kept.append(own)
            keys, values = (
                (torch.cat([old, new], 1) for old, new in zip(past[number], own, strict=True)) if past else own
            )
            hidden = attend(layer.attention, hidden, keys, values, bias)
            queries, text = hidden[:, :count], hidden[:, count:]
            if images is not None:
                if layer.cross is not None:
                    queries = attend(layer.cross, queries, *self.look(number, layer.cross, images), None)
                queries = layer.query_ffn(queries)
            if ids is not None:
                assert layer.text_ffn is not None
                text = layer.text_ffn(text)
            hidden = torch.cat([queries, text], dim=1)
        return hidden, kept

    def look(self, number: int, cross: Attention, images: Tensor) -> tuple[Tensor, Tensor]:
        pair = self.pairs[number]
        if pair is None:
            return cross.pair(self.seen[images])
        return pair[0][images], pair[1][images]


def straight(module: QFormer, batch: Batch, drawn: Negatives, *, share: bool, padded: int) -> Tensor:
    """The sum of the three losses, as the released code computes them on one device."""
    assert batch.captions is not None
    assert batch.features is not None
    assert module.heads is not None
    assert module.words is not None
    rows, length = batch.ids.shape
    missing = (0, max(padded, length) - length)
    ids, write = (functional.pad(text.ids, missing) for text in (batch.captions.match, batch.captions.write))
    mask = functional.pad(batch.captions.match.mask, missing)
    labels = functional.pad(batch.captions.targets, missing, value=-100)
    own = torch.arange(rows)
    run = Straight(module, batch.features, share=share)
    count = len(module.queries)

    queries, past = run.run(None, None, own, [])
    text, _ = run.run(ids, padding(mask)[:, None, None], None, [])
    images, texts = module.heads.image_vectors(queries), module.heads.text_vectors(text)
    scale = module.heads.temperature.reciprocal()
    forth = torch.einsum("rqe,ne->rnq", images, texts.detach()).amax(-1) * scale
    back = torch.einsum("re,nqe->rnq", texts, images.detach()).amax(-1) * scale
    contrast = sum(functional.cross_entropy(one, own, label_smoothing=0.1) for one in (forth, back)) / 2

    joint = torch.cat([ids, ids, ids[drawn.texts]])
    seen = functional.pad(torch.cat([mask, mask, mask[drawn.texts]]), (count, 0), value=True)
    both, _ = run.run(joint, padding(seen)[:, None, None], torch.cat([own, drawn.images, own]), [])
    labels_of = torch.cat([torch.ones(rows), torch.zeros(2 * rows)]).long()
    match = functional.cross_entropy(module.heads.judge(both[:, :count]), labels_of)

    places = mask.shape[1]
    causal = torch.ones(places, places, dtype=torch.bool).tril()[None] & mask[:, None]
    told, _ = run.run(write, padding(functional.pad(causal, (count, 0), value=True))[:, None], None, past)
    logits = module.heads.write(told, module.words.weight)[:, :-1]
    writing = functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=0.1)
    total: Tensor = contrast + match + writing
    return total


def padding(seen: Tensor) -> Tensor:
    return (~seen).float() * BLOCKED


Arm = Callable[[QFormer, Batch, Negatives], Tensor]

ARMS: dict[str, Callable[[Size], Arm]] = {
    "released": lambda size: lambda *given: straight(*given, share=False, padded=size.padded),
    "shared": lambda size: lambda *given: straight(*given, share=True, padded=0),
    "isthmus": lambda size: ours,
}


def check_equal(size: Size) -> float:
    """The largest difference of the three arms' gradients, against the weight's largest. Fails above 1e-3."""
    found = {}
    for name, make in ARMS.items():
        module, batch, drawn = problem(size, name)
        set_dropout(module, 0.0)
        total = make(size)(module, batch, drawn)
        total.backward()  # type: ignore[no-untyped-call]
        found[name] = float(total.detach()), {key: weight.grad for key, weight in module.named_parameters()}
    loss, slopes = found["released"]
    worst = 0.0
    for other, theirs in (found["shared"], found["isthmus"]):
        assert abs(other - loss) < 1e-4 * abs(loss), (other, loss)
        for key, slope in slopes.items():
            same = theirs[key]
            assert (slope is None) == (same is None), key
            if slope is not None and same is not None:
                worst = max(worst, float((slope - same).abs().max() / slope.abs().max().clamp(min=1e-6)))
    assert worst < 1e-3, worst
    return worst


@dataclass(frozen=True)
class Measured:
    """Seconds of each step but the first, and by how much the steps raised the peak of the process's memory."""

    seconds: list[float]
    extra_mib: float


def measure(name: str, size: Size, steps: int, *, bf16: bool = False) -> Measured:
    """So many steps of one arm, after one to warm up."""
    module, batch, drawn = problem(size, name)
    before = peak_mib()
    spent = []
    with kept_memory():  # as in training; it serves all arms
        for _ in range(steps + 1):
            begun = time.perf_counter()
            step(name, size, module, batch, drawn, bf16=bf16)
            spent.append(time.perf_counter() - begun)
        extra = peak_mib() - before
    return Measured(spent[1:], extra)


def peak_mib() -> float:
    """The most memory that this process has held, in MiB; its parent's does not count, as it would in `getrusage`."""
    held = Path("/proc/self/status").read_text(encoding="ascii")
    return float(held.split("VmHWM:")[1].split()[0]) / 1024


def step(name: str, size: Size, module: QFormer, batch: Batch, drawn: Negatives, *, bf16: bool = False) -> None:
    """One forward and backward pass of an arm, gradients fresh."""
    module.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = ARMS[name](size)(module, batch, drawn)
    loss.backward()  # type: ignore[no-untyped-call]


def profile(name: str, size: Size, *, bf16: bool = False, rows: int = 8) -> str:
    """A table of the operations that took most of one step's time, in kept memory after two steps to warm up."""
    module, batch, drawn = problem(size, name)
    with kept_memory():
        for _ in range(2):
            step(name, size, module, batch, drawn, bf16=bf16)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            step(name, size, module, batch, drawn, bf16=bf16)
    table = seen.key_averages()
    whole = sum(one.self_cpu_time_total for one in table)
    lines = [f"{name}: {whole / 1e6:.2f} s a step"]
    for one in sorted(table, key=lambda one: -one.self_cpu_time_total)[:rows]:
        lines.append(f"  {one.self_cpu_time_total / whole:6.1%} {one.count:6} x {one.key}")
    return "\n".join(lines)


def matrix_rate(size: Size, *, bf16: bool = False) -> float:
    """GFLOP/s of the feed-forward's product at this size."""
    rows = size.batch * 3 * (size.config.num_queries + size.longest)
    kind = torch.bfloat16 if bf16 else torch.float32
    left = torch.randn(rows, size.config.width, dtype=kind)
    right = torch.randn(size.config.width, size.config.ffn_width, dtype=kind)
    best = 1e9
    for _ in range(5):
        begun = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - begun)
    return 2 * rows * size.config.width * size.config.ffn_width / best / 1e9


def gflop_a_pair(name: str, size: Size) -> float:
    """Forward and backward of an arm, counted by torch."""
    module, batch, drawn = problem(size, name)
    with FlopCounterMode(display=False) as counter:
        step(name, size, module, batch, drawn)
    return float(counter.get_total_flops()) / size.batch / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--steps", type=int, default=2, help="steps of an arm in a round, after one to warm up")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--arm", choices=tuple(ARMS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = TINY if args.tiny else PAPER
    if args.arm is not None:
        print(json.dumps(asdict(measure(args.arm, size, args.steps, bf16=args.bf16))))
        return
    print(f"gradients of the arms differ by at most {check_equal(size):.1e} of the largest")
    rate = matrix_rate(size, bf16=args.bf16)
    print(
        f"matrix rate {rate:.1f} GFLOP/s {'in bf16' if args.bf16 else 'in float32'}, {torch.get_num_threads()} threads"
    )
    flags = [*(["--tiny"] * args.tiny), *(["--bf16"] * args.bf16)]
    found: dict[str, list[Measured]] = {name: [] for name in ARMS}
    for name in list(ARMS) * args.rounds:
        command = [sys.executable, __file__, "--arm", name, "--steps", str(args.steps), *flags]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[name].append(Measured(**json.loads(said.splitlines()[-1])))
    took = {name: [second for one in runs for second in one.seconds] for name, runs in found.items()}
    middle = {name: statistics.median(seconds) for name, seconds in took.items()}
    print(
        f"{'arm':10} {'pairs/s':>8} {'slowest':>8} {'fastest':>8} {'released':>9} {'shared':>8} {'GFLOP':>7} "
        f"{'of rate':>8} {'MiB':>7}"
    )
    for name, runs in found.items():
        work = gflop_a_pair(name, size)
        pairs, least, most = (size.batch / one for one in (middle[name], max(took[name]), min(took[name])))
        print(
            f"{name:10} {pairs:8.2f} {least:8.2f} {most:8.2f} {middle['released'] / middle[name]:8.2f}x "
            f"{middle['shared'] / middle[name]:7.2f}x {work:7.4g} {pairs * work / rate:8.0%} "
            f"{max(one.extra_mib for one in runs):7.0f}"
        )
    if args.profile:
        print("\n".join(profile(name, size, bf16=args.bf16) for name in ARMS))


if __name__ == "__main__":
    main()
