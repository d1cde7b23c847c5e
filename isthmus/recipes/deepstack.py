"""DeepStack: finer crops are added to the whole image's tokens before deeper layers; the sequence stays as long.

-L adds them before layers of the language model, -V before blocks of the encoder; -HD is -L on every LLaVA-NeXT view.

Paper: Meng et al., arXiv:2406.04334. Code: MengLcool/DeepStack-VL.
"""

from dataclasses import replace

from isthmus.connectors.arrange import Anyres, DeepStack
from isthmus.data.sources import LlavaFile, Source
from isthmus.encoders.stacked import StackedVisionEncoder
from isthmus.encoders.tiles import DEEPSTACK_GRIDS, AnyresTiles, FinerTiles
from isthmus.encoders.vision import VisionEncoder
from isthmus.recipes import llava15, llava_next
from isthmus.train.stage import AdamW, Stage

DATA = "deepstack-data"
"""Where the HD stage looks for its file, in the current directory."""


def l_stage1() -> Stage:
    """Align: DeepStack-L from the start, the MLP alone on 558k captioned images.

    Sources (paper = arXiv:2406.04334, code = MengLcool/DeepStack-VL, elsewhere = neither of them):
        name, start_from: a name of ours; fresh MLP weights
        model: as in llava15/stage1
        model.encoder.fit: paper section 3.1: the whole image resized to 336 px
        model.encoder.tiles: code, grids of two to four crops, resized without padding; the whole image first
        model.encoder.views_at_once, model.encoder.tile_several: elsewhere: chosen here
        model.arrange: paper section 3.1 and code, four dilated groups before layers 1 to 4
        train: paper section 4.1: the projector
        objectives, data, epochs, steps, optimizer, schedule, batch_size, micro_batch_size: as in llava15/stage1, which
            the paper follows; its own table of numbers is unverified
        precision, seed: as in llava15/stage1
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    return _stacked(llava15.stage1(), "deepstack/l/stage1", None)


def l_stage2() -> Stage:
    """Instruct: DeepStack-L, the MLP and the language model on 665k conversations; the encoder stands still.

    Sources (paper = arXiv:2406.04334, code = MengLcool/DeepStack-VL, elsewhere = neither of them):
        name, start_from: a name of ours; the aligned projector
        model: as in deepstack/l/stage1
        model.prompt: as in llava15/stage2
        train: paper section 4.1: projector and language model, encoder frozen
        objectives, data, epochs, steps, optimizer, schedule, batch_size, micro_batch_size: as in llava15/stage2, which
            the paper follows; its own table of numbers is unverified
        precision, seed: as in llava15/stage2
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    return _stacked(llava15.stage2(), "deepstack/l/stage2", "deepstack/l/stage1")


def v_stage1() -> Stage:
    """Align: DeepStack-V from the start, the MLP alone on 558k captioned images.

    Sources (paper = arXiv:2406.04334, code = MengLcool/DeepStack-VL, elsewhere = neither of them):
        name, start_from: a name of ours; fresh MLP weights
        model: as in llava15/stage1
        model.encoder: paper section 3.2: groups of the crops are added inside the encoder; unverified: that it does so,
            frozen, in this stage already
        model.encoder.tower: as in deepstack/l/stage1 (model.encoder)
        model.encoder.groups: paper section 3.2
        model.encoder.start_block: code: half of the blocks when none is named. Paper table 4 finds 20 of 24 best, on
            Phi-3; before a second-last layer, which 23 blocks make, the last of four groups would then be lost
        train: paper section 4.1: the projector
        objectives, data, epochs, steps, optimizer, schedule, batch_size, micro_batch_size: as in llava15/stage1, which
            the paper follows; its own table of numbers is unverified
        precision, seed: as in llava15/stage1
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    return _stacked_inside(llava15.stage1(), "deepstack/v/stage1", None)


def v_stage2() -> Stage:
    """Instruct: DeepStack-V, encoder, MLP and language model on 665k conversations.

    Sources (paper = arXiv:2406.04334, code = MengLcool/DeepStack-VL, elsewhere = neither of them):
        name, start_from: a name of ours; the aligned projector
        model: as in deepstack/v/stage1
        model.prompt: as in llava15/stage2
        train: paper section 4.1: the encoder too
        objectives, data, epochs, steps, optimizer, schedule, batch_size, micro_batch_size: as in llava15/stage2, which
            the paper follows; its own table of numbers is unverified
        optimizer.rates: paper section 4.1: 1e-6 for the encoder
        precision, seed: as in llava15/stage2
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    stage = _stacked_inside(llava15.stage2(), "deepstack/v/stage2", "deepstack/v/stage1")
    optimizer = replace(stage.optimizer, rates=(("encoder", 1e-6),))
    return replace(stage, train=("encoder", *stage.train), optimizer=optimizer)


def hd_sft() -> Stage:
    """Instruct: DeepStack-L-HD, every view of LLaVA-NeXT refined by four crops of its own, tuned from it.

    Sources (paper = arXiv:2406.04334, code = MengLcool/DeepStack-VL, elsewhere = neither of them):
        name: a name of ours
        start_from: paper section 4.1: LLaVA-NeXT
        model: as in llava-next/stage2
        model.encoder.tiles: paper section 3.3: LLaVA-NeXT's views, each enlarged twice and cut in four
        model.encoder.views_at_once, model.encoder.tile_several: elsewhere: chosen here
        model.arrange: paper section 3.3: four groups for every view, laid out as LLaVA-NeXT's tokens; code, before
            layers 1 to 4
        train: paper section 4.1: the encoder too
        objectives: next-token prediction on the answers
        data: paper section 4.1: 748k samples; here your file
        epochs, steps: unverified: one epoch
        optimizer: as in llava15/stage2
        optimizer.peak_lr: unverified: 2e-5
        optimizer.rates: paper section 4.1: 1e-6 for the encoder
        schedule, batch_size: unverified: as in llava15/stage2
        micro_batch_size: elsewhere: 4 on each of 32 devices
        precision, seed: as in llava15/stage2
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    before = llava_next.stage2()
    assert isinstance(before.model.encoder, VisionEncoder)
    encoder = replace(before.model.encoder, tiles=FinerTiles(tiles=AnyresTiles(), factor=2))
    return replace(
        before,
        name="deepstack/hd/sft",
        start_from="llava-next/stage2",
        model=replace(before.model, encoder=encoder, arrange=DeepStack(every_view=True, arrange=Anyres())),
        data=(Source(of=LlavaFile(path=f"{DATA}/instruct.json", root=f"{DATA}/images")),),
        optimizer=AdamW(peak_lr=2e-5, rates=(("encoder", 1e-6),)),
    )


def _stacked(stage: Stage, name: str, start: str | None) -> Stage:
    model = replace(stage.model, encoder=_cropped(stage), arrange=DeepStack(groups=4, start_layer=1, interval=1))
    return replace(stage, name=name, start_from=start, model=model)


def _stacked_inside(stage: Stage, name: str, start: str | None) -> Stage:
    encoder = StackedVisionEncoder(tower=_cropped(stage), groups=4, start_block=12)
    return replace(stage, name=name, start_from=start, model=replace(stage.model, encoder=encoder))


def _cropped(stage: Stage) -> VisionEncoder:
    """The stage's encoder before a whole image and up to four crops, all resized without padding."""
    assert isinstance(stage.model.encoder, VisionEncoder)
    return replace(stage.model.encoder, fit="squash", tiles=AnyresTiles(grids=DEEPSTACK_GRIDS, pad=False))
