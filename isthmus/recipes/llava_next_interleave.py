"""LLaVA-NeXT-Interleave: images, frames, views of a scene and patches in one interleaved form.

Paper: Li et al., arXiv:2407.07895. Code: LLaVA-VL/LLaVA-NeXT. Only its last stage is its own; the two before are those
of a LLaVA-NeXT with SigLIP and Qwen1.5, which it starts from.
"""

from dataclasses import replace

from isthmus.connectors.arrange import Anyres
from isthmus.data.frames import UniformFrames
from isthmus.data.prompts import ChatTemplate
from isthmus.data.sources import Interleaved, LlavaFile, Source
from isthmus.encoders.tiles import AnyresTiles
from isthmus.encoders.vision import VisionEncoder
from isthmus.llms import CausalLM
from isthmus.recipes import llava_next
from isthmus.train.stage import Stage

DATA = "llava-next-interleave-data"
"""Where the last stage looks for its file, in the current directory."""

SIGLIP = VisionEncoder(
    name="google/siglip-so400m-patch14-384",
    image_size=384,
    layers=(-2,),
    class_token=False,
    precision="bfloat16",
    tile_several=False,
)
QWEN = CausalLM(name="Qwen/Qwen1.5-7B-Chat", max_tokens=2_048, precision="bfloat16")


def stage1() -> Stage:
    """Align: the MLP between SigLIP and Qwen1.5, as LLaVA-NeXT does.

    Sources (paper = arXiv:2407.07895, code = LLaVA-VL/LLaVA-NeXT, elsewhere = neither of them):
        name, start_from: a name of ours; fresh MLP weights
        model: as in llava-next/stage1
        model.encoder: paper section 3: SigLIP-SO400M at 384 px; code, the layer before the last, 729 tokens
        model.encoder.precision: code, bf16
        model.encoder.tile_several: code, several images are not tiled
        model.encoder.views_at_once: elsewhere: chosen here
        model.llm: paper section 3: Qwen1.5-7B
        model.llm.max_tokens: elsewhere: as in llava-next/stage1
        model.llm.precision: code, bf16
        train, objectives, data, epochs, steps, optimizer, schedule, batch_size, micro_batch_size: unverified: as in
            llava-next/stage1
        precision, seed: as in llava-next/stage1
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    before = llava_next.stage1()
    return replace(before, name="llava-next-interleave/stage1", model=replace(before.model, encoder=SIGLIP, llm=QWEN))


def stage2() -> Stage:
    """Single images: tiles of any resolution, everything learns, as LLaVA-NeXT does.

    Sources (paper = arXiv:2407.07895, code = LLaVA-VL/LLaVA-NeXT, elsewhere = neither of them):
        name, start_from: a name of ours; the alignment
        model: as in llava-next/stage2
        model.encoder: as in llava-next-interleave/stage1
        model.encoder.tiles: as in llava-next/stage2, of 384 px
        model.encoder.checkpointing: as in llava-next/stage2
        model.llm: as in llava-next-interleave/stage1
        model.llm.max_tokens, model.llm.checkpointing: as in llava-next/stage2
        model.prompt: code, the qwen_1_5 template
        train, objectives, data, epochs, steps, optimizer, schedule, batch_size, micro_batch_size: unverified: as in
            llava-next/stage2
        precision, seed: as in llava-next/stage2
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    before = llava_next.stage2()
    encoder = replace(SIGLIP, tiles=AnyresTiles(), checkpointing=True)
    return replace(
        before,
        name="llava-next-interleave/stage2",
        start_from="llava-next-interleave/stage1",
        model=replace(
            before.model,
            encoder=encoder,
            arrange=Anyres(),
            llm=replace(QWEN, max_tokens=4_096, checkpointing=True),
            prompt=ChatTemplate(),
        ),
    )


def stage3() -> Stage:
    """Interleave: many images, frames, views and patches of M4-Instruct, half in front of the text, half in place.

    Sources (paper = arXiv:2407.07895, code = LLaVA-VL/LLaVA-NeXT, elsewhere = neither of them):
        name: a name of ours
        start_from: paper section 4: the single-image model, not the aligned one
        model: as in llava-next-interleave/stage2
        model.llm.max_tokens: unverified: 16 images of 730 tokens and the text: 16384
        train: unverified: everything
        objectives: next-token prediction on the answers
        data: paper section 3.2: M4-Instruct, 1177.6k samples; here your file
        data.0.of.front_share: paper section 4: a mix of both placements; its share is unverified
        data.0.of.refer: paper section 4: images in front are referred to by special tokens; the words are ours
        data.0.of.videos: paper section 3.1: frames are an ordered list of images
        data.0.of.of.max_images, data.0.of.of.frames: elsewhere: up to 16 images, and so many frames
        data.0.of.seed: elsewhere: any will do
        epochs, steps, optimizer, schedule, batch_size: unverified: as in llava-next-interleave/stage2
        micro_batch_size: elsewhere: 1 on each of 128 devices
        precision, seed: as in llava-next-interleave/stage2
        log_every, save_every, validate_every, validation, cached_views: elsewhere: chosen here
    """
    before = stage2()
    assert before.model.llm is not None
    file = LlavaFile(path=f"{DATA}/m4_instruct.json", root=f"{DATA}/media", max_images=16, frames=UniformFrames(num=16))
    return replace(
        before,
        name="llava-next-interleave/stage3",
        start_from="llava-next-interleave/stage2",
        model=replace(before.model, llm=replace(before.model.llm, max_tokens=16_384)),
        data=(Source(of=Interleaved(of=file, front_share=0.5, videos="images")),),
        micro_batch_size=1,
    )
