"""The study as a table in a terminal, with the verdict under it."""

import math

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from isthmus.compare.judge import headline_words
from isthmus.compare.results import ArmCost, Results
from isthmus.compare.significance import Interval
from isthmus.compare.verdict import Verdict, points

NONE = "–"
"""What an arm without a language model has in the columns of one."""


def short_count(value: float | int) -> str:
    """1,234,567 as `1.23M`; below a thousand as it is."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def short_bytes(value: float | int) -> str:
    """Bytes in KiB, MiB or GiB."""
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def short_seconds(value: float | int) -> str:
    """`45 s`, `3.2 min` or `1.5 h`."""
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 5_400 else f"{value / 3600:.1f} h"


def with_half(accuracy: Interval) -> str:
    """`61.2 ±1.3`, in points; the mean alone for one seed."""
    half = "" if math.isinf(accuracy.high) else f" ±{points(accuracy.half)}"
    return f"{points(accuracy.mean)}{half}"


def standing(verdict: Verdict, arm: str) -> str:
    """An arm's place in a few words: best, worse, not separable, not converged."""
    best = verdict.arms[0]
    if arm == best.arm:
        return "highest" if best.converged else "highest, not converged"
    word = next((pair.word for pair in verdict.comparisons if (pair.left, pair.right) == (best.arm, arm)), None)
    return {
        None: "no common seed",
        "better": "worse",
        "worse": "better",
        "not separable": "not separable",
        "within the margin": "within the margin",
        "not converged": "not converged",
    }[word]


COLUMNS = (
    "arm",
    "accuracy %",
    "against the best",
    "verdict",
    "trained",
    "tokens",
    "connector FLOPs",
    "LLM FLOPs",
    "KV cache",
    "first token",
    "training",
    "rate",
)
"""What `rows` holds. "trained" counts parameters that learn; "training" is core time a run."""


def rows(results: Results, verdict: Verdict) -> list[list[str]]:
    """One row of text an arm, best first, then the text-only arm; under `COLUMNS`."""
    made = []
    for judged in verdict.arms:
        pair = next((p for p in verdict.comparisons if (p.left, p.right) == (verdict.arms[0].arm, judged.arm)), None)
        behind = "" if pair is None else _against(pair.difference)
        made.append(
            [
                judged.arm,
                with_half(judged.accuracy),
                behind,
                standing(verdict, judged.arm),
                *_costs(results, judged.arm),
            ]
        )
    if results.blind_arm is not None:
        blind = results.accuracy(results.blind_arm, results.headline, "text-only")
        if blind:
            mean = points(sum(blind.values()) / len(blind))
            made.append([results.blind_arm, mean, "", "blind control", *_costs(results, results.blind_arm)])
    return made


def _against(difference: Interval) -> str:
    if math.isinf(difference.low):
        return points(-difference.mean, True)
    return f"{points(-difference.mean, True)} [{points(-difference.high, True)}, {points(-difference.low, True)}]"


def _costs(results: Results, arm: str) -> list[str]:
    finals = list(results.finals(arm).values())
    cost: ArmCost | None = results.costs.get(arm)
    times = [job.first_token_ms for job in finals if job.first_token_ms is not None]
    seconds = sum(job.train_core_seconds + job.before_core_seconds for job in finals) / max(1, len(finals))
    rate = results.rate(arm)
    static = ["", "", "", "", ""]
    if cost is not None:
        static = [
            short_count(cost.trained_parameters),
            str(cost.visual_tokens),
            short_count(cost.connector_flops),
            NONE if cost.prefill_flops is None else short_count(cost.prefill_flops),
            NONE if cost.kv_bytes is None else short_bytes(cost.kv_bytes),
        ]
    return [
        *static,
        f"{sorted(times)[len(times) // 2]:.0f} ms" if times else NONE,
        short_seconds(seconds),
        f"{rate:g}" if rate is not None else "",
    ]


def _drawn(title: str, lines: list[list[str]], columns: tuple[int, ...]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1, 0, 0)
    for place in columns:
        table.add_column(
            COLUMNS[place].replace(" ", "\n"), justify="left" if COLUMNS[place] in ("arm", "verdict") else "right"
        )
    for line in lines:
        table.add_row(*(Text(line[place], no_wrap=True) for place in columns))
    return table


def terminal_table(results: Results, verdict: Verdict) -> RenderableType:
    """Accuracy, costs, the verdict and its caveats, for a rich console of 80 columns or more."""
    lines = rows(results, verdict)
    accuracy = _drawn(f"{results.name}: {headline_words(results)}", lines, (0, 1, 2, 3, 5))
    costs = _drawn("What each costs", lines, (0, 4, 6, 7, 8, 9, 10, 11))
    said = [Text(line) for line in verdict.lines]
    beside = [Padding(Text(f"- {line}", style="dim"), (0, 0, 0, 2)) for line in verdict.caveats]
    return Group(
        accuracy, "", costs, "", Text("Verdict", style="bold"), *said, "", Text("Caveats", style="bold"), *beside
    )


def print_table(results: Results, verdict: Verdict, console: Console) -> None:
    """Print the study to a console."""
    console.print(terminal_table(results, verdict))
