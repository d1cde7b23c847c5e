"""The report's figures, drawn by matplotlib as SVG and given as data URIs, so that the page needs no other file."""

import base64
import io
import math
import textwrap
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from isthmus.compare.breakdown import Breakdown
from isthmus.compare.results import Results
from isthmus.compare.significance import Interval, interval
from isthmus.compare.table import short_count

PALETTE = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#dc2626", "#0891b2", "#ca8a04", "#db2777", "#4d7c0f", "#475569")
MARKERS = ("o", "s", "^", "D")
"""The shape of an arm's point: another one when the colours begin again."""
_TITLE = 26
"""Characters in a line of a small panel's title."""
BLIND = "#94a3b8"
INK, FAINT, RULE = "#1e293b", "#64748b", "#e2e8f0"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#cbd5e1",
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "svg.hashsalt": "isthmus",
}


def colours(arms: Sequence[str], blind_arm: str | None) -> dict[str, str]:
    """One colour an arm, the same in every figure; the blind arm is grey."""
    chosen = {arm: PALETTE[place % len(PALETTE)] for place, arm in enumerate(arms)}
    return chosen | ({blind_arm: BLIND} if blind_arm is not None else {})


def markers(arms: Sequence[str]) -> dict[str, str]:
    """The shape of each arm's point."""
    return {arm: MARKERS[place // len(PALETTE) % len(MARKERS)] for place, arm in enumerate(arms)}


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as the address of an image inside the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _drawn(figure: Figure) -> str:
    target = io.BytesIO()
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight", pad_inches=0.05)
    return data_uri(target.getvalue(), "image/svg+xml")


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [ax for row in axes for ax in row]


def accuracy_against_cost(results: Results) -> str:
    """Headline accuracy against visual tokens and against FLOPs; bars are 95 % intervals over seeds."""
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = _figure(9.2, 3.5, 1, 2)
        paint, shape = colours(results.arms, results.blind_arm), markers(results.arms)
        shown: list[tuple[str, Interval]] = []
        for arm in results.arms:
            values = list(results.accuracy(arm, results.headline).values())
            cost = results.costs.get(arm)
            if not values or cost is None:
                continue
            at = interval(values)
            shown.append((arm, at))
            for ax, x in ((left, cost.visual_tokens), (right, cost.flops)):
                _point(ax, x, at, values, paint[arm], shape[arm])
        labels = ("visual tokens an image", "FLOPs an image: connector and LLM prefill")
        if results.aligned:
            labels = ("queries an image", "FLOPs of the connector, an image and its caption")
        for ax, label in zip((left, right), labels, strict=True):
            ax.set_xlabel(label)
            ax.set_ylabel("accuracy, %")
            _blind_line(ax, results)
            ax.set_ylim(0, min(105.0, 12 + 100 * max((min(at.high, at.mean + 0.1) for _, at in shown), default=0.9)))
        _log_ticks(left, [results.costs[arm].visual_tokens for arm, _ in shown], str)
        _log_ticks(right, [results.costs[arm].flops for arm, _ in shown], short_count)
        handles = [Line2D([], [], marker=shape[arm], ls="", color=paint[arm], label=arm) for arm, _ in shown]
        figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=8.5)
        return _drawn(figure)


def _point(ax: Axes, x: float | int, at: Interval, values: Sequence[float], colour: str, marker: str) -> None:
    """One arm: its interval (where it is no wider than the axis), each seed, the mean on top."""
    if at.half < 0.5:
        ax.errorbar([x], [100 * at.mean], yerr=[100 * at.half], capsize=4, elinewidth=1.4, color=colour, zorder=2)
    ax.plot([x] * len(values), [100 * value for value in values], "_", ms=9, color=colour, alpha=0.55, zorder=2)
    ax.plot([x], [100 * at.mean], marker, ms=8, color=colour, mec="white", zorder=3)


def _blind_line(ax: Axes, results: Results) -> None:
    blind = results.accuracy(results.blind_arm, results.headline, "text-only") if results.blind_arm else {}
    if blind:
        level = 100 * fmean(blind.values())
        ax.axhline(level, color=BLIND, lw=1.2, ls="--", zorder=1)
        ax.annotate(
            "text-only arm", (1, level), xycoords=("axes fraction", "data"), xytext=(-2, 3),
            textcoords="offset points", ha="right", fontsize=8, color=FAINT,
        )  # fmt: skip


def _log_ticks(ax: Axes, values: Sequence[int], name: Callable[[int], str]) -> None:
    """A logarithmic axis whose ticks are round numbers from 1, 2 and 5, written out."""
    ax.set_xscale("log")
    if not values:
        return
    low, high = min(values) / 1.5, max(values) * 1.5
    ticks = [step * 10**power for power in range(16) for step in (1, 2, 5) if low <= step * 10**power <= high]
    ax.set_xticks(ticks, [name(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set_xlim(low, high)


def families(results: Results) -> str:
    """One panel a task: a bar for every arm, marks for what can be had without looking."""
    arms = [*results.arms, *([results.blind_arm] if results.blind_arm is not None else [])]
    columns = 4
    rows = max(1, math.ceil(len(results.tasks) / columns))
    with matplotlib.rc_context(STYLE):
        titles = [textwrap.fill(task.title, _TITLE) for task in results.tasks]
        lines = 1 + max((title.count("\n") for title in titles), default=0)
        figure, axes = _figure(9.2, 0.45 + rows * (0.48 + 0.14 * lines + 0.2 * len(arms)), rows, columns)
        paint = colours(results.arms, results.blind_arm)
        for place, (ax, task) in enumerate(zip(axes, results.tasks, strict=False)):
            ax.set_title(titles[place], fontsize=8.5)
            for y, arm in enumerate(arms):
                control = "text-only" if arm == results.blind_arm else "none"
                values = list(results.accuracy(arm, (task.name,), control).values())
                if not values:
                    continue
                at = interval(values)
                error = [100 * at.half if at.half < 0.5 else 0.0]
                ax.barh(
                    [y], [100 * at.mean], xerr=error, height=0.72, color=paint[arm], ecolor=INK,
                    error_kw={"elinewidth": 0.8, "capsize": 2},
                )  # fmt: skip
                ax.text(2, y, f"{100 * at.mean:.0f}", va="center", fontsize=7, color="white", fontweight="bold")
            for name, _, colour, dash in levels_of(results):
                ax.axvline(100 * getattr(task.levels, name), color=colour, ls=dash, lw=1.1)
            ax.set_xlim(0, 100)
            ax.set_yticks(range(len(arms)), arms if place % columns == 0 else [""] * len(arms), fontsize=7.5)
            ax.tick_params(length=0, labelsize=7.5)
            ax.invert_yaxis()
            ax.grid(axis="y", visible=False)
        for ax in axes[len(results.tasks) :]:
            ax.set_visible(False)
        handles = [Line2D([], [], color=colour, ls=dash, label=label) for _, label, colour, dash in levels_of(results)]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        return _drawn(figure)


def by_part(results: Results, breakdown: Breakdown) -> str:
    """Accuracy of every arm on the parts of one task, in their order; bars are 95 % intervals over seeds."""
    arms = [*results.arms, *([results.blind_arm] if results.blind_arm is not None else [])]
    with matplotlib.rc_context(STYLE):
        figure, (ax,) = _figure(6.4, 3.1)
        paint = colours(results.arms, results.blind_arm)
        shape = markers(arms)
        width = 0.5 / max(1, len(arms))
        for place, arm in enumerate(arms):
            parts = [values for part in range(len(breakdown.parts)) if (values := breakdown.of(arm, part))]
            if len(parts) < len(breakdown.parts):
                continue
            at = [interval(values) for values in parts]
            xs = [part + width * (place - (len(arms) - 1) / 2) for part in range(len(parts))]
            ax.errorbar(
                xs, [100 * one.mean for one in at], yerr=[100 * one.half if one.half < 0.5 else 0.0 for one in at],
                color=paint[arm], marker=shape[arm], ms=5, lw=1.2, elinewidth=1.0, capsize=2, label=arm,
            )  # fmt: skip
        ax.axhline(
            100 * results.task(breakdown.task).levels.highest, color=INK, ls=":", lw=1.1, label="without looking"
        )
        ax.set_xticks(range(len(breakdown.parts)), breakdown.parts)
        ax.set_xlabel(breakdown.by)
        ax.set_ylabel("accuracy, %")
        ax.set_ylim(0, 102)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
        return _drawn(figure)


_LEVELS = (
    ("chance", "chance", "#0f172a", ":"),
    ("majority", "majority class", "#0f172a", "--"),
    ("question_only", "question only", "#e11d48", "-"),
)


def levels_of(results: Results) -> tuple[tuple[str, str, str, str], ...]:
    """What can be had without looking: field, name, colour and dash; chance alone without a language model."""
    return _LEVELS[:1] if results.aligned else _LEVELS


def loss_curves(results: Results) -> str:
    """One panel an arm: training loss (smoothed) and validation loss, a line a seed."""
    arms = [arm for arm in (*results.arms, results.blind_arm) if arm is not None and results.finals(arm)]
    columns = min(5, max(1, len(arms)))
    rows = max(1, math.ceil(len(arms) / columns))
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(9.2, 0.3 + 1.9 * rows, rows, columns)
        paint = colours(results.arms, results.blind_arm)
        seen: list[float] = []
        for ax, arm in zip(axes, arms, strict=False):
            ax.set_title(arm, fontsize=8.5)
            for job in results.finals(arm).values():
                steps, losses = _smoothed(job.train_curve)
                seen += losses
                ax.plot(steps, losses, color=paint[arm], lw=1.0, alpha=0.75)
                if job.validation_curve:
                    held = list(zip(*job.validation_curve, strict=True))
                    ax.plot(held[0], held[1], "o-", ms=2.5, lw=0.8, color=INK, alpha=0.8)
                    seen += held[1]
            ax.tick_params(labelsize=7)
            ax.set_xlabel("step", fontsize=8)
        for place, ax in enumerate(axes):
            ax.set_visible(place < len(arms))
            if seen:
                ordered = sorted(seen)
                ax.set_ylim(0.9 * ordered[0], 1.1 * ordered[int(0.98 * (len(ordered) - 1))])
            if place % columns == 0:
                ax.set_ylabel("loss" if results.aligned else "loss, nats a token", fontsize=8)
        return _drawn(figure)


def _smoothed(curve: Sequence[tuple[int, float]], window: int = 5) -> tuple[list[int], list[float]]:
    steps = [step for step, _ in curve]
    losses = [loss for _, loss in curve]
    half = window // 2
    return steps, [fmean(losses[max(0, i - half) : i + half + 1]) for i in range(len(losses))]
