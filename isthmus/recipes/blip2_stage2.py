"""BLIP-2's second stage: the aligned Q-Former learns to speak to a frozen language model.

Paper: Li et al., arXiv:2301.12597, section 3.3. Code: salesforce/LAVIS, `lavis/projects/blip2/train/
pretrain_stage2.yaml`, `lavis/models/blip2_models/blip2_opt.py` and `blip2_t5.py`.
"""

from dataclasses import replace

from isthmus.data.prompts import Caption, QuestionAnswer
from isthmus.data.sources import CaptionFile, Source, SplitCaptions
from isthmus.llms import CausalLM, EncoderDecoderLM
from isthmus.model import Model
from isthmus.recipes.blip2 import DATA, QFORMER, VIT_G, stage1
from isthmus.train.stage import Cosine, NextToken, Stage

SPEAKING = replace(QFORMER, text=False, embedding=0)
"""The Q-Former of the first stage without its text side and heads."""


def stage2_opt() -> Stage:
    """Speak: the aligned Q-Former writes captions through a frozen OPT-2.7B, as the paper says.

    Sources (paper = arXiv:2301.12597, code = salesforce/LAVIS, elsewhere = neither of them):
        name: a name of ours
        start_from: paper section 3.3: the first stage
        model, model.encoder, model.connector: as in blip2/stage1, without the text side
        model.llm: paper section 3.3: OPT, frozen; code, opt2.7b in FP16
        model.llm.max_tokens: code, 32 queries and max_txt_len=32
        model.llm.checkpointing, model.llm.lora: elsewhere: not used
        model.placement: paper figure 3: the queries stand in front of the text; code, before its first token
        model.prompt: code, the caption and a newline, with a loss on the token that begins the text
        model.arrange: code, the queries of the one view
        model.captions: no text but the language model's; the code's blip_caption processor cleans captions, which
            here are read as the file has them
        train: paper section 3.3: the Q-Former and its projection
        objectives: paper section 3.3: the language modelling loss
        data: paper section 3.4: the first stage's; here the files that you have
        steps, epochs: paper section 3.4: 80k steps
        batch_size: paper section 3.4: 1920 for OPT
        micro_batch_size: elsewhere: a device's whole share at once; 120 on each of the paper's 16 devices
        optimizer: as in blip2/stage1
        schedule: paper section 3.4: cosine to 5e-5, linear warm-up of 2k steps
        precision, seed, cached_views: as in blip2/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    first = stage1()
    return replace(
        first,
        name="blip2/stage2-opt",
        start_from="blip2/stage1",
        model=Model(
            encoder=VIT_G,
            connector=SPEAKING,
            llm=CausalLM(name="facebook/opt-2.7b", max_tokens=64, precision="float16"),
            placement="before-bos",
            prompt=Caption(),
        ),
        objectives=(NextToken(),),
        schedule=Cosine(warmup_steps=2_000, min_fraction=0.5),
        batch_size=1_920,
        steps=80_000,
    )


def stage2_opt_lavis() -> Stage:
    """Speak as the released configuration does: 10 epochs of COCO and Visual Genome captions, other rates.

    Sources (code = salesforce/LAVIS lavis/projects/blip2/train/pretrain_stage2.yaml, elsewhere = not in it):
        name: a name of ours
        start_from: elsewhere: the first stage of the same configurations; the code names a published checkpoint
        model, train, objectives: as in blip2/stage2-opt
        data: code, coco_caption and vg_caption; here the files that you have
        epochs, steps: code, max_epoch: 10
        batch_size: code, batch_size_train: 64 on each device; elsewhere: 16 devices, as in the paper
        micro_batch_size: as in blip2/stage2-opt
        optimizer.peak_lr, optimizer.weight_decay: code, init_lr: 1e-4, weight_decay: 0.05
        optimizer.betas: code, runner_base.py sets beta2 to 0.999 unless the config gives it
        optimizer: as in blip2/stage1
        schedule: code, warmup_steps: 2000 (from 1e-6; here from 0), min_lr: 1e-5; the code moves the cosine once an
            epoch, here it moves at every step
        precision, seed: code, amp: True, seed: 42
        log_every, save_every, validate_every, validation, cached_views: as in blip2/stage2-opt
    """
    paper = stage2_opt()
    return replace(
        paper,
        name="blip2/stage2-opt-lavis",
        start_from="blip2/stage1-lavis",
        data=tuple(
            Source(of=CaptionFile(path=f"{DATA}/{name}.jsonl", root=f"{DATA}/{name}-images"))
            for name in ("coco_caption", "vg_caption")
        ),
        optimizer=replace(paper.optimizer, betas=(0.9, 0.999)),
        schedule=Cosine(warmup_steps=2_000, min_fraction=0.1),
        batch_size=1_024,
        steps=None,
        epochs=10.0,
    )


def stage2_t5() -> Stage:
    """Speak: the aligned Q-Former and half a caption go into a frozen Flan-T5-XL, which writes the other half.

    Sources (paper = arXiv:2301.12597, code = salesforce/LAVIS, elsewhere = neither of them):
        name: a name of ours
        start_from: paper section 3.3: the first stage
        model, model.encoder, model.connector: as in blip2/stage1, without the text side
        model.llm: paper section 3.3: FlanT5, frozen; code, flant5xl in BF16, whose activation it replaces by the exact
            GELU, where here it stays as published (its tanh approximation)
        model.llm.max_tokens: code, 32 queries and max_txt_len=32 of the text
        model.llm.checkpointing, model.llm.lora: elsewhere: not used
        model.placement: paper figure 3: the queries stand in front of the prefix
        model.prompt: code, the prefix as it is, then what the decoder writes
        model.arrange: code, the queries of the one view
        model.captions: no text but the language model's
        train: paper section 3.3: the Q-Former and its projection
        objectives: paper section 3.3: the prefix language modelling loss
        data: paper section 3.4: the first stage's; here the files that you have
        data.0.of: unverified: paper section 3.3 splits a text in two but does not say where, and the released data
            sets have no split; here at a word drawn for each caption
        steps, epochs: paper section 3.4: 80k steps
        batch_size: paper section 3.4: 1520 for FlanT5
        micro_batch_size: elsewhere: a device's whole share at once; 95 on each of the paper's 16 devices
        optimizer: as in blip2/stage1
        schedule: paper section 3.4: cosine to 5e-5, linear warm-up of 2k steps
        precision, seed, cached_views: as in blip2/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    opt = stage2_opt()
    return replace(
        opt,
        name="blip2/stage2-t5",
        model=replace(
            opt.model,
            llm=EncoderDecoderLM(name="google/flan-t5-xl", max_tokens=64, precision="bfloat16"),
            prompt=QuestionAnswer(question="{}", after_images=""),
        ),
        data=(Source(of=SplitCaptions(of=CaptionFile(path=f"{DATA}/captions.jsonl", root=f"{DATA}/images"))),),
        batch_size=1_520,
    )
