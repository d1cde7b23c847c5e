"""InstructBLIP: the Q-Former reads the instruction too, and learns from many tasks at once.

Paper: Dai et al., arXiv:2305.06500. Code: salesforce/LAVIS, `lavis/models/blip2_models/blip2_vicuna_instruct.py` and
`blip2_t5_instruct.py`; for training no configuration was released.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from isthmus.connectors.instruct_qformer import InstructQFormerConfig
from isthmus.data.prompts import QuestionAnswer
from isthmus.data.sources import LlavaFile, Source
from isthmus.llms import CausalLM, EncoderDecoderLM
from isthmus.recipes.blip2 import QFORMER
from isthmus.recipes.blip2_stage2 import stage2_opt
from isthmus.train.stage import AdamW, Cosine, Stage

DATA = "instructblip-data"
"""Where the stages look for `NAME.json` (LLaVA's format) and `NAME-images/`, in the current directory."""

SIZES = {
    "coco_caption": 566_747,
    "textcaps": 22_000,
    "vqav2": 83_000,
    "okvqa": 9_000,
    "aokvqa": 66_000,
    "ocrvqa": 80_000,
    "vg_qa": 86_000,
    "llava_instruct": 158_000,
}
"""Samples of the held-in sets that are public: LLaVA-1.5's counts of the same sets, COCO's own. Put in those of your
files: `--data.N.weight` is the square root."""


def by_square_root(sizes: Mapping[str, int]) -> tuple[Source, ...]:
    """A source for each file, drawn with a probability proportional to the square root of its size."""
    total = sum(math.sqrt(size) for size in sizes.values())
    return tuple(
        Source(of=LlavaFile(path=f"{DATA}/{name}.json", root=f"{DATA}/{name}-images"), weight=math.sqrt(size) / total)
        for name, size in sizes.items()
    )


def vicuna() -> Stage:
    """Instruct: a Q-Former that reads the instruction, before a frozen Vicuna-7B.

    Sources (paper = arXiv:2305.06500, code = salesforce/LAVIS, elsewhere = neither of them):
        name: a name of ours
        start_from: elsewhere: the first stage of BLIP-2, whose text side is the one to go on with; the code starts from
            a second stage with Vicuna, which keeps no text side
        model, model.encoder: as in blip2/stage2-opt
        model.connector: paper section 2.3 and code, the instruction's tokens after the 32 queries
        model.connector.max_text_tokens: code, max_txt_len=128, cut at its beginning
        model.connector.reads: elsewhere: one instruction a sample; of a chat the last question
        model.llm: code, vicuna7b v1.1 in FP16, frozen
        model.llm.max_tokens: code, 32 queries, max_txt_len=128, max_output_txt_len=256
        model.placement: code, the queries in front of everything
        model.prompt: code, the instruction as it is, then the answer and the end of text
        train: paper section 2.3: the Q-Former alone
        objectives: paper section 2.3: the language modelling loss on the answer
        data: paper section 2.4: probability proportional to the square root of the size
        data.0.weight, data.1.weight, data.2.weight, data.3.weight, data.4.weight, data.5.weight, data.6.weight: from
            the sizes, unverified: LLaVA-1.5's counts of the same sets; the paper's hand adjustments (less A-OKVQA,
            more OKVQA) have no published numbers and are not applied
        data.7.weight: from the sizes, unverified, as for the others
        steps, epochs: paper section 2.5: at most 60k steps
        batch_size: unverified: 128 for 7B
        micro_batch_size: elsewhere: 8 on each of 16 devices
        optimizer.peak_lr, optimizer.weight_decay: paper section 2.5: 1e-5, 0.05
        optimizer.betas: unverified: (0.9, 0.999)
        optimizer: as in blip2/stage1
        schedule: paper section 2.5: linear warm-up of 1000 steps (from 1e-8; here from 0), cosine to 0
        precision, seed, cached_views: as in blip2/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    second = stage2_opt()
    return replace(
        second,
        name="instructblip/vicuna",
        start_from="blip2/stage1",
        model=replace(
            second.model,
            connector=InstructQFormerConfig(qformer=replace(QFORMER, embedding=0), max_text_tokens=128),
            llm=CausalLM(name="lmsys/vicuna-7b-v1.1", max_tokens=416, precision="float16"),
            prompt=QuestionAnswer(question="{}", after_images=""),
        ),
        data=by_square_root(SIZES),
        optimizer=AdamW(peak_lr=1e-5, weight_decay=0.05, clip_norm=None),
        schedule=Cosine(warmup_steps=1_000),
        batch_size=128,
        micro_batch_size=8,
        steps=60_000,
    )


def t5() -> Stage:
    """Instruct: a Q-Former that reads the instruction, before a frozen Flan-T5-XL.

    Sources (paper = arXiv:2305.06500, code = salesforce/LAVIS, elsewhere = neither of them):
        name: a name of ours
        start_from: paper section 2.5: BLIP-2's second stage with the same language model; its Q-Former keeps no text
            side, which starts from BERT's again
        model, model.encoder, model.connector, model.placement, model.prompt: as in instructblip/vicuna
        model.llm: code, flant5xl in BF16, frozen; the instruction goes into its encoder, the answer into its decoder;
            its activation stays as published, as in blip2/stage2-t5
        model.llm.max_tokens: code, 32 queries, max_txt_len=128, max_output_txt_len=256
        train, objectives, data: as in instructblip/vicuna
        steps, epochs: paper section 2.5: at most 60k steps
        batch_size: unverified: 192 for 3B
        micro_batch_size: elsewhere: 12 on each of 16 devices
        optimizer, schedule: as in instructblip/vicuna
        precision, seed, cached_views: as in blip2/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    other = vicuna()
    return replace(
        other,
        name="instructblip/t5",
        start_from="blip2/stage2-t5",
        model=replace(
            other.model, llm=EncoderDecoderLM(name="google/flan-t5-xl", max_tokens=416, precision="bfloat16")
        ),
        batch_size=192,
        micro_batch_size=12,
    )
