"""Forward and backward of every connector against its reference with equal weights: time, and peak memory.

    OMP_NUM_THREADS=1 python -m benchmarks.connectors                # paper size, float32, CPU
    python -m benchmarks.connectors --device cuda --dtype bfloat16 q-former c-abstractor
    python -m benchmarks.connectors --tiny --rounds 3                # a look, seconds

Three arms take turns in every round, in changing order: the connector, the reference and the reference once more. Times
are medians over the rounds. "itself" is the 95% interval (bootstrap over rounds) of the second reference's median over
the first's: what no difference looks like. A connector is slower when its ratio lies above that interval. Memory is the
most that one forward and backward pass holds above the weights: resident memory of a process of its own on a CPU.
"""

import argparse
import json
import multiprocessing
import random
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks import peaks
from benchmarks.references import make_reference
from benchmarks.references.cases import UNTIMED, Case, make_case, make_inputs
from isthmus.connectors import CONNECTORS, Connector
from isthmus.features import Features, Text

Arm = tuple[nn.Module, Callable[[], Tensor]]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CLOSE = {"float32": (1e-3, 1e-3), "bfloat16": (0.2, 0.2)}


def arms(case: Case, args: argparse.Namespace) -> dict[str, Arm]:
    """The connector and its reference with the same weights, ready to call."""
    dtype = DTYPES[args.dtype]
    torch.manual_seed(0)
    connector = case.config.build(case.source, case.target).to(args.device, dtype).eval()
    features, text = make_inputs(case, batch=args.batch, device=args.device, dtype=dtype)
    made: dict[str, Arm] = {"ours": (connector, partial(_answer, connector, features, text))}
    reference = make_reference(case.config, case.source, case.target, attention=args.attention)
    if reference is not None:
        reference.module.to(args.device, dtype).eval()
        reference.take_weights(connector)
        made["reference"] = (reference.module, partial(reference, features, text))
    return made


def _answer(connector: Connector, features: Features, text: Text | None) -> Tensor:
    tokens: Tensor = (connector(features) if text is None else connector(features, text)).tokens
    return tokens


