"""What a prompt of text, images, videos and sounds costs: tokens, parameters, FLOPs and KV bytes, from configs alone.

They are exact integers. One multiply-add is 2 FLOPs; matrix products, convolutions and attention products are counted,
as torch's own counter does. Checked against: `torch.utils.flop_counter` and published parameter counts (tests/measure).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from isthmus.branches import Branch
from isthmus.features import BranchName, LLMShape, Plan
from isthmus.llms import LLMConfig
from isthmus.measure.inputs import ONE_IMAGE, Inputs, input_plans
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
    """For all images of the prompt (each with all its views) and, in the language model, the prompt; attention computed
    densely."""
    adapters: int = 0
    """Parameters of its adapters (LoRA), which `parameters` includes; where there are some, they alone learn."""

    @property
    def frozen(self) -> int:
        """Parameters that do not learn."""
        return self.parameters - self.learned


@dataclass(frozen=True, kw_only=True)
class BranchCost:
    """A branch for video or audio: one view through it, a clip or a run of windows, and its inputs in the prompt."""

    name: BranchName
    tokens: int
    """Positions that one view takes in the prompt."""
    views: int
    """Of its inputs in the prompt."""
    visual_tokens: int
    """Positions that its inputs in the prompt take."""
    prompt_flops: int
    """Of encoder, connector and arrangement for its inputs in the prompt."""
    encoder: PartCost
    connector: PartCost
    arrange: PartCost

    @property
    def parts(self) -> dict[str, PartCost]:
        """Its parts by name."""
        return {"encoder": self.encoder, "connector": self.connector, "arrange": self.arrange}

    @property
    def seen(self) -> list[tuple[PartCost, int]]:
        """Its parts, each with its forward FLOPs for the inputs of the prompt."""
        arrange = self.prompt_flops - self.views * (self.encoder.flops + self.connector.flops)
        encoder, connector = ((part, self.views * part.flops) for part in (self.encoder, self.connector))
        return [encoder, connector, (self.arrange, arrange)]

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
    """The cost of a prompt. FLOPs are those of reading it, before any new token."""

    image: tuple[int, int]
    """Width and height in pixels of every picture."""
    inputs: Inputs
    """Pictures, videos and sounds in the prompt."""
    views: int
    """Of the image branch: of pictures, and of videos without a branch of their own."""
    visual_tokens: int
    """Positions of all inputs."""
    text_tokens: int
    encoder: PartCost
    connector: PartCost
    arrange: PartCost
    llm: PartCost
    llm_causal_flops: int
    """What the language model needs when its attention skips the positions that a causal mask hides."""
    llm_visual_flops: int
    """The language model's dense FLOPs with the inputs less those without: what the visual tokens add."""
    head_flops: int
    """One position's logits; paid for every new token, and in training for every supervised one."""
    kv_bytes: int
    """Keys and values of visual and text tokens, in the language model's precision."""
    branches: tuple["BranchCost", ...] = ()
    """What sees clips and hears sounds; where the prompt holds none, their parameters alone count."""

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
        """To the first token without its logits: encoder, connector, arrangement and language model, dense attention.

        views x (encoder + connector) + arrange, the same of the branches for their inputs, and llm over T = M + text.
        """
        branches = sum(branch.prompt_flops for branch in self.branches)
        return branches + sum(part.flops for part in self.parts.values())

    def training_flops(self, *, cached_features: bool = False) -> int:
        """FLOPs of one training step on one such prompt: forward, and backward as far as something learns.

        A part that learns costs three forward passes, a frozen part behind one that learns two (its activations need
        a gradient), a frozen part before all of them one; none for an encoder whose features are kept. A part whose
        adapters learn costs two: the gradient of their own matrices is left out.
        """
        own = [(part, part.flops) for name, part in self.parts.items() if name != "llm"]
        seen = [own] if self.views else []
        seen += [branch.seen for branch in self.branches if branch.views]
        total, learning = 0, False
        for (encoder, flops), *behind in seen:
            kept = cached_features and not encoder.learned
            spent, learns = _trained([(encoder, 0 if kept else flops), *behind], learning=False)
            total, learning = total + spent, learning or learns
        return total + _trained([(self.llm, self.llm.flops)], learning=learning)[0]


