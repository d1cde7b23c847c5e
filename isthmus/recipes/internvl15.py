"""InternVL 1.5: one to twelve tiles of 448 px in the image's own aspect, a thumbnail, and data of two languages.

Paper: Chen et al., arXiv:2404.16821. Code: OpenGVLab/InternVL, `internvl_chat/shell` and
`internvl_chat/internvl/train/dataset.py`.
"""

from dataclasses import replace

from isthmus.connectors.pixel_shuffle import PixelShuffleConfig
from isthmus.data.sources import LlavaFile, Source
from isthmus.data.sources.languages import share_languages
from isthmus.encoders.tiles import DynamicTiles
from isthmus.llms import CausalLM
from isthmus.recipes import internvl12
from isthmus.train.stage import AdamW, Cosine, Stage

DATA = "internvl15-data"
"""Where the stages look for `NAME.json` and `NAME-images/`, in the current directory."""

MIX = (("captioning", 0.539), ("ocr_large", 0.320), ("ocr_small", 0.089), ("grounding", 0.052))
"""Tasks of the pre-training data, and their shares."""

SHARES = {"english": 0.5, "chinese": 0.5}
"""Languages of the instructions, and the share of each, however many sources it has."""


def stage1() -> Stage:
    """Pre-train: encoder and MLP learn on captions, text in images and boxes; the language model stands still.

    Sources (paper = arXiv:2404.16821, code = OpenGVLab/InternVL internvl_chat/shell, elsewhere = neither of them):
        name: a name of ours
        start_from: elsewhere: the MLP starts fresh
        model: paper figure 3: an encoder, an MLP and a language model
        model.encoder: paper section 3.1: InternViT-6B at 448 px; code, 45 of 48 layers, without the class token
        model.encoder.name: unverified: the same tower as a later InternVL in the transformers format has it
        model.encoder.tiles: paper section 3.2 and code, 1 to 12 tiles, a thumbnail behind more than one
        model.encoder.checkpointing: code, grad_checkpoint
        model.encoder.views_at_once, model.encoder.tile_several: elsewhere: chosen here
        model.connector: code, pixel shuffle 0.5 in the order v2, LayerNorm, MLP of two layers
        model.llm: paper section 3.1: InternLM2-Chat-20B; code, max_seq_length 4096
        model.llm.name: unverified: a conversion to LLaMA's layout, since the original needs code from the hub
        model.llm.checkpointing, model.llm.lora: code, grad_checkpoint, no adapters
        model.prompt: code, the language model's chat template, <img> and </img> around the tokens
        model.placement, model.arrange: code, in place of the image's mark, view after view
        model.captions: no text but the language model's
        model.video, model.audio: not used
        train: paper section 3.1: encoder and MLP; drop path 0.2 of the encoder is left out here
        objectives: next-token prediction on the answers
        data: paper table 1: captioning 53.9%, OCR 32.0% and 8.9%, detection and grounding 5.2%; here your files, which
            hold LLaVA-1.5's response-format prompts (in stage 2 too). The code compresses training images as JPEG at
            random; that is left out here
        epochs, steps: code, one epoch
        optimizer.peak_lr, optimizer.weight_decay: code, 1e-5, 0.05
        optimizer: elsewhere: the defaults of the Hugging Face trainer that the code runs under (betas, eps, clip 1.0)
        schedule: code, cosine, 100 steps of warm-up
        batch_size: code, 2048
        micro_batch_size: elsewhere: 2 on each of 256 devices, four times
        precision: code, bf16
        seed: elsewhere: the trainer's default
        log_every, save_every, validate_every, validation: elsewhere: chosen here
        cached_views: the encoder learns, so nothing is kept
    """
    before = internvl12.sft()
    return replace(
        before,
        name="internvl15/stage1",
        model=replace(
            before.model,
            encoder=replace(internvl12.VIT_6B, tiles=DynamicTiles(max_tiles=12)),
            connector=PixelShuffleConfig(factor=2, order="v2"),
            llm=CausalLM(
                name="chargoddard/internlm2-20b-llama", max_tokens=4_096, precision="bfloat16", checkpointing=True
            ),
        ),
        train=("encoder", "connector"),
        data=tuple(
            Source(of=LlavaFile(path=f"{DATA}/{name}.json", root=f"{DATA}/{name}-images"), weight=share)
            for name, share in MIX
        ),
        schedule=Cosine(warmup_steps=100),
        batch_size=2_048,
    )


def stage2() -> Stage:
    """Instruct: all 26 billion parameters learn on conversations of two languages.

    Sources (paper = arXiv:2404.16821, code = OpenGVLab/InternVL internvl_chat/shell, elsewhere = neither of them):
        name: a name of ours
        start_from: paper section 3.1: the first stage
        model: as in internvl15/stage1
        train: paper section 3.1: everything; drop path 0.4 of the encoder is left out here
        objectives: next-token prediction on the answers
        data: paper table 2: data sets of eleven tasks in two languages; here your files. Random JPEG compression is
            left out here
        data.0.weight, data.1.weight: unverified: half of each language; the paper gives no shares
        epochs, steps: code, one epoch
        optimizer.peak_lr, optimizer.weight_decay: code, 2e-5, 0.05
        optimizer: as in internvl15/stage1
        schedule: code, cosine, warm-up 3%
        batch_size: code, 1024
        micro_batch_size: elsewhere: 2 on each of 256 devices, twice
        precision, seed: as in internvl15/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
        cached_views: the encoder learns, so nothing is kept
    """
    first = stage1()
    return replace(
        first,
        name="internvl15/stage2",
        start_from="internvl15/stage1",
        train=("encoder", "connector", "llm"),
        data=share_languages(
            {
                name: [Source(of=LlavaFile(path=f"{DATA}/instruct_{name}.json", root=f"{DATA}/instruct-images"))]
                for name in SHARES
            },
            SHARES,
        ),
        optimizer=AdamW(peak_lr=2e-5, weight_decay=0.05),
        schedule=Cosine(warmup_fraction=0.03),
        batch_size=1_024,
    )
