"""BLIP-2: a Q-Former between a frozen image encoder and a frozen language model, trained in two stages.

Paper: Li et al., "BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language
Models", arXiv:2301.12597. Code: salesforce/LAVIS, `lavis/projects/blip2/train` and `lavis/models/blip2_models`.

The real stages read `captions.jsonl` (lines of `{"image": "a.jpg", "text": "..."}`) and `images/` under `blip2-data/`
in the current directory. Other places are set by `--data.0.of.path` and `--data.0.of.root`.
"""

from dataclasses import replace

from isthmus.connectors.qformer import QFormerConfig
from isthmus.data.captions import CaptionStyle
from isthmus.data.sources import CaptionFile, Source
from isthmus.encoders.vision import VisionEncoder
from isthmus.model import Model
from isthmus.train.objectives import ITC, ITG, ITM
from isthmus.train.stage import AdamW, Cosine, Stage

DATA = "blip2-data"
"""Where the real stages look for their files, in the current directory."""

VIT_G = VisionEncoder(
    name="Salesforce/blip2-opt-2.7b",
    image_size=224,
    layers=(-1,),
    class_token=True,
    final_norm=False,
    precision="float16",
)
QFORMER = QFormerConfig(
    num_queries=32,
    width=768,
    layers=12,
    heads=12,
    ffn_width=3_072,
    cross_every=2,
    dropout=0.1,
    start_from="google-bert/bert-base-uncased",
    text=True,
    vocabulary=30_523,
    positions=512,
    embedding=256,
    temperature=0.07,
)
"""With its text side and heads, which the first stage trains."""


def stage1() -> Stage:
    """Align: the Q-Former compares, matches and writes captions over a frozen ViT-g, as the paper says.

    Sources (paper = arXiv:2301.12597, code = salesforce/LAVIS, elsewhere = neither of them):
        name, start_from: a name of ours; the stage starts from BERT-base
        model: paper section 3.1
        model.encoder: paper section 3.1: EVA-CLIP ViT-g/14 without its last layer; code, blip2.py keeps the class
            token and norms the features in ln_vision, which is trained
        model.encoder.name: elsewhere: the same tower as published in the transformers format
        model.encoder.precision: paper section 3.4: frozen parts in FP16
        model.encoder.fit: elsewhere: training crops; the plain view serves validation
        model.connector: paper section 3.1: BERT-base sizes, 32 queries, cross-attention every other block
        model.connector.dropout: code, BertConfig of bert-base-uncased
        model.connector.embedding, model.connector.temperature: code, embed_dim=256 and temp=0.07 of blip2_qformer.py
        model.connector.vocabulary, model.connector.positions: code, bert-base-uncased and [DEC]
        model.captions: code, max_txt_len=32 and the blip_caption processor
        model.arrange, model.placement, model.prompt, model.llm: no language model in this stage
        train: paper section 3.2: the Q-Former alone
        objectives: paper section 3.2, equal weights
        objectives.0.label_smoothing, objectives.2.label_smoothing: code, blip2_qformer.py: 0.1
        objectives.0.gradients: code, concat_all_gather detaches what it gathers
        objectives.0.same_image, objectives.1.same_image: code, without image ids in pre-training
        data: paper section 3.4: 129M images with CapFilt's captions; here the files that you have
        steps, epochs: paper section 3.4: 250k steps
        batch_size: paper section 3.4: 1680 for ViT-g
        micro_batch_size: elsewhere: a device's whole share at once; 105 on each of the paper's 16 devices
        optimizer.betas, optimizer.weight_decay, optimizer.peak_lr: paper section 3.4: AdamW, (0.9, 0.98), 0.05, 1e-4
        optimizer: elsewhere: PyTorch's eps; neither paper nor code clips gradients
        optimizer.decay_norms_and_biases: code, base_model.py: no decay on parameters of one axis
        schedule: paper section 3.4: cosine, linear warm-up of 2k steps; the first stage's last rate is not stated
        precision: paper section 3.4: FP16 for the frozen parts; bf16 autocast is chosen here
        seed: code, seed 42
        log_every, save_every, validate_every, validation: elsewhere: chosen here; the code does not validate
        cached_views: paper section 3.4: a fresh random crop and flip at each step, so nothing is cached
    """
    return Stage(
        name="blip2/stage1",
        model=Model(
            encoder=VIT_G,
            connector=QFORMER,
            llm=None,
            captions=CaptionStyle(max_tokens=32, clean=True),
        ),
        train=("connector",),
        objectives=(ITC(label_smoothing=0.1), ITM(negatives="hard"), ITG(label_smoothing=0.1)),
        data=(Source(of=CaptionFile(path=f"{DATA}/captions.jsonl", root=f"{DATA}/images")),),
        optimizer=AdamW(peak_lr=1e-4, weight_decay=0.05, betas=(0.9, 0.98), clip_norm=None),
        schedule=Cosine(warmup_steps=2_000),
        batch_size=1_680,
        steps=250_000,
        precision="bf16",
        seed=42,
        cached_views=0,
    )


def stage1_lavis() -> Stage:
    """Align as the released configuration does: 10 epochs of COCO and Visual Genome captions, other rates.

    Sources (code = salesforce/LAVIS lavis/projects/blip2/train/pretrain_stage1.yaml, elsewhere = not in it):
        name: a name of ours
        start_from, model, train, objectives: as in blip2/stage1
        data: code, coco_caption and vg_caption; here the files that you have
        epochs, steps: code, max_epoch: 10
        batch_size: code, batch_size_train: 100 on each device; elsewhere: 16 devices, as in the paper
        micro_batch_size: as in blip2/stage1
        optimizer.peak_lr, optimizer.weight_decay: code, init_lr: 1e-4, weight_decay: 0.05
        optimizer.betas: code, runner_base.py: beta2 is 0.999 unless the config sets it
        optimizer: as in blip2/stage1
        schedule: code, linear_warmup_cosine_lr, warmup_steps: 5000 (from 1e-6; here from 0), min_lr: 1e-5; the code
            moves the cosine once an epoch, here it moves at every step
        precision: code, amp: True
        seed: code, seed: 42
        log_every, save_every, validate_every, validation, cached_views: as in blip2/stage1
    """
    paper = stage1()
    files = tuple(
        Source(of=CaptionFile(path=f"{DATA}/{name}.jsonl", root=f"{DATA}/{name}-images"))
        for name in ("coco_caption", "vg_caption")
    )
    return replace(
        paper,
        name="blip2/stage1-lavis",
        data=files,
        optimizer=replace(paper.optimizer, betas=(0.9, 0.999)),
        schedule=Cosine(warmup_steps=5_000, min_fraction=0.1),
        batch_size=1_600,
        steps=None,
        epochs=10.0,
    )
