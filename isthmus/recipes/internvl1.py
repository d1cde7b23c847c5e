"""InternVL 1.0: a large encoder is aligned with language in three steps, through a language model as middleware.

Paper: Chen et al., arXiv:2312.14238. Code: OpenGVLab/InternVL, `internvl_g` (the second stage's fine-tunings; its
pre-training and the first stage were not released).
"""

from dataclasses import replace

from isthmus.connectors.qllama import QLlamaConfig
from isthmus.data.captions import CaptionStyle
from isthmus.data.prompts import Vicuna
from isthmus.data.sources import CaptionFile, LlavaFile, Source
from isthmus.encoders.vision import VisionEncoder
from isthmus.llms import CausalLM
from isthmus.model import Model
from isthmus.train.objectives import ITC, ITG, ITM, NextToken
from isthmus.train.stage import AdamW, Cosine, Stage

DATA = "internvl1-data"
"""Where the stages look for their files, in the current directory."""

VIT_6B = VisionEncoder(
    name="OpenGVLab/InternVL3-38B-hf", image_size=224, layers=(-1,), class_token=True, precision="bfloat16"
)
MIDDLEWARE = QLlamaConfig(
    num_queries=96,
    width=4_096,
    layers=32,
    heads=32,
    ffn_width=11_008,
    cross_every=2,
    start_from="hfl/chinese-alpaca-plus-7b",
    text=True,
    vocabulary=49_954,
    embedding=768,
    pool_heads=16,
    temperature=0.07,
)
"""QLLaMA with its text side and heads, which the first two stages train."""


def stage1() -> Stage:
    """Contrast: encoder and text side learn to tell which caption belongs to which image.

    Sources (paper = arXiv:2312.14238, code = OpenGVLab/InternVL internvl_g, elsewhere = neither of them):
        name, start_from: a name of ours; the stage starts from the language model's weights
        model: paper section 3.3
        model.encoder: paper section 3.2: InternViT-6B, patch 14; its features with the class token, code
        model.encoder.name: elsewhere: the paper starts from random weights, which no tower of ours does: here from a
            published one (unverified: of a later InternVL in the transformers format)
        model.encoder.image_size: unverified: 224; earlier steps at 196 with half of the patches masked are left out
        model.encoder.precision: unverified: BF16
        model.connector: paper section 3.2 and code, QLLaMA; in this stage its text side and the pooling of features
        model.connector.start_from: paper section 3.3: a multilingual LLaMA-7B; the name is unverified
        model.connector.vocabulary: code, 49954
        model.connector.temperature: code, logit_scale starts at log(1 / 0.07)
        model.captions: code, `summarize:` before a text that is compared, 80 tokens
        model.llm, model.arrange, model.placement, model.prompt: no language model in this stage
        train: paper section 3.3: encoder and text encoder
        objectives: paper section 3.3: CLIP's symmetric cross-entropy, of pooled encoder features
        objectives.0.label_smoothing, objectives.0.gradients: code, no smoothing, gathered with gradient
        objectives.0.same_image: code, not in pre-training
        data: paper table 2: 4.98 billion pairs; here the files that you have
        steps, epochs: unverified: 175k steps
        batch_size: unverified: 164k, here 163840
        micro_batch_size: elsewhere: 256 on each of 640 devices (their number is unverified)
        optimizer: unverified: AdamW at 1e-3, PyTorch's eps
        schedule: unverified: cosine after 5k steps
        precision: unverified: BF16
        seed: elsewhere: any will do
        log_every, save_every, validate_every, validation: elsewhere: chosen here
        cached_views: the encoder learns, so nothing is kept
    """
    return Stage(
        name="internvl1/stage1",
        model=Model(
            encoder=VIT_6B,
            connector=MIDDLEWARE,
            llm=None,
            captions=CaptionStyle(max_tokens=80, contrast_prefix="summarize:", write_prefix="English caption:"),
        ),
        train=("encoder", "connector"),
        objectives=(ITC(label_smoothing=0.0, gradients="both", vectors="features"),),
        data=(Source(of=CaptionFile(path=f"{DATA}/captions.jsonl", root=f"{DATA}/images")),),
        optimizer=AdamW(peak_lr=1e-3, weight_decay=0.1, betas=(0.9, 0.98)),
        schedule=Cosine(warmup_steps=5_000),
        batch_size=163_840,
        micro_batch_size=256,
        steps=175_000,
        precision="bf16",
        cached_views=0,
    )


