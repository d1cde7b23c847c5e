"""LLaVA-NeXT: tiles of any resolution at 336 px, the padding cut away, and everything learns.

Code: haotian-liu/LLaVA `llava/model/llava_arch.py` and `llava/mm_utils.py`; LLaVA-VL/LLaVA-NeXT `scripts/train`. It was
described in a web page and has no paper; DeepStack (arXiv:2406.04334) reports its data and epochs.
"""

from dataclasses import replace

from isthmus.connectors.arrange import Anyres
from isthmus.data.sources import LlavaFile, Source
from isthmus.encoders.tiles import AnyresTiles
from isthmus.encoders.vision import VisionEncoder
from isthmus.recipes import llava15
from isthmus.train.stage import AdamW, Stage

DATA = "llava-next-data"
"""Where the second stage looks for its file, in the current directory."""


def stage1() -> Stage:
    """Align: as LLaVA-1.5 does, the MLP alone on 558k captioned images.

    Sources (code = LLaVA-VL/LLaVA-NeXT, elsewhere = not in it):
        name, start_from: a name of ours; fresh MLP weights
        model, train, objectives, data: code, the same alignment, as in llava15/stage1
        epochs, steps, optimizer, schedule, batch_size, micro_batch_size: as in llava15/stage1
        precision, seed: as in llava15/stage1
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    return replace(llava15.stage1(), name="llava-next/stage1")


def stage2() -> Stage:
    """Instruct: tiles and the whole image, with encoder, MLP, row ends and LLM all learning.

    Sources (code = haotian-liu/LLaVA and LLaVA-VL/LLaVA-NeXT, elsewhere = not in it):
        name: a name of ours
        start_from: code, the aligned MLP
        model: as in llava15/stage2
        model.encoder.tiles: code, five grids of 336 px tiles, the whole image first; mm_utils.py pads on black
        model.encoder.fit: code, the whole image is squashed to a square
        model.encoder.checkpointing: code, gradient_checkpointing
        model.encoder.views_at_once, model.encoder.tile_several: elsewhere: chosen here, they change no result of a
            sample with one image
        model.arrange: code, mm_patch_merge_type spatial_unpad, with image_newline
        model.arrange.max_tiles, model.arrange.digits: code, not used by this model
        model.llm.max_tokens: code, model_max_length 4096
        model.llm.checkpointing: code, gradient_checkpointing
        train: code, the vision tower is tuned too
        objectives: as in llava15/stage2
        data: arXiv:2406.04334 reports 765k samples, which are not all public; here your file
        epochs, steps: arXiv:2406.04334: one epoch
        optimizer.peak_lr, optimizer.rates: code, 1e-5, and 2e-6 for the vision tower
        optimizer: as in llava15/stage2
        schedule: as in llava15/stage2
        batch_size: unverified: 128, as in llava15/stage2
        micro_batch_size: elsewhere: 4 on each of 32 devices
        precision, seed: as in llava15/stage2
        log_every, save_every, validate_every, validation: elsewhere: chosen here
        cached_views: the encoder learns, so nothing is kept
    """
    large = llava15.stage2()
    assert isinstance(large.model.encoder, VisionEncoder)
    assert large.model.llm is not None
    return replace(
        large,
        name="llava-next/stage2",
        start_from="llava-next/stage1",
        model=replace(
            large.model,
            encoder=replace(large.model.encoder, fit="squash", tiles=AnyresTiles(), checkpointing=True),
            arrange=Anyres(),
            llm=replace(large.model.llm, max_tokens=4_096, checkpointing=True),
        ),
        train=("encoder", "connector", "arrange", "llm"),
        data=(Source(of=LlavaFile(path=f"{DATA}/instruct.json", root=f"{DATA}/images")),),
        optimizer=AdamW(peak_lr=1e-5, weight_decay=0.0, rates=(("encoder", 2e-6),)),
        micro_batch_size=4,
    )