def _trained(parts: Sequence[tuple[PartCost, int]], *, learning: bool) -> tuple[int, bool]:
    """FLOPs of training through these parts, each with its forward FLOPs, and whether anything has learned by then."""
    total = 0
    for part, flops in parts:
        learning = learning or part.learned > 0
        total += (1 + learning + (part.learned > 0 and not part.adapters)) * flops
    return total, learning


def cost(
    model: Model,
    *,
    train: tuple[str, ...] = ("connector",),
    image: tuple[int, int] | None = None,
    text_tokens: int = 64,
    inputs: Inputs = ONE_IMAGE,
) -> Cost:
    """The cost of `model` on a prompt, reading no weights.

    `image` is (width, height) in pixels of each picture; None means a square of the encoder's own side. `train` names
    what learns by dotted paths, as a stage does.

    Raises:
        ValueError: the parts do not fit each other, a path in `train` fits no parameter, a config cannot be read, or
            the model takes no such inputs.
    """
    known = offline(model)
    source, target, encoder, llm = known.source(), known.target(), known.encoder, known.llm
    known.check()
    assert llm is not None, "target() has refused a model without a language model"
    size = image or (encoder.view_side(),) * 2
    if min(size) < 1 or text_tokens < 0:
        raise ValueError(f"There is no image of {size[0]} x {size[1]} px with {text_tokens} text tokens.")
    plans = known.place(input_plans(known, size, inputs))
    own = [plan for plan in plans if plan.branch == "image"]
    views = sum(len(plan.views) for plan in own)
    visual = sum(known.num_visual_tokens(plan) for plan in plans)
    total = visual + text_tokens
    named = named_parts(known)
    check_paths(named, train)
    counts = {name: part.count(train) for name, part in named.items()}
    per_view = known.connector.num_tokens(source.grid)
    flops = {
        "encoder": views * encoder.flops(),
        "connector": views * known.connector.flops(source, target)
        + known.connector.layer_flops(source, target, views=views, positions=total),
        "arrange": sum(known.arrange.flops(plan, per_view, target) for plan in own),
        "llm": llm.flops(total),
    }
    parts = {name: part_cost(counts[name], flops[name]) for name in PARTS}
    return Cost(
        image=size,
        inputs=inputs,
        views=views,
        visual_tokens=visual,
        text_tokens=text_tokens,
        llm_causal_flops=causal_flops(llm, total),
        llm_visual_flops=llm.flops(total) - llm.flops(text_tokens),
        head_flops=_head_flops(llm),
        kv_bytes=llm.kv_bytes(total),
        branches=tuple(
            _branch_cost(name, branch, target, counts, [plan for plan in plans if plan.branch == name])
            for name, branch in known.branches.items()
        ),
        **parts,
    )


def part_cost(count: Count, flops: int) -> PartCost:
    """What is counted of a part."""
    return PartCost(parameters=count.parameters, learned=count.learned, flops=flops, adapters=count.adapters)


def _branch_cost(
    name: BranchName, branch: Branch, target: LLMShape, counts: dict[str, Count], plans: Sequence[Plan]
) -> BranchCost:
    source = branch.encoder.shape()
    each = branch.connector.num_tokens(source.grid)
    one = replace(branch.encoder.plan((1, 1)), tokens=branch.token_grid())
    flops = {
        "encoder": branch.encoder.flops(),
        "connector": branch.connector.flops(source, target),
        "arrange": branch.arrange.flops(one, each, target),
    }
    views = sum(len(plan.views) for plan in plans)
    arranged = sum(branch.arrange.flops(plan, each, target) for plan in plans)
    return BranchCost(
        name=name,
        tokens=branch.arrange.num_tokens(one, each),
        views=views,
        visual_tokens=sum(branch.arrange.num_tokens(plan, each) for plan in plans),
        prompt_flops=views * (flops["encoder"] + flops["connector"]) + arranged,
        **{part: part_cost(counts[f"{name}.{part}"], count) for part, count in flops.items()},
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
