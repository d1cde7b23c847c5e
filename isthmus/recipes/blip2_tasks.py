"""BLIP-2 tuned for one task: questions, captions, retrieval. The image encoder learns too, at a higher resolution.

Paper: Li et al., arXiv:2301.12597, sections 4.2 to 4.4 and the appendix. Code: salesforce/LAVIS,
`lavis/projects/blip2/train/caption_coco_ft.yaml` and `retrieval_coco_ft.yaml`; for questions none was released.
"""

from dataclasses import replace

from isthmus.connectors.instruct_qformer import InstructQFormerConfig
from isthmus.data.prompts import Caption, QuestionAnswer
from isthmus.data.sources import CaptionFile, LlavaFile, Source
from isthmus.recipes.blip2 import DATA, QFORMER, VIT_G, stage1
from isthmus.recipes.blip2_stage2 import stage2_opt
from isthmus.train.objectives import ITC, ITG, ITM
from isthmus.train.stage import AdamW, Cosine, Stage

TUNED = replace(VIT_G, precision="float32", checkpointing=True)
"""The image encoder, where it learns."""


def vqa() -> Stage:
    """Answer: encoder and Q-Former learn, the Q-Former reads the question too, OPT-2.7B stays frozen.

    No code was released for this stage.

    Sources (paper = arXiv:2301.12597, code = the other stages of salesforce/LAVIS, elsewhere = neither of them):
        name: a name of ours
        start_from: paper section 4.3: the model of the second stage
        model: as in blip2/stage2-opt
        model.encoder.image_size: paper appendix, table of VQA: 490
        model.encoder.precision: code, fp32 where the ViT learns
        model.encoder.checkpointing: code, use_grad_checkpoint of the other fine-tunings
        model.connector: paper section 4.3: the question's tokens go into the Q-Former and meet the queries in its
            self-attention; the second stage keeps no text side, so its words and feed-forwards start from BERT's again
        model.connector.max_text_tokens: elsewhere: as InstructBLIP has it
        model.connector.reads: one question a sample
        model.llm.max_tokens: elsewhere: 32 queries, the question and a short answer
        model.prompt: paper section 4.3: Question: {} Answer:
        train: paper section 4.3: Q-Former and image encoder
        objectives: paper section 4.3: the answer is written, with a loss on it
        data: paper section 4.3: VQAv2's training and validation data and Visual Genome's questions; here your files
        epochs, steps: paper appendix: 5 epochs
        batch_size: paper appendix: 128
        micro_batch_size: elsewhere: a device's whole share at once
        optimizer.peak_lr, optimizer.weight_decay, optimizer.betas: paper appendix: 1e-5, 0.05, (0.9, 0.999)
        optimizer.layer_decay: paper appendix: 0.95 for OPT-2.7B (0.95 FlanT5-XL, 0.9 OPT-6.7B); code, blip2.py scales
            the last block once, the embeddings once more than the first block
        optimizer: as in blip2/stage1
        schedule: paper appendix: 1000 steps of warm-up, cosine to 0
        precision, seed, cached_views: as in blip2/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    second = stage2_opt()
    assert second.model.llm is not None
    return replace(
        second,
        name="blip2/vqa",
        start_from="blip2/stage2-opt",
        model=replace(
            second.model,
            encoder=replace(TUNED, image_size=490),
            connector=InstructQFormerConfig(qformer=replace(QFORMER, embedding=0), max_text_tokens=128),
            llm=replace(second.model.llm, max_tokens=128),
            prompt=QuestionAnswer(question="Question: {} Answer:", after_images=""),
        ),
        train=("encoder", "connector"),
        data=tuple(
            Source(of=LlavaFile(path=f"{DATA}/{name}.json", root=f"{DATA}/{name}-images"))
            for name in ("vqav2", "vg_qa")
        ),
        optimizer=AdamW(peak_lr=1e-5, weight_decay=0.05, clip_norm=None, layer_decay=(("encoder", 0.95),)),
        schedule=Cosine(warmup_steps=1_000),
        batch_size=128,
        steps=None,
        epochs=5.0,
    )


def caption() -> Stage:
    """Describe: encoder and Q-Former learn COCO's captions after "a photo of", OPT-2.7B stays frozen.

    Sources (paper = arXiv:2301.12597, code = salesforce/LAVIS caption_coco_ft.yaml, elsewhere = neither of them):
        name: a name of ours
        start_from: paper section 4.2: the model of the second stage
        model: as in blip2/stage2-opt
        model.encoder.image_size: code, image_size: 364; paper appendix, table of captioning
        model.encoder.precision: code, fp32 where the ViT learns
        model.encoder.checkpointing: code, use_grad_checkpoint: True
        model.prompt: paper section 4.2 and code, "a photo of", without loss
        train: paper section 4.2: Q-Former and image encoder
        objectives: paper section 4.2: the language modelling loss
        data: code, coco_caption; here your file
        epochs, steps: code, max_epoch: 5
        batch_size: code, batch_size_train: 16 on each of 16 devices; paper appendix: 256
        micro_batch_size: code, 16
        optimizer.peak_lr, optimizer.weight_decay: code, init_lr: 1e-5, weight_decay: 0.05
        optimizer.betas: paper appendix: (0.9, 0.999)
        optimizer.layer_decay: paper appendix: 1 for OPT-2.7B and FlanT5-XL, that is none (0.95 for OPT-6.7B)
        optimizer: as in blip2/stage1
        schedule: code, warmup_steps: 1000 (from 1e-8; here from 0), min_lr: 0
        precision, seed: code, amp: True, seed: 42
        cached_views: as in blip2/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    second = stage2_opt()
    return replace(
        second,
        name="blip2/caption",
        start_from="blip2/stage2-opt",
        model=replace(second.model, encoder=replace(TUNED, image_size=364), prompt=Caption(prompt="a photo of")),
        train=("encoder", "connector"),
        data=(Source(of=CaptionFile(path=f"{DATA}/coco_caption.jsonl", root=f"{DATA}/coco_caption-images")),),
        optimizer=AdamW(peak_lr=1e-5, weight_decay=0.05, clip_norm=None),
        schedule=Cosine(warmup_steps=1_000),
        batch_size=256,
        micro_batch_size=16,
        steps=None,
        epochs=5.0,
    )


