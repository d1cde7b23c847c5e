"""What one image and its prompt cost: tokens, parameters, FLOPs and KV bytes, from the config alone, as exact integers.

One multiply-add is 2 FLOPs; matrix products, convolutions and attention products are counted, as torch's own counter
does. Checked against: `torch.utils.flop_counter` and published parameter counts (tests/measure).
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from isthmus.branches import Branch
from isthmus.config import did_you_mean
from isthmus.features import LLMShape
from isthmus.llms import LLMConfig
from isthmus.measure.known import offline
from isthmus.model import Model

PARTS = ("encoder", "connector", "arrange", "llm")


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """One part of the model: all its parameters, those that learn, and the FLOPs of its forward pass."""

    parameters: int
    learned: int
    flops: int
    """For one image (all its views) and, in the language model, its prompt; attention computed densely."""

    @property
    def frozen(self) -> int:
        """Parameters that do not learn."""
        return self.parameters - self.learned


@dataclass(frozen=True, kw_only=True)
class BranchCost:
    """A branch for video or audio, and one view through it: a clip, or a run of windows."""

    name: str
    tokens: int
    """Positions that one view takes in the prompt."""
    parameters: int
    learned: int
    flops: int
    """Of encoder, connector and arrangement for one view."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one image with `text_tokens` of text. FLOPs are those of reading the prompt, before any new token."""

    image: tuple[int, int]
    """Width and height in pixels."""
    views: int
    visual_tokens: int
    text_tokens: int
    encoder: PartCost
    connector: PartCost
    arrange: PartCost
    llm: PartCost
    llm_causal_flops: int
    """What the language model needs when its attention skips the positions that a causal mask hides."""
    llm_visual_flops: int
    """The language model's dense FLOPs with the image less those without: what the visual tokens add."""
    head_flops: int
    """One position's logits; paid for every new token, and in training for every supervised one."""
    kv_bytes: int
    """Keys and values of visual and text tokens, in the language model's precision."""
    branches: tuple["BranchCost", ...] = ()
    """What sees clips and hears sounds; their parameters count, their inputs are not in the other numbers."""

    @property
    def parts(self) -> dict[str, PartCost]:
        """The parts by name, in the order of the path."""
        return {name: getattr(self, name) for name in PARTS}

    @property
    def parameters(self) -> int:
        """Parameters of all parts."""
        branches = sum(branch.parameters for branch in self.branches)
        return branches + sum(part.parameters for part in self.parts.values())

    @property
    def learned(self) -> int:
        """Parameters that learn."""
        branches = sum(branch.learned for branch in self.branches)
        return branches + sum(part.learned for part in self.parts.values())

    @property
    def prefill_flops(self) -> int:
        """FLOPs to the first token without its logits: encoder, connector and language model, dense attention."""
        return sum(part.flops for part in self.parts.values())

    def training_flops(self, *, cached_features: bool = False) -> int:
        """FLOPs of one training step on one such sample: forward, and backward as far as something learns.

        A part that learns costs three forward passes, a frozen part behind one that learns two (its activations need
        a gradient), a frozen part before all of them one; none for an encoder whose features are kept.
        """
        total, learning = 0, False
        for name, part in self.parts.items():
            learning = learning or part.learned > 0
            passes = 1 + learning + (part.learned > 0)
            if name == "encoder" and cached_features and not part.learned:
                passes = 0
            total += passes * part.flops
        return total


def cost(
    model: Model,
    *,
    train: tuple[str, ...] = ("connector",),
    image: tuple[int, int] | None = None,
    text_tokens: int = 64,
) -> Cost:
    """The cost of `model` on an image of this size, reading no weights.

    `image` is (width, height) in pixels; None means a square of the encoder's own side. `train` names what learns by
    dotted paths, as a stage does.

    Raises:
        ValueError: the parts do not fit each other, a path in `train` fits no parameter, or a config cannot be read.
    """
    known = offline(model)
    source, target, encoder, llm = known.source(), known.target(), known.encoder, known.llm
    known.check()
    assert llm is not None, "target() has refused a model without a language model"
    size = image or (getattr(encoder, "image_size", 224),) * 2
    if min(size) < 1 or text_tokens < 0:
        raise ValueError(f"There is no image of {size[0]} x {size[1]} px with {text_tokens} text tokens.")
    plan = encoder.plan(size)
    visual, views = known.num_visual_tokens(plan), len(plan.views)
    total = visual + text_tokens
    own = tuple(path for path in train if path.partition(".")[0] not in known.branches)
    counts = dict.fromkeys(PARTS, (0, 0)) | _counts(known, own)
    flops = {
        "encoder": views * encoder.flops(),
        "connector": views * known.connector.flops(source, target)
        + known.connector.layer_flops(source, target, views=views, positions=total),
        "arrange": known.arrange.flops(known.place([plan])[0], known.connector.num_tokens(source.grid), target),
        "llm": llm.flops(total),
    }
    parts = {name: PartCost(parameters=counts[name][0], learned=counts[name][1], flops=flops[name]) for name in PARTS}
    return Cost(
        image=size,
        views=views,
        visual_tokens=visual,
        text_tokens=text_tokens,
        llm_causal_flops=causal_flops(llm, total),
        llm_visual_flops=llm.flops(total) - llm.flops(text_tokens),
        head_flops=_head_flops(llm),
        kv_bytes=llm.kv_bytes(total),
        branches=tuple(_branch_cost(name, branch, target, train) for name, branch in known.branches.items()),
        **parts,
    )


