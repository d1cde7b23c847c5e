"""Studies of DeepStack between the bundled eye and speaker: its controls, its sampling, its layers, its encoder.

Paper: Meng et al., arXiv:2406.04334, tables 5 to 8 and its figures. All ask for digits and shapes by their height, as
the study `resolution` does, at 36 visual tokens, but for the longer sequence. The speaker has six layers: what the
paper adds before layers 1 to 4 of 32 is added here before 0 to 3, and 8 groups need a deeper one.
"""

from dataclasses import replace

from isthmus.compare.costs import training_work
from isthmus.compare.study import Arm, Study
from isthmus.connectors.arrange import ChannelStack, Concatenate, DeepStack
from isthmus.encoders.tiles import AnyresTiles
from isthmus.llms.causal import CausalLM
from isthmus.recipes import detail
from isthmus.train.stage import Stage

SIDE = 6
"""36 tokens a view."""
STACK = DeepStack(start_layer=0)
"""Four dilated groups before the first four of the speaker's six layers."""
HALVES = AnyresTiles(grids=((1, 2),), pad=False)
"""The whole image, and its upper and its lower half, each stretched to a view: two groups leave layers to move to."""
PAIR = DeepStack(groups=2, start_layer=0)
CUTS = {1: (1, 1), 2: (1, 2), 4: (2, 2), 6: (2, 3), 8: (2, 4)}
"""Rows and columns of crops by their number."""
FINE_TUNED = 60
"""Steps with a learning encoder, after the others."""


def stage() -> Stage:
    """The stage of the study `resolution` with 36 tokens a view."""
    base = detail.stage()
    return replace(base, model=replace(base.model, connector=detail.pooled(SIDE)[1]))


def stacked(name: str, stack: DeepStack = STACK, tiles: AnyresTiles = detail.CROPS) -> Arm:
    """An arm that adds the crops' groups."""
    return Arm(name=name, replace=(detail.tiled(tiles), ("model.arrange", stack)))


def controls() -> Study:
    """DeepStack against its dummy residual, channels, and a longer sequence for the same training FLOPs.

    The dummy adds the whole image's own tokens again before the same layers; channels join the four groups beside each
    token in one linear layer, which learns beside the connector (an MLP in its place learnt less); the longer sequence
    holds the whole's and all crops' 180 tokens and takes as many fewer steps as its FLOPs of training ask for. Beside
    it stands the same with all steps, which costs twice the FLOPs.

    Sources (here = chosen for this study):
        base: the recipe `quickstart`
        base.model.connector: DeCo's pooling, arXiv:2405.20985
        base.data, base.validation, base.steps, base.precision: here: what about half an hour on two cores allows
        arms: arXiv:2406.04334, tables 5 to 7: none, dummy, channel and string; the layers: here, for six; the steps of
            the longer sequence: the ratio of both arms' training FLOPs, in closed form
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    stack = stacked("DeepStack")
    longer = (detail.tiled(detail.CROPS), ("model.arrange", Concatenate()))
    channels = (detail.tiled(detail.CROPS), ("model.arrange", ChannelStack(stack=STACK, depth=1)))
    base = stage()
    steps = round(
        detail.STEPS * training_work(stack.stage(base)) / training_work(Arm(name="", replace=longer).stage(base))
    )
    return _study(
        "deepstack/controls",
        Arm(name="whole"),
        Arm(name="dummy", replace=(("model.arrange", replace(STACK, sampling="repeat")),)),
        stack,
        Arm(name="channels", replace=(*channels, ("train", ("connector", "arrange")))),
        Arm(name="longer sequence", replace=(*longer, ("steps", steps))),
        Arm(name="longer, as many steps", replace=longer),
    )


def sampling() -> Study:
    """DeepStack's groups taken from the crops in three ways: dilated in two dimensions, a crop a group, in one.

    Sources (here = chosen for this study):
        base: the recipe `quickstart`
        base.model.connector: DeCo's pooling, arXiv:2405.20985
        base.data, base.validation, base.steps, base.precision: here: what about half an hour on two cores allows
        arms: arXiv:2406.04334, table 5; the layers: here, for six
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    return _study(
        "deepstack/sampling",
        stacked("2-D dilated"),
        stacked("grid", replace(STACK, sampling="grid")),
        stacked("1-D", replace(STACK, sampling="1d")),
    )


