"""The doctor: what a run's log says of its health. Known failures are named, with their numbers and what to do.

Losses are held against chance: comparing N pairs blindly costs log N, judging matches blindly costs the entropy of the
share of true pairs (0.637 nats where one in three is true). Failures and their bands are those that people report of
Q-Formers that do not learn (salesforce/LAVIS issues 149, 266, 282, 463, 493, 552).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Grade = Literal["failing", "suspect"]
Line = dict[str, Any]
EARLIEST = 100
"""No judgement on learning before this many optimizer steps."""
HALF_LARGEST = 65_504.0


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a log does not say of its stage. `pairs`: rows compared with each other; `true_share`: of judged pairs."""

    losses: tuple[str, ...]
    """By their names in the log; ITC of pooled features is "itc_features"."""
    num_steps: int
    warmup_steps: int = 0
    pairs: int = 1
    smoothing: float = 0.0
    true_share: float = 1 / 3
    half_encoder: bool = False

    @property
    def patience(self) -> int:
        """Steps before a lack of learning is called one: after warm-up, and a fifth of a long run."""
        return max(EARLIEST, self.warmup_steps, min(self.num_steps // 5, 5_000))

    @property
    def aligns(self) -> bool:
        """Whether the connector learns alone, from captions."""
        return "loss" not in self.losses


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A failure by its name: what the numbers say, and what to do."""

    name: str
    grade: Grade
    says: str
    do: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found, causes before consequences. `early`: too few steps to judge learning by."""

    findings: tuple[Finding, ...]
    early: bool
    steps: int

    @property
    def failing(self) -> bool:
        """Whether something is broken, beyond suspicion."""
        return any(one.grade == "failing" for one in self.findings)

    @property
    def word(self) -> str:
        """The names of what was found; "early", or "healthy", where nothing was."""
        return ", ".join(one.name for one in self.findings) or ("early" if self.early else "healthy")

    def to_json(self) -> dict[str, Any]:
        """For the run's report."""
        return {"word": self.word, **asdict(self)}


class History:
    """The lines of a log, asked for the value of a sign lately, at first, and at all."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        self.steps = max((int(line["step"]) for line in lines), default=0)

    def values(self, name: str) -> list[float]:
        """Every value of a name, in order; what a run could not write as a number is not a number."""
        return [float("nan") if line[name] is None else float(line[name]) for line in self.lines if name in line]

    def late(self, name: str) -> float | None:
        """The mean over the last quarter of the values, NaN left out; None without any."""
        every = self.values(name)
        some = [value for value in every[-max(1, len(every) // 4) :] if math.isfinite(value)]
        return sum(some) / len(some) if some else None

    def first(self, name: str) -> float | None:
        """The first finite value."""
        return next((value for value in self.values(name) if math.isfinite(value)), None)

    def last(self, name: str) -> float | None:
        """The last finite value."""
        return next((value for value in reversed(self.values(name)) if math.isfinite(value)), None)


def compare_band(pairs: int, smoothing: float) -> tuple[float, float]:
    """ITC's loss by chance, log of the number of pairs, and the least that label smoothing leaves (nats)."""
    if pairs < 2:
        return 0.0, 0.0
    wrong = smoothing / pairs
    right = 1.0 - smoothing + wrong
    least = -right * math.log(right) - ((pairs - 1) * wrong * math.log(wrong) if wrong else 0.0)
    return math.log(pairs), least


def majority_loss(true_share: float) -> float:
    """ITM's loss when every pair gets the same answer, the shares of the classes: 0.637 nats for one in three."""
    return -sum(share * math.log(share) for share in (true_share, 1.0 - true_share) if share > 0.0)


def judge(facts: Facts, lines: Sequence[Line], *, skipped: int = 0, samples: int = 0) -> Verdict:
    """What the lines of a log say. `skipped` of `samples` could not be used."""
    history = History(lines)
    early = history.steps < facts.patience
    found = [_overflow(facts, history), _near_overflow(facts, history), _skipped(skipped, samples)]
    found.append(_nothing_compared(facts))
    if not early:
        learning = _ALIGNING if facts.aligns else _ANSWERING
        found += [check(facts, history) for check in learning]
    return Verdict(findings=tuple(one for one in found if one is not None), early=early, steps=history.steps)


def tokens_alike(lines: Sequence[Line]) -> bool:
    """Whether all visual tokens of an image were alike at the end of a log, however few its steps.

    Whatever such a run answers, it does not answer it from where things are; its loss may be low all the same.
    """
    return _identical_tokens(Facts(losses=("loss",), num_steps=0), History(lines)) is not None


def _overflow(facts: Facts, history: History) -> Finding | None:
    watched = (*facts.losses, "grad_norm", "validation_loss")
    broken: dict[str, int] = {}
    for line in history.lines:
        for name in watched:
            value = line.get(name)
            if isinstance(value, float) and not math.isfinite(value):
                broken.setdefault(name, int(line["step"]))
        if "broke_down" in line:
            broken.setdefault(str(line["broke_down"]), int(line["step"]))
    features = history.values("feature_max")
    seen = bool(features) and not math.isfinite(features[-1])
    if not broken and not seen:
        return None
    says = "; ".join(f"{name} is not a finite number at step {step}" for name, step in broken.items())
    norm, rate = history.last("grad_norm"), history.last("lr")
    if seen:
        says = f"The encoder's features are not finite themselves. {says}"
        do = "Compute the encoder in float32 or bfloat16 (--model.encoder.precision): float16 ends at 65504."
    else:
        says += f". The last finite gradient norm was {norm:.3g}" if norm is not None else ""
        do = (
            f"Lower the peak rate (it was {rate or 0.0:.1g} at the end), warm up longer, clip the gradients "
            f"(--optimizer.clip-norm 1), and compute what learns in float32 or bf16, never in float16. "
            f"The last save is intact."
        )
    return Finding(name="overflow", grade="failing", says=says, do=do)


def _near_overflow(facts: Facts, history: History) -> Finding | None:
    largest = history.last("feature_max")
    if not facts.half_encoder or largest is None or largest < HALF_LARGEST / 4:
        return None
    return Finding(
        name="near-overflow",
        grade="suspect",
        says=f"Features reach {largest:.0f}, and float16 ends at {HALF_LARGEST:.0f}.",
        do="Compute the encoder in bfloat16 or float32 (--model.encoder.precision).",
    )


def _skipped(skipped: int, samples: int) -> Finding | None:
    if not samples or skipped < 0.01 * samples:
        return None
    return Finding(
        name="samples-skipped",
        grade="suspect",
        says=f"{skipped} of {samples} samples could not be used, and others took their place.",
        do="finished.json names them under `skipped`; `isthmus check RECIPE` says what is wrong with one.",
    )


def _nothing_compared(facts: Facts) -> Finding | None:
    if facts.pairs > 1 or not any(name.startswith("itc") for name in facts.losses):
        return None
    return Finding(
        name="nothing-compared",
        grade="failing",
        says="ITC compares the pairs of a batch with each other, and a batch holds one: its loss is always 0.",
        do="Raise batch_size (micro_batch_size keeps memory small), or leave ITC out of the objectives.",
    )


def _identical_queries(facts: Facts, history: History) -> Finding | None:
    cosine, rank = history.late("query_cosine"), history.late("query_rank")
    distinct = history.late("query_distinct")
    if cosine is None or rank is None or distinct is None:
        return None
    if cosine < 0.9995 and rank > 1.01 and distinct >= 0.5:
        return None
    return Finding(
        name="identical-queries",
        grade="failing",
        says=f"Queries say the same of an image: {distinct:.0%} of them are distinct, mean cosine {cosine:.4f}, "
        f"effective rank {rank:.2f}.",
        do="Start the query tokens from different values, N(0, 0.02). Equal queries get equal gradients "
        "and stay equal, but for those that ITC's maximum picks.",
    )


def _text_ignored(facts: Facts, history: History) -> Finding | None:
    cosine = history.late("text_cosine")
    by_text, by_image = history.late("itm_by_text"), history.late("itm_by_image")
    told = []
    if cosine is not None and cosine > 0.9995:
        told.append(f"different captions get the same vector (cosine {cosine:.4f})")
    if by_text is not None and by_image is not None and by_text < 0.01 * by_image:
        told.append(f"another text moves the judgement by {by_text:.2g}, another image by {by_image:.2g}")
    if not told:
        return None
    return Finding(
        name="text-ignored",
        grade="failing",
        says=f"The text does not reach the answers: {'; '.join(told)}.",
        do="Look whether text ids, their mask and the text side's weights reach the connector: a port that drops the "
        "text path still runs. With start_from the words start from a trained reader.",
    )


def _flat_itc(facts: Facts, history: History) -> Finding | None:
    chance, least = compare_band(facts.pairs, facts.smoothing)
    late = {name: history.late(name) for name in facts.losses if name.startswith("itc")}
    flat = [
        f"{loss:.3f} nats" + ("" if name == "itc" else f" ({name})")
        for name, loss in late.items()
        if loss is not None and loss >= chance - 0.1 * (chance - least)
    ]
    if facts.pairs < 2 or not flat:
        return None
    signs = {name: history.late(name) for name in ("image_cosine", "text_cosine", "attention_entropy")}
    beside = "".join(f", {name.replace('_', ' ')} {value:.3f}" for name, value in signs.items() if value is not None)
    return Finding(
        name="flat-itc",
        grade="failing",
        says=f"Comparing images with texts is still a guess: {', '.join(flat)}, where chance is log {facts.pairs} = "
        f"{chance:.3f} and {least:.3f} is the least{beside}.",
        do="Look whether captions and images still belong together, whether the connector is named in `train`, and try "
        "a higher or lower peak rate. Cosines near 1: all images or all texts look alike to it, so look at the "
        "features. A batch below 64 teaches little: raise it (micro_batch_size keeps memory small).",
    )


def _constant_itm(facts: Facts, history: History) -> Finding | None:
    loss, right, others = (history.late(name) for name in ("itm", "itm_right_matches", "itm_right_others"))
    majority = majority_loss(facts.true_share)
    if loss is None or loss < 0.95 * majority:
        return None
    if right is not None and others is not None and right + others > 1.15:
        return None
    said = "" if right is None or others is None else f"; {right:.0%} of true pairs and {others:.0%} of others right"
    return Finding(
        name="constant-itm",
        grade="failing",
        says=f"Every pair gets the same answer: {loss:.3f} nats, and one answer for all costs {majority:.3f}{said}.",
        do="Look whether the text is given together with the queries, and whether ITC learns: hard negatives are drawn "
        "by its similarities, so start with negatives='random' where ITC is flat. More steps help only if ITC falls.",
    )


def _blind_writing(facts: Facts, history: History) -> Finding | None:
    gain, loss = history.late("itg_image_gain"), history.late("itg")
    if gain is None or loss is None or gain > 0.005 * loss:
        return None
    return Finding(
        name="image-ignored",
        grade="suspect",
        says=f"Captions are written without looking: with another image a token costs only {gain:+.4f} of {loss:.2f} "
        f"nats more.",
        do="Look at the queries' cross-attention and at the features; captions that hardly differ show nothing.",
    )


def _temperature(facts: Facts, history: History) -> Finding | None:
    value = history.last("temperature")
    if value is None or 0.002 < value < 1.0:
        return None
    return Finding(
        name="temperature",
        grade="failing" if value <= 0 else "suspect",
        says=f"The temperature is {value:.4g}; runs that learn keep it between about 0.005 and 0.3.",
        do="Lower the peak rate of `connector.heads.temperature` (--optimizer.rates), or start from 0.07.",
    )


def _zero_loss(facts: Facts, history: History) -> Finding | None:
    loss, first = history.late("loss"), history.first("loss")
    if loss is None or first is None or first > 1e-3:
        return None
    return Finding(
        name="zero-loss",
        grade="failing",
        says=f"The loss was {first:.2g} from the first line on: nothing is asked of the model.",
        do="`isthmus check RECIPE` prints samples with the supervised tokens marked: the chat template and the label "
        "mask disagree, or the answer stands in the prompt.",
    )


def _image_ignored(facts: Facts, history: History) -> Finding | None:
    gains, errors = history.values("image_gain"), history.values("image_gain_error")
    late = range(len(gains))[-max(1, len(gains) // 2) :]
    loss = history.late("loss")
    if not gains or loss is None:
        return None
    gain = sum(gains[one] for one in late) / len(late)
    error = math.sqrt(sum(errors[one] ** 2 for one in late)) / len(late)
    if not gain + 2 * error < max(0.005, 0.02 * loss):
        return None
    return Finding(
        name="image-ignored",
        grade="failing",
        says=f"The image makes no difference: with other rows' images a token costs {gain:+.4f} (standard error "
        f"{error:.4f}) of {loss:.2f} nats more.",
        do="Look whether the visual tokens stand at the image places (`isthmus check RECIPE`), whether the connector "
        "is named in `train`, and try a higher rate for it. Where questions answer themselves, `isthmus evaluate RUN "
        "--control shuffled` says so.",
    )


def _exploding_norms(facts: Facts, history: History) -> Finding | None:
    visual, first, word = history.last("visual_norm"), history.first("visual_norm"), history.last("word_norm")
    if visual is None or first is None or not word or not first:
        return None
    ratio, growth = visual / word, visual / first
    if ratio < 1_000 and not (ratio > 100 and growth > 10):
        return None
    return Finding(
        name="exploding-norms",
        grade="failing",
        says=f"Visual tokens have a median norm of {visual:.3g}, {ratio:.0f} times that of the embedding table "
        f"({word:.3g}), and {growth:.1f} times their own at first.",
        do="Lower the connector's rate, clip the gradients (--optimizer.clip-norm 1), give it weight decay, or end it "
        "with a norm.",
    )


def _identical_tokens(facts: Facts, history: History) -> Finding | None:
    cosine, rank = history.late("visual_cosine"), history.late("visual_rank")
    if cosine is None or rank is None or (cosine < 0.9995 and rank > 1.01):
        return None
    return Finding(
        name="identical-queries",
        grade="failing",
        says=f"All visual tokens of an image are alike: mean cosine {cosine:.4f}, effective rank {rank:.2f}.",
        do="A connector with queries must start them from different values, N(0, 0.02), or from a first stage.",
    )


def _not_learning(facts: Facts, history: History) -> Finding | None:
    name = "itg" if facts.aligns else "loss"
    late, first = history.late(name), history.first(name)
    if late is None or first is None or first <= 1e-3 or late < 0.99 * first:
        return None
    return Finding(
        name="not-falling",
        grade="suspect",
        says=f"`{name}` was {first:.3f} at first and is {late:.3f} lately.",
        do="Try a higher peak rate, and look at the gradient norms by part in the log: a part at 0 gets no gradient.",
    )


Check = Callable[[Facts, History], Finding | None]
_ALIGNING: tuple[Check, ...] = (
    _identical_queries,
    _text_ignored,
    _temperature,
    _flat_itc,
    _constant_itm,
    _blind_writing,
    _not_learning,
)
_ANSWERING: tuple[Check, ...] = (_zero_loss, _identical_tokens, _exploding_norms, _image_ignored, _not_learning)
