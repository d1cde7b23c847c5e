"""Reads the oracle files: numbers of public implementations at tiny sizes (see oracles/data/README.md).

A test asks for its files by form: `oracles("open_flamingo_perceiver")` gives every file of that name or of that name
with a suffix, whatever its sizes and seeds. `ISTHMUS_ORACLES=FOLDER` puts another folder of the same form in place of
the repository's copy. Every tensor that is neither a weight nor an input has to be compared, or to be exempt for a
reason: leaving the `with oracle:` block fails otherwise.
"""

import json
import os
import re
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

OWN = Path(__file__).parent / "oracles" / "data"
FOLDER = Path(os.environ.get("ISTHMUS_ORACLES", OWN))
FORMS = (
    "blip2_stage1",
    "blip2_stage1_image_id",
    "blip2_stage1_two_ranks",
    "blip2_stage2_opt",
    "blip2_stage2_t5",
    "deco_avgpool",
    "deepstack_forward",
    "deepstack_forward_anyres",
    "deepstack_grouping",
    "granite4_vision_deepstack",
    "granite4_vision_model",
    "granite4_vision_projector",
    "honeybee_cabstractor",
    "honeybee_dabstractor",
    "honeybee_mlp",
    "honeybee_resampler",
    "idefics2_perceiver",
    "instructblip_t5",
    "instructblip_vicuna",
    "internvl_g_features",
    "internvl_g_retrieval",
    "internvl_g_stage2",
    "internvl_g_stage2_two_ranks",
    "internvl_pixel_shuffle",
    "internvl_tiles",
    "internvl_tiles_pixels",
    "llava_anyres_pixels",
    "llava_anyres_tables",
    "llava_expand2square",
    "llava_feature_select",
    "llava_next_layout",
    "llava_onevision_layout",
    "llava_onevision_tables",
    "llava_onevision_video_pool",
    "llava_projector_identity",
    "llava_projector_linear",
    "llava_projector_mlp2x_gelu",
    "metric_anls_relaxed",
    "metric_captions",
    "metric_pope_gqa",
    "metric_vqa",
    "mobilevlm_ldp",
    "mobilevlm_ldpv2",
    "mqt_resampler",
    "open_flamingo_gated_xattn",
    "open_flamingo_perceiver",
    "pos_embed_interpolation",
    "qwen3vl_deepstack",
    "qwen3vl_merger_deepstack",
    "qwen3vl_merger_main",
    "qwen_vl_resampler",
    "tokenpacker",
    "tokenpacker_hd_tiles",
    "video_llama",
)
"""Every form; a file belongs to the longest one that its name is or begins with."""
DEPTH = re.compile(r"(?<=^llava_projector_mlp)\d+(?=x_gelu)")
"""The number that may be another in a file of the same form."""


def form_of(name: str) -> str | None:
    """The form of a file without its ending, None for a file of no known form."""
    plain = DEPTH.sub("2", name)
    fitting = [form for form in FORMS if plain == form or plain.startswith(f"{form}_")]
    return max(fitting, key=len, default=None)