def _branch_cost(name: str, branch: Branch, target: LLMShape, train: tuple[str, ...]) -> BranchCost:
    source = branch.encoder.shape()
    with torch.device("meta"):
        modules = {"connector": branch.connector.build(source, target), "arrange": branch.arrange.build(target)}
    counts = {f"{name}.encoder": branch.encoder.parameters()}
    for part, module in modules.items():
        counts |= _named(module, f"{name}.{part}.")
    paths = [path for path in train if path.partition(".")[0] == name]
    learned: set[str] = set()
    for path in paths:
        fitting = {one for one in counts if one == path or one.startswith(f"{path}.")}
        if not fitting:
            raise ValueError(f"No parameter is called {path!r}.{did_you_mean(path, counts)}")
        learned |= fitting
    plan = branch.encoder.plan((1, 1))
    placed = replace(plan, tokens=branch.token_grid())
    arranging = branch.arrange.flops(placed, branch.connector.num_tokens(source.grid), target)
    return BranchCost(
        name=name,
        tokens=branch.arrange.num_tokens(placed, branch.connector.num_tokens(source.grid)),
        parameters=sum(counts.values()),
        learned=sum(counts[one] for one in learned),
        flops=branch.encoder.flops() + branch.connector.flops(source, target) + arranging,
    )


def causal_flops(llm: LLMConfig, num_tokens: int) -> int:
    """The dense prefill less the attention products that a causal mask hides.

    The dense form is a T T + b T, where a T T is attention. A causal kernel needs T (T + 1) / 2 of its T T pairs. The
    encoder of an encoder-decoder hides nothing.
    """
    dense = llm.flops(num_tokens)
    if llm.kind != "causal":
        return dense
    pair = (llm.flops(2) - 2 * llm.flops(1)) // 2
    return dense - pair * (num_tokens * (num_tokens - 1) // 2)


def _head_flops(llm: LLMConfig) -> int:
    head = llm.skeleton().get_output_embeddings()  # type: ignore[operator]
    weight = head.weight
    return 2 * int(weight.numel())


def _counts(model: Model, train: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Parameters of each part, all and learned. Paths inside a part are matched against its parameters by name."""
    assert model.llm is not None
    source, target = model.source(), model.target()
    with torch.device("meta"):
        modules: dict[str, nn.Module] = {
            "connector": model.connector.build(source, target),
            "arrange": model.arrange.build(target),
        }
    names = {part: _named(module, f"{part}.") for part, module in modules.items()}
    names["llm"] = _named(model.llm.skeleton(), "llm.model.")
    learned = dict.fromkeys(PARTS, 0)
    whole_encoder = model.encoder.parameters()
    for path in train:
        part = path.split(".")[0]
        fitting = [name for name in names.get(part, {}) if name == path or name.startswith(f"{path}.")]
        if path == "encoder":
            learned["encoder"] = whole_encoder
        elif part == "encoder":
            raise ValueError(f"A cost counts the encoder as a whole: name 'encoder' in train, not {path!r}.")
        elif not fitting:
            every = [*PARTS, *(name for part in names.values() for name in part)]
            raise ValueError(f"No parameter is called {path!r}.{did_you_mean(path, every)}")
        else:
            learned[part] += sum(names[part].pop(name) for name in fitting)
    all_counts = {part: sum(weights.values()) + learned[part] for part, weights in names.items()}
    return {part: (all_counts.get(part, whole_encoder), learned[part]) for part in ("encoder", *names)}


def _named(module: nn.Module, prefix: str) -> dict[str, int]:
    return {prefix + name: parameter.numel() for name, parameter in module.named_parameters()}
