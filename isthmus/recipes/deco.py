"""DeCo: the patches are averaged to 144 tokens, and all abstraction is left to the language model.

Paper: Yao et al., arXiv:2405.20985. Code: yaolinli/DeCo, which holds the projector alone; training follows LLaVA-1.5,
whose setting the projector is a drop-in for.
"""

from dataclasses import replace

from isthmus.connectors.average_pool import AveragePoolConfig
from isthmus.recipes import llava15
from isthmus.train.stage import Stage


def stage1() -> Stage:
    """Align: pooling without parameters and the MLP after it, on 558k captioned images.

    Sources (paper = arXiv:2405.20985, code = yaolinli/DeCo, elsewhere = neither of them):
        name, start_from: a name of ours; fresh MLP weights
        model: unverified: as in llava15/stage1; the paper's setting was not at hand
        model.connector: paper section 3 and code, adaptive average pooling to 12 x 12, then an MLP of two layers
            (query_num 144, layer_num 2)
        train: the projector alone, as in llava15/stage1
        objectives, data, epochs, steps, optimizer, schedule, batch_size, micro_batch_size: unverified: as in
            llava15/stage1
        precision, seed: as in llava15/stage1
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    large = llava15.stage1()
    return replace(large, name="deco/stage1", model=replace(large.model, connector=AveragePoolConfig(side=12, depth=2)))


def stage2() -> Stage:
    """Instruct: projector and language model on 665k conversations.

    Sources (paper = arXiv:2405.20985, code = yaolinli/DeCo, elsewhere = neither of them):
        name, start_from: a name of ours; the aligned projector
        model: unverified: as in llava15/stage2; the paper's setting was not at hand
        model.connector: as in deco/stage1
        train: projector and language model, as in llava15/stage2
        objectives, data, epochs, steps, optimizer, schedule, batch_size, micro_batch_size: unverified: as in
            llava15/stage2
        precision, seed: as in llava15/stage2
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    large, first = llava15.stage2(), stage1()
    return replace(
        large,
        name="deco/stage2",
        start_from="deco/stage1",
        model=replace(large.model, connector=first.model.connector),
    )
