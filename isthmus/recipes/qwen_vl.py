"""Qwen-VL: one layer of cross-attention makes 256 tokens; low resolution first, then high, then chat.

Paper: Bai et al., arXiv:2308.12966. Code: QwenLM/Qwen-VL (the model, evaluation, fine-tuning; not the pre-training).
"""

from dataclasses import replace

from isthmus.connectors.qwen_vl import QwenVlConfig
from isthmus.data.prompts import Bounded, ChatTemplate, Plain, QuestionAnswer
from isthmus.data.sources import CaptionFile, LlavaFile, Source, TextFile
from isthmus.encoders.vision import VisionEncoder
from isthmus.llms import CausalLM
from isthmus.model import Model
from isthmus.train.stage import AdamW, Cosine, Stage

DATA = "qwen-vl-data"
"""Where the stages look for their files, in the current directory."""

TASKS = {
    "captioning": 19.7,
    "vqa": 3.6,
    "grounding": 3.5,
    "ref_grounding": 8.7,
    "grounded_captioning": 8.7,
    "ocr": 24.8,
}
TEXT = 7.8
"""Samples of the second stage by task, in millions."""


def stage1() -> Stage:
    """Pre-train: encoder and adapter learn from captions at 224 px, through a frozen language model.

    Sources (paper = arXiv:2308.12966 as a secondary summary quotes it, code = QwenLM/Qwen-VL, elsewhere = neither):
        name, start_from: a name of ours; the adapter starts fresh
        model: paper section 2.1: an encoder, an adapter and a language model
        model.encoder: code, OpenCLIP ViT-bigG/14, its last block, no class token, squashed to the square
        model.encoder.name: elsewhere: the same tower in the transformers format
        model.encoder.image_size: paper section 3.1: 224
        model.connector: code, visual.py: 256 queries, positions of 16 x 16, a norm and a matrix at the end
        model.llm: paper section 2.1: Qwen-7B
        model.llm.name: elsewhere: Qwen-7B needs code from the hub; Qwen1.5-7B is as wide and in transformers
        model.llm.max_tokens: paper section 3.2: 2048, of the second stage
        model.llm.checkpointing, model.llm.lora: elsewhere: not used
        model.prompt: code, <img> and </img> around the tokens, then the caption
        model.placement, model.arrange: code, in place of the image, one view
        model.captions: no text but the language model's
        model.video, model.audio: not used
        train: paper section 3.1: encoder and adapter
        objectives: paper section 3.1: cross-entropy of the text
        data: paper table 2: 1.4 billion pairs, 77.3% English and 22.7% Chinese; here your files
        steps, epochs: paper table 8: 50k
        batch_size: paper table 8: 30720
        micro_batch_size: elsewhere: 48 on each of 640 devices
        optimizer.peak_lr, optimizer.betas, optimizer.eps, optimizer.weight_decay: paper table 8: 2e-4, (0.9, 0.98),
            1e-6, 0.05
        optimizer.clip_norm: paper table 8: 1.0
        optimizer.layer_decay: paper table 8: 0.95 in the encoder
        optimizer: elsewhere: no decay on norms and biases
        schedule: paper table 8: cosine to 1e-6
        schedule.warmup_steps: unverified: 500 (one summary says 2000)
        precision: paper table 8: bf16
        seed: elsewhere: any will do
        log_every, save_every, validate_every, validation: elsewhere: chosen here
        cached_views: the encoder learns, so nothing is kept
    """
    return Stage(
        name="qwen-vl/stage1",
        model=Model(
            encoder=VisionEncoder(
                name="laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", image_size=224, layers=(-1,), precision="bfloat16"
            ),
            connector=QwenVlConfig(side=16),
            llm=CausalLM(name="Qwen/Qwen1.5-7B-Chat", max_tokens=2_048, precision="bfloat16"),
            prompt=Bounded(style=Plain(), before="<img>", after="</img>"),
        ),
        train=("encoder", "connector"),
        data=(
            Source(of=CaptionFile(path=f"{DATA}/english.jsonl", root=f"{DATA}/english-images"), weight=0.773),
            Source(of=CaptionFile(path=f"{DATA}/chinese.jsonl", root=f"{DATA}/chinese-images"), weight=0.227),
        ),
        optimizer=AdamW(peak_lr=2e-4, weight_decay=0.05, betas=(0.9, 0.98), eps=1e-6, layer_decay=(("encoder", 0.95),)),
        schedule=Cosine(warmup_steps=500, min_fraction=0.005),
        batch_size=30_720,
        micro_batch_size=48,
        steps=50_000,
        precision="bf16",
        cached_views=0,
    )