def layers() -> Study:
    """Two groups before early and before late layers of the speaker's six.

    Two crops, the halves of the picture, make two groups, so that there are layers to move them to.

    Sources (here = chosen for this study):
        base: the recipe `quickstart`
        base.model.connector: DeCo's pooling, arXiv:2405.20985
        base.data, base.validation, base.steps, base.precision: here: what about half an hour on two cores allows
        arms: arXiv:2406.04334, the figure on the starting layer; two groups: here, for six layers
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    return _study(
        "deepstack/layers",
        *(stacked(f"layers {first} and {first + 1}", replace(PAIR, start_layer=first), HALVES) for first in range(5)),
    )


def interval() -> Study:
    """Two groups with one, two, three and five layers from the first to the second.

    Sources (here = chosen for this study):
        base: the recipe `quickstart`
        base.model.connector: DeCo's pooling, arXiv:2405.20985
        base.data, base.validation, base.steps, base.precision: here: what about half an hour on two cores allows
        arms: arXiv:2406.04334, the figure on the interval; two groups: here, for six layers
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    return _study(
        "deepstack/interval",
        *(stacked(f"layers 0 and {apart}", replace(PAIR, interval=apart), HALVES) for apart in (1, 2, 3, 5)),
    )


def groups() -> Study:
    """One, two, four and six groups, each of a crop of its own: more of them hold more pixels.

    One group is the whole image again, two are its halves, four its quarters, six its sixths, all enlarged to a view.

    Sources (here = chosen for this study):
        base: the recipe `quickstart`
        base.model.connector: DeCo's pooling, arXiv:2405.20985
        base.data, base.validation, base.steps, base.precision: here: what about half an hour on two cores allows
        arms: arXiv:2406.04334, the figure on the number of stacked layers; six in the place of eight: here, for the
            speaker has six layers
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    return _study("deepstack/groups", *(_grouped(count) for count in (1, 2, 4, 6)))


def eight_groups(speaker: str) -> Study:
    """One, two, four and eight groups, as in the paper's figure, before a language model of eight layers or more.

    `speaker` is its name or folder; the bundled one has six layers (`docs/detail.md` tells how it was given eight). The
    eight crops are two rows of four.

    Sources: those of `groups`; base.model.llm: here.
    """
    study = _study("deepstack/eight-groups", *(_grouped(count) for count in (1, 2, 4, 8)))
    model = study.base.model
    assert isinstance(model.llm, CausalLM)
    return replace(study, base=replace(study.base, model=replace(model, llm=replace(model.llm, name=speaker))))


def encoder() -> Study:
    """With DeepStack and without, the encoder frozen and trained: do they help each other?

    All arms go on from the same steps with the frozen encoder, one run for each seed with DeepStack and one without;
    then connector alone, or encoder and connector, learn from other scenes.

    Sources (here = chosen for this study):
        base: the recipe `quickstart`
        base.model.connector: DeCo's pooling, arXiv:2405.20985
        base.data, base.validation, base.steps, base.precision: here: what about half an hour on two cores allows
        base.optimizer: here: the encoder at a hundredth of the connector's rate
        arms: arXiv:2406.04334, table 8; the stage before: here
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    before = stage()
    other = replace(before.data[0], of=replace(before.data[0].of, seed=1, num_scenes=8 * FINE_TUNED))  # type: ignore[call-arg]
    base = replace(
        before,
        optimizer=replace(before.optimizer, peak_lr=4e-3),
        data=(other,),
        steps=FINE_TUNED,
    )
    learning = (
        ("train", ("encoder", "connector")),
        ("optimizer.rates", (("encoder", 4e-5),)),
    )
    stack = stacked("").replace
    arms = []
    for name, change in (("whole", ()), ("DeepStack", stack)):
        plain = replace(Arm(name="", replace=change).stage(before), name=f"detail/{name.lower()}")
        arms += [
            Arm(name=f"{name}, frozen", replace=change, before=(plain,)),
            Arm(name=f"{name}, trained", replace=(*change, *learning), before=(plain,)),
        ]
    return replace(_study("deepstack/encoder", *arms), base=base, tune_rates=(4e-3,), tune_seeds=())


def _grouped(count: int) -> Arm:
    """An arm of so many groups, each of a crop of its own."""
    name = f"{count} group{'s' if count > 1 else ''}"
    return stacked(name, replace(STACK, groups=count), AnyresTiles(grids=(CUTS[count],), pad=False))


def _study(name: str, *arms: Arm) -> Study:
    return replace(detail.resolution(), name=name, base=stage(), arms=arms)