class Oracle:
    """One file: its weights and inputs, what its `.json` says, and the count of what was compared.

    Use it as `with oracle:`; the block fails at its end when a tensor was neither compared nor exempt.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.name = name
        folder = FOLDER if folder is None else folder
        self.info: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        stored = folder / f"{name}.safetensors"
        self.tensors: dict[str, Tensor] = load_file(stored) if stored.exists() else {}
        self.config: dict[str, Any] = self.info.get("config", {})
        self.compared: set[str] = set()
        self.given: set[str] = {
            key for key in self.tensors if "weights" in key.split("/") or "inputs" in key.split("/")
        }
        self.exempted: dict[str, str] = {}

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below a prefix such as "weights/" or "case0/inputs/", named without it."""
        return part(self.tensors, prefix)

    def give(self, key: str) -> Tensor:
        """A tensor that is an input although it does not stand under `inputs/`."""
        self.given.add(key)
        return self.tensors[key]

    def check(self, key: str, got: Tensor | None, *, atol: float = 1e-5, rtol: float | None = None) -> None:
        """Compare one tensor; gradients have the wider rtol of 1e-3 unless told. A missing key is skipped."""
        if key not in self.tensors:
            return
        assert got is not None, f"{self.name}: nothing came for {key}"
        wanted = self.tensors[key]
        if got.is_floating_point() and not wanted.is_floating_point():
            wanted = wanted.to(got.dtype)  # the other way round would cut off what is behind the point
        rtol = rtol if rtol is not None else 1e-3 if "grads" in key or "grads_attached" in key else 1e-4
        torch.testing.assert_close(
            got.detach().to(wanted.dtype),
            wanted,
            atol=atol,
            rtol=rtol,
            msg=lambda told: f"{self.name}, {key}: {told}",
        )
        self.compared.add(key)

    def check_all(self, prefix: str, got: Callable[[str], Tensor | None]) -> None:
        """Compare every tensor below a prefix with what `got` says for the name after it."""
        for key in self.tensors:
            if key.startswith(prefix):
                self.check(key, got(key.removeprefix(prefix)))

    def check_gradients(self, gradients: dict[str, Tensor | None], prefix: str = "grads/") -> None:
        """Compare every gradient below a prefix; `gradients` is under the official names (map ours back first)."""
        self.check_all(prefix, gradients.get)

    def exempt(self, key: str, reason: str) -> None:
        """Leave a tensor out, for a reason that the summary prints."""
        if key in self.tensors:
            self.exempted[key] = reason

    def missing(self) -> list[str]:
        """Tensors neither given, nor compared, nor exempt."""
        return sorted(set(self.tensors) - self.given - self.compared - set(self.exempted))

    def __enter__(self) -> "Oracle":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            assert self.compared, f"{self.name}: nothing was compared"
            assert not self.missing(), f"{self.name}: not compared: {', '.join(self.missing())}"
            TALLY[self.name] = (len(self.compared), dict(self.exempted))

    def __repr__(self) -> str:
        return self.name


TALLY: dict[str, tuple[int, dict[str, str]]] = {}
"""Per file that passed: how many tensors were compared, and the exemptions; printed at the end of a run."""


def tabled(name: str, cases: int, exempted: dict[str, str] | None = None) -> None:
    """Count a table (a `.json` alone) whose cases all passed; a column may be left out for a reason."""
    TALLY[name] = (cases, exempted or {})


def same_row(found: dict[str, Any], row: dict[str, Any], *, given: Container[str]) -> None:
    """Compare what our code found with a row of a table; a column neither found nor given fails."""
    left = [key for key in row if key not in found and key not in given]
    assert not left, f"not compared: {', '.join(left)}"
    wanted = {key: row[key] for key in found if key in row}
    assert wanted, f"nothing of {row} was compared"
    assert {key: found[key] for key in wanted} == wanted, row


def oracle_names(form: str, folder: Path | None = None) -> list[str]:
    """The files of one form, in the folder's order."""
    held = (FOLDER if folder is None else folder).glob("*.json")
    return sorted({path.stem for path in held if form_of(path.stem) == form})


def summary() -> list[str]:
    """How much of the folder was compared, what of it was not, and what was left out for a reason."""
    held = {path.stem for path in FOLDER.glob("*.json")}
    tensors, exempt = sum(count for count, _ in TALLY.values()), sum(len(one) for _, one in TALLY.values())
    lines = [f"oracles: {len(TALLY)} of {len(held)} files, {tensors} tensors or cases compared, {exempt} exempt"]
    waiting = sorted(held - set(TALLY))
    if waiting:
        more = f" and {len(waiting) - 9} more" if len(waiting) > 9 else ""
        lines.append(f"  not compared in this run: {', '.join(waiting[:9])}{more}")
    exempted = [(name, *one) for name, (_, left) in sorted(TALLY.items()) for one in left.items()]
    return [*lines, *(f"  exempt: {name}, {key}: {reason}" for name, key, reason in exempted)]


def strays() -> list[str]:
    """What the folder holds that no test would open, each with the reason."""
    found = []
    for path in sorted(FOLDER.iterdir()):
        if path.suffix not in {".json", ".safetensors"}:
            continue
        if form_of(path.stem) is None:
            found.append(f"{path.name}: no test knows its form")
        elif not path.with_suffix(".json").exists():
            found.append(f"{path.name}: its .json is missing")
    return found


def oracles(form: str) -> pytest.MarkDecorator:
    """Parametrizes a test's argument `name` with every file of a form: build `Oracle(name)` in the test."""
    assert form in FORMS, f"{form!r} is not in FORMS"
    return pytest.mark.parametrize("name", oracle_names(form))


def oracle(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and what the json beside them says of the run."""
    return load_file(FOLDER / f"{name}.safetensors"), json.loads((FOLDER / f"{name}.json").read_text())["config"]


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, named without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