def stage2() -> Stage:
    """Many tasks: everything learns at 448 px, from captions to boxes, text in images and text alone.

    Sources (paper = arXiv:2308.12966 as a secondary summary quotes it, code = QwenLM/Qwen-VL, elsewhere = neither):
        name: a name of ours
        start_from: paper section 3.2: the first stage, positions interpolated
        model: as in qwen-vl/stage1
        model.encoder.image_size: paper section 3.2: 448
        model.prompt: code, <img>..</img>{} Answer:; boxes as (x, y) in [0, 1000), which the files hold as text
        train: paper section 3.2: everything
        objectives: as in qwen-vl/stage1
        data: paper table 3: seven tasks by their counts; the paper packs samples to 2048 tokens, here one a row
        steps, epochs: unverified: 19k
        batch_size: unverified: 4096
        micro_batch_size: elsewhere: 8 on each of 512 devices
        optimizer: as in qwen-vl/stage1
        optimizer.peak_lr: unverified: 5e-5
        schedule.min_fraction: unverified: to 1e-5
        schedule.warmup_steps: unverified: 400
        schedule: as in qwen-vl/stage1
        precision, seed, cached_views: as in qwen-vl/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    first = stage1()
    assert isinstance(first.model.encoder, VisionEncoder)
    seen = tuple(
        Source(of=LlavaFile(path=f"{DATA}/{name}.json", root=f"{DATA}/{name}-images"), weight=count)
        for name, count in TASKS.items()
    )
    asked = QuestionAnswer(question="{} Answer:", after_images="")
    return replace(
        first,
        name="qwen-vl/stage2",
        start_from="qwen-vl/stage1",
        model=replace(
            first.model,
            encoder=replace(first.model.encoder, image_size=448),
            prompt=Bounded(style=asked, before="<img>", after="</img>"),
        ),
        train=("encoder", "connector", "llm"),
        data=(*seen, Source(of=TextFile(path=f"{DATA}/text.jsonl"), weight=TEXT)),
        optimizer=replace(first.optimizer, peak_lr=5e-5),
        schedule=Cosine(warmup_steps=400, min_fraction=0.2),
        batch_size=4_096,
        micro_batch_size=8,
        steps=19_000,
    )


def stage3() -> Stage:
    """Chat: adapter and language model learn from 350k dialogues, the encoder stands still.

    Sources (paper = arXiv:2308.12966 as a secondary summary quotes it, code = QwenLM/Qwen-VL, elsewhere = neither):
        name: a name of ours
        start_from: paper section 3.3: the second stage
        model: as in qwen-vl/stage2
        model.prompt: code, ChatML by the tokenizer's template, <img> and </img> around the tokens; several images are
            numbered by `Picture 1:` in the files
        train: paper section 3.3: adapter and language model
        objectives: as in qwen-vl/stage1
        data: paper section 3.3: 350k dialogues; here your file
        steps, epochs: unverified: 8k
        batch_size: unverified: 128
        micro_batch_size: elsewhere: 8 on each of 16 devices
        optimizer: as in qwen-vl/stage1
        optimizer.peak_lr: unverified: 1e-5
        optimizer.layer_decay: the encoder does not learn
        schedule.min_fraction: unverified: to 1e-6
        schedule.warmup_steps: unverified: 3k
        schedule: as in qwen-vl/stage1
        precision, seed: as in qwen-vl/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
        cached_views: elsewhere: features are encoded each step
    """
    second = stage2()
    return replace(
        second,
        name="qwen-vl/stage3",
        start_from="qwen-vl/stage2",
        model=replace(second.model, prompt=Bounded(style=ChatTemplate(), before="<img>", after="</img>")),
        train=("connector", "llm"),
        data=(Source(of=LlavaFile(path=f"{DATA}/dialogues.json", root=f"{DATA}/dialogues-images")),),
        optimizer=replace(second.optimizer, peak_lr=1e-5, layer_decay=()),
        schedule=Cosine(warmup_steps=3_000, min_fraction=0.1),
        batch_size=128,
        steps=8_000,
    )