def passes(arm: Arm, device: str) -> tuple[float, float]:
    """Seconds of a forward pass, and of forward and backward."""
    module, call = arm
    module.zero_grad(set_to_none=True)
    begun = now(device)
    answer = call()
    half = now(device)
    answer.float().square().mean().backward()
    whole = now(device)
    module.zero_grad(set_to_none=True)
    return half - begun, whole - begun


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Medians, ratios and the interval of the reference against itself."""
    case = make_case(name, tiny=args.tiny)
    made = arms(case, args)
    told: dict[str, Any] = {"parameters": case.config.parameters(case.source, case.target)}
    told["tokens"] = case.config.num_tokens(case.source.grid)
    if case.cut is not None:
        told["cut"] = case.cut
    if "reference" in made:
        atol, rtol = CLOSE[args.dtype]
        with torch.no_grad():
            given, wanted = made["ours"][1](), made["reference"][1]()
        if bool(wanted.isfinite().all()):
            torch.testing.assert_close(given, wanted, atol=atol, rtol=rtol, msg=lambda text: f"{name}: {text}")
            made["again"] = made["reference"]
        else:
            told["alone"] = f"its reference gives numbers that are not finite in {args.dtype}"
            del made["reference"]
    times: dict[str, list[tuple[float, float]]] = {arm: [] for arm in made}
    order = random.Random(0)
    for number in range(args.warm + args.rounds):
        for arm in order.sample(sorted(made), len(made)):
            seconds = passes(made[arm], args.device)
            if number >= args.warm:
                times[arm].append(seconds)
    for place, part in enumerate(("forward", "both")):
        mine = [seconds[place] for seconds in times["ours"]]
        told[part] = {"ours_ms": 1e3 * statistics.median(mine)}
        if "reference" in times:
            first, second = ([seconds[place] for seconds in times[arm]] for arm in ("reference", "again"))
            low, high = interval(first, second)
            told[part] |= {
                "reference_ms": 1e3 * statistics.median(first),
                "ratio": statistics.median(mine) / statistics.median(first + second),
                "itself": (low, high),
            }
    return told


def interval(first: list[float], second: list[float]) -> tuple[float, float]:
    """95% of the ratios of medians when rounds are drawn again, always holding 1."""
    order = random.Random(1)
    drawn = sorted(
        statistics.median(order.choices(second, k=len(second))) / statistics.median(order.choices(first, k=len(first)))
        for _ in range(1_000)
    )
    return min(drawn[25], 1.0), max(drawn[974], 1.0)


def peak_mib(name: str, which: str, args: argparse.Namespace) -> float | None:
    """MiB that one forward and backward pass holds above the weights; `None` where it cannot be told."""
    made = arms(make_case(name, tiny=args.tiny), args)
    if which not in made:
        return None
    arm = made.pop(which)
    made.clear()
    if args.device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        passes(arm, args.device)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not Path("/proc/self/clear_refs").exists():
        return None
    before = peaks.forget_peak()
    passes(arm, args.device)
    return peaks.peak_mib() - before


def _apart(work: Callable[..., Any], name: str, *given: Any) -> Any:
    """The answer of `work` in a process of its own, so that no module's memory is left for the next.

    On a CPU that process is a fork, which need not import everything again; CUDA cannot be used after a fork.
    """
    context = multiprocessing.get_context("fork" if given[-1].device == "cpu" else "spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, work, (name, *given)))
    process.start()
    there.close()
    try:
        told = here.recv()
    except EOFError:
        raise SystemExit(f"{name}: its process ended without an answer; out of memory, perhaps.") from None
    process.join()
    return told


def _send(there: Connection, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    there.send(work(*given))


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    if name in UNTIMED:
        return {"name": name, "left_out": UNTIMED[name]}
    case = make_case(name, tiny=args.tiny)
    try:
        with torch.device("meta"):
            case.config.build(case.source, case.target)
    except ValueError as error:
        return {"name": name, "left_out": f"not for these features: {error}"}
    parameters = case.config.parameters(case.source, case.target)
    if parameters > args.max_parameters:
        return {"name": name, "left_out": f"{parameters:,} parameters; see --max-parameters"}
    told: dict[str, Any] = {"name": name, **_apart(timed, name, args)}
    told["reference"] = _told(case, args) if "alone" not in told else "none"
    told["peak_mib"] = {which: _apart(peak_mib, name, which, args) for which in ("ours", "reference")}
    return told


def _told(case: Case, args: argparse.Namespace) -> str:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = make_reference(case.config, case.source, case.target, attention=args.attention)
    return "none" if reference is None else reference.told


def verdict(part: dict[str, Any]) -> str:
    """What the ratio says against the interval of the reference with itself."""
    if "ratio" not in part:
        return "-"
    low, high = part["itself"]
    return "faster" if part["ratio"] < low else "slower" if part["ratio"] > high else "as fast"


def show(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Print the table."""
    table = Table(title=f"{args.device}, {args.dtype}, batch {args.batch}, {torch.get_num_threads()} threads")
    heads = "connector|reference|tokens|forward ms|ref ms|ratio|itself|both ms|ref ms|ratio|itself|verdict|MiB|ref MiB"
    for number, head in enumerate(heads.split("|")):
        table.add_column(head, justify="left" if number < 2 else "right", no_wrap=True)
    for row in rows:
        if "left_out" in row:
            continue
        name = f"{row['name']}, {row['cut']}" if "cut" in row else row["name"]
        cells = [name, row["reference"], str(row["tokens"])]
        for part in (row["forward"], row["both"]):
            cells.append(f"{part['ours_ms']:.1f}")
            if "ratio" in part:
                low, high = part["itself"]
                cells += [f"{part['reference_ms']:.1f}", f"{part['ratio']:.2f}", f"{low:.2f}-{high:.2f}"]
            else:
                cells += ["-", "-", "-"]
        peaks = [row["peak_mib"][which] for which in ("ours", "reference")]
        table.add_row(*cells, verdict(row["both"]), *("-" if peak is None else f"{peak:.0f}" for peak in peaks))
    Console(width=220).print(table)
    for row in rows:
        if "left_out" in row:
            print(f"{row['name']}: left out, {row['left_out']}")
        if "alone" in row:
            print(f"{row['name']}: timed alone, {row['alone']}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CONNECTORS), help="connectors; all of them by default")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--warm", type=int, default=2, help="rounds before those that count")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="of the transformers classes")
    parser.add_argument("--max-parameters", type=int, default=1_000_000_000, help="larger connectors are left out")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: shows that it runs, says nothing of speed")
    parser.add_argument("--json", type=Path, help="also write the rows here, one a line")
    return parser.parse_args()


def main() -> None:
    """Measure the named connectors and print the table."""
    args = parse()
    unknown = [name for name in args.names if name not in CONNECTORS]
    if unknown:
        raise SystemExit(f"No connector {unknown[0]!r}. There are: {', '.join(CONNECTORS)}.")
    rows = []
    for name in args.names:
        rows.append(measure(name, args))
        if args.json is not None:
            with args.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    show(rows, args)


if __name__ == "__main__":
    main()