def stage2() -> Stage:
    """Generate: encoder and LLaMA stand still; queries and new cross-attention compare, match and write.

    Sources (paper = arXiv:2312.14238, code = OpenGVLab/InternVL internvl_g, elsewhere = neither of them):
        name: a name of ours
        start_from: paper section 3.3: the first stage
        model: as in internvl1/stage1
        train: paper section 3.3 and code, the queries, the cross-attention of every second layer, the pooling of the
            queries, the head that matches, the temperature
        objectives: paper section 3.3: ITC, ITM and ITG, unit weights
        objectives.0.label_smoothing, objectives.2.label_smoothing: code, 0
        objectives.0.gradients: code, gathered with gradient
        objectives.0.vectors: code, the queries' pooled outputs
        objectives.0.same_image, objectives.1.same_image: code, not in pre-training
        objectives.1.negatives, objectives.1.given: code, a caption of another image for half of the rows
        data: paper table 2: 1.03 billion pairs; here the files that you have
        steps, epochs: unverified: 80k steps
        batch_size: unverified: 20k, here 20480
        micro_batch_size: elsewhere: 128 on each of 160 devices (their number is unverified)
        optimizer: unverified: AdamW at 5e-5
        schedule: unverified: cosine after 2k steps
        precision, seed: as in internvl1/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
        cached_views: elsewhere: features are encoded each step
    """
    first = stage1()
    assert isinstance(first.model.connector, QLlamaConfig)
    layers, every = first.model.connector.layers, first.model.connector.cross_every
    cross = tuple(f"connector.layers.{layer}.cross" for layer in range(0, layers, every))
    heads = ("connector.heads.pool_queries", "connector.heads.match", "connector.heads.log_scale")
    return replace(
        first,
        name="internvl1/stage2",
        start_from="internvl1/stage1",
        train=("connector.queries", *cross, *heads),
        objectives=(
            ITC(label_smoothing=0.0, gradients="both"),
            ITM(negatives="given"),
            ITG(label_smoothing=0.0),
        ),
        optimizer=AdamW(peak_lr=5e-5, weight_decay=0.05, betas=(0.9, 0.98)),
        schedule=Cosine(warmup_steps=2_000),
        batch_size=20_480,
        micro_batch_size=128,
        steps=80_000,
    )


def stage3() -> Stage:
    """Instruct: an MLP carries QLLaMA's queries to a frozen Vicuna-7B, on 4M samples.

    Sources (paper = arXiv:2312.14238, code = OpenGVLab/InternVL, elsewhere = neither of them):
        name: a name of ours
        start_from: paper section 3.3: the second stage
        model: as in internvl1/stage1
        model.connector: paper section 3.3: the same, its text side left behind, and an MLP
        model.llm: paper table 9: Vicuna-7B; the version is unverified
        model.llm.max_tokens, model.llm.precision, model.llm.checkpointing, model.llm.lora: unverified: 2048, BF16
        model.prompt, model.placement, model.arrange: unverified: LLaVA-1.5's form
        model.captions: no text but the language model's
        train: paper section 3.3 and table 9: the MLP alone (64M learn), or QLLaMA too
        objectives: paper section 3.3: next-token prediction
        data: paper table 3: 4M samples; here your file
        epochs, steps: unverified: one epoch
        optimizer: unverified: LLaVA-1.5's first stage, 1e-3
        schedule: unverified: LLaVA-1.5's
        batch_size, micro_batch_size: unverified: 256
        precision, seed: as in internvl1/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
        cached_views: elsewhere: features are encoded each step
    """
    second = stage2()
    return replace(
        second,
        name="internvl1/stage3",
        start_from="internvl1/stage2",
        model=Model(
            encoder=VIT_6B,
            connector=replace(MIDDLEWARE, text=False),
            llm=CausalLM(name="lmsys/vicuna-7b-v1.5", max_tokens=2_048, precision="bfloat16"),
            prompt=Vicuna(),
        ),
        train=("connector.project",),
        objectives=(NextToken(),),
        data=(Source(of=LlavaFile(path=f"{DATA}/instruct.json", root=f"{DATA}/images")),),
        optimizer=AdamW(peak_lr=1e-3),
        schedule=Cosine(warmup_fraction=0.03),
        batch_size=256,
        micro_batch_size=16,
        steps=None,
        epochs=1.0,
    )