def retrieval() -> Stage:
    """Find: the first stage goes on over COCO with its encoder, captions of one image sharing the target.

    Sources (paper = arXiv:2301.12597, code = salesforce/LAVIS retrieval_coco_ft.yaml, elsewhere = neither of them):
        name: a name of ours
        start_from: paper section 4.4: the first stage, without a language model
        model: as in blip2/stage1
        model.encoder.image_size: code, image_size: 364
        model.encoder.precision: code, fp32 where the ViT learns
        model.encoder.checkpointing: code, blip2_coco.yaml: use_grad_checkpoint
        train: paper section 4.4: image encoder and Q-Former
        objectives: paper section 4.4: ITC, ITM and ITG
        objectives.0.same_image, objectives.1.same_image: code, blip2_qformer.py with image_id
        objectives.0.gradients: as in blip2/stage1
        data: code, coco_retrieval; here your file
        epochs, steps: code, max_epoch: 5
        batch_size: code, batch_size_train: 14 on each of 16 devices; paper appendix: 224
        micro_batch_size: elsewhere: a device's whole share at once, which ITC compares
        optimizer.peak_lr, optimizer.weight_decay: code, init_lr: 1e-5, weight_decay: 0.05
        optimizer.betas: code, runner_base.py: beta2 is 0.999 unless the config sets it (0.98 for ViT-L)
        optimizer.layer_decay: code, lr_layer_decay: 0.95
        optimizer: as in blip2/stage1
        schedule: code, warmup_steps: 1000 (from 1e-8; here from 0), min_lr: 0
        precision, seed: code, amp: True, seed: 42
        cached_views: as in blip2/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    first = stage1()
    return replace(
        first,
        name="blip2/retrieval",
        start_from="blip2/stage1",
        model=replace(first.model, encoder=replace(TUNED, image_size=364)),
        train=("encoder", "connector"),
        objectives=(
            ITC(label_smoothing=0.1, same_image=True),
            ITM(negatives="hard", same_image=True),
            ITG(label_smoothing=0.1),
        ),
        data=(Source(of=CaptionFile(path=f"{DATA}/coco_caption.jsonl", root=f"{DATA}/coco_caption-images")),),
        optimizer=AdamW(peak_lr=1e-5, weight_decay=0.05, clip_norm=None, layer_decay=(("encoder", 0.95),)),
        schedule=Cosine(warmup_steps=1_000),
        batch_size=224,
        steps=None,
        epochs=5.0,
    )
