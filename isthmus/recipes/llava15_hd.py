"""LLaVA-1.5-HD: an image of any resolution in tiles of 224 px, merged into one map, with the whole image besides.

Paper: Liu et al., arXiv:2310.03744, section 3.4. It has no public code; the rates are LLaVA-1.5's.
"""

from dataclasses import replace

from isthmus.connectors.arrange import Anyres
from isthmus.encoders.tiles import LLAVA15_HD_GRIDS, AnyresTiles
from isthmus.encoders.vision import VisionEncoder
from isthmus.recipes import llava15
from isthmus.train.stage import Stage


def stage1() -> Stage:
    """Align: LLaVA-1.5's first stage on CLIP at 224 px, one view an image.

    Sources (paper = arXiv:2310.03744, elsewhere = not in it):
        name, start_from: a name of ours; fresh MLP weights
        model: as in llava15/stage1
        model.encoder.name, model.encoder.image_size: paper section 3.4: CLIP ViT-L/14 at 224 px
        model.encoder.fit: as in llava15/stage1
        train, objectives, data, epochs, steps, optimizer, schedule, batch_size, micro_batch_size: elsewhere: as in
            llava15/stage1; the paper says that high resolution needs no training of its own in this stage
        precision, seed: as in llava15/stage1
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    large = llava15.stage1()
    assert isinstance(large.model.encoder, VisionEncoder)
    encoder = replace(large.model.encoder, name="openai/clip-vit-large-patch14", image_size=224)
    return replace(large, name="llava15-hd/stage1", model=replace(large.model, encoder=encoder))


def stage2() -> Stage:
    """Instruct: up to six tiles merged into one map whose rows end with a learned token, and the whole image.

    Sources (paper = arXiv:2310.03744, code = haotian-liu/LLaVA, elsewhere = neither of them):
        name: a name of ours
        start_from: elsewhere: the alignment at 224 px
        model: as in llava15/stage2
        model.encoder.name, model.encoder.image_size: paper section 3.4: CLIP ViT-L/14 at 224 px
        model.encoder.fit: paper section 3.4: the whole image resized and padded to 224 px
        model.encoder.tiles: paper section 3.4: grids of up to six tiles; the whole comes with them (the order is
            LLaVA-NeXT's, whole first)
        model.encoder.tiles.pad: paper section 3.4: the aspect is kept, the rest padded
        model.encoder.views_at_once, model.encoder.tile_several: elsewhere: chosen here, they change no result of a
            sample with one image
        model.arrange: paper section 3.4: merged, features of padding dropped, an end token a row; code, the same
            functions as LLaVA-NeXT
        model.arrange.max_tiles, model.arrange.digits: not used by this paper
        model.llm.max_tokens: elsewhere: room for 256 + 6 * 256 tokens, up to 96 row ends, and the text: 4096
        train: paper section 3.4: as in llava15/stage2, and the end token
        objectives, data, epochs, steps, optimizer, schedule, batch_size, micro_batch_size: as in llava15/stage2
        precision, seed: as in llava15/stage2
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    large, first = llava15.stage2(), stage1()
    assert isinstance(first.model.encoder, VisionEncoder)
    assert large.model.llm is not None
    return replace(
        large,
        name="llava15-hd/stage2",
        start_from="llava15-hd/stage1",
        model=replace(
            large.model,
            encoder=replace(first.model.encoder, tiles=AnyresTiles(grids=LLAVA15_HD_GRIDS)),
            arrange=Anyres(),
            llm=replace(large.model.llm, max_tokens=4_096),
        ),
        train=("connector", "arrange", "llm"),
    )
