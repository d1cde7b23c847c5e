"""What one image and its prompt cost: tokens, parameters, FLOPs and KV bytes, from the config alone, as exact integers.

One multiply-add is 2 FLOPs; matrix products, convolutions and attention products are counted, as torch's own counter
does. Checked against: `torch.utils.flop_counter` and published parameter counts (tests/measure).
"""

from dataclasses import dataclass, replace

from isthmus.branches import Branch
from isthmus.features import BranchName, LLMShape
from isthmus.llms import LLMConfig
from isthmus.measure.known import offline
from isthmus.measure.parameters import Count, check_paths, named_parts
from isthmus.model import Model

PARTS = ("encoder", "connector", "arrange", "llm")


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """One part of the model: all its parameters, those that learn, and the FLOPs of its forward pass."""

    parameters: int
    learned: int
    flops: int
    """For one image (all its views) and, in the language model, its prompt; attention computed densely."""
    adapters: int = 0
    """Parameters of its adapters (LoRA), which `parameters` includes; where there are some, they alone learn."""

    @property
    def frozen(self) -> int:
        """Parameters that do not learn."""
        return self.parameters - self.learned


@dataclass(frozen=True, kw_only=True)
class BranchCost:
    """A branch for video or audio, and one view through it: a clip, or a run of windows."""

    name: BranchName
    tokens: int
    """Positions that one view takes in the prompt."""
    encoder: PartCost
    connector: PartCost
    arrange: PartCost

    @property
    def parts(self) -> dict[str, PartCost]:
        """Its parts by name."""
        return {"encoder": self.encoder, "connector": self.connector, "arrange": self.arrange}

    @property
    def parameters(self) -> int:
        """Of encoder, connector and arrangement."""
        return sum(part.parameters for part in self.parts.values())

    @property
    def learned(self) -> int:
        """Parameters that learn."""
        return sum(part.learned for part in self.parts.values())

    @property
    def flops(self) -> int:
        """Of encoder, connector and arrangement for one view."""
        return sum(part.flops for part in self.parts.values())


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
        a gradient), a frozen part before all of them one; none for an encoder whose features are kept. A part whose
        adapters learn costs two: the gradient of their own matrices is left out.
        """
        total, learning = 0, False
        for name, part in self.parts.items():
            learning = learning or part.learned > 0
            passes = 1 + learning + (part.learned > 0 and not part.adapters)
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
    named = named_parts(known)
    check_paths(named, train)
    counts = {name: part.count(train) for name, part in named.items()}
    flops = {
        "encoder": views * encoder.flops(),
        "connector": views * known.connector.flops(source, target)
        + known.connector.layer_flops(source, target, views=views, positions=total),
        "arrange": known.arrange.flops(known.place([plan])[0], known.connector.num_tokens(source.grid), target),
        "llm": llm.flops(total),
    }
    parts = {name: part_cost(counts[name], flops[name]) for name in PARTS}
    return Cost(
        image=size,
        views=views,
        visual_tokens=visual,
        text_tokens=text_tokens,
        llm_causal_flops=causal_flops(llm, total),
        llm_visual_flops=llm.flops(total) - llm.flops(text_tokens),
        head_flops=_head_flops(llm),
        kv_bytes=llm.kv_bytes(total),
        branches=tuple(_branch_cost(name, branch, target, counts) for name, branch in known.branches.items()),
        **parts,
    )


def part_cost(count: Count, flops: int) -> PartCost:
    """What is counted of a part."""
    return PartCost(parameters=count.parameters, learned=count.learned, flops=flops, adapters=count.adapters)


def _branch_cost(name: BranchName, branch: Branch, target: LLMShape, counts: dict[str, Count]) -> BranchCost:
    source = branch.encoder.shape()
    placed, each = (
        replace(branch.encoder.plan((1, 1)), tokens=branch.token_grid()),
        branch.connector.num_tokens(source.grid),
    )
    flops = {
        "encoder": branch.encoder.flops(),
        "connector": branch.connector.flops(source, target),
        "arrange": branch.arrange.flops(placed, each, target),
    }
    parts = {part: part_cost(counts[f"{name}.{part}"], one) for part, one in flops.items()}
    return BranchCost(name=name, tokens=branch.arrange.num_tokens(placed, each), **parts)


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
