"""Honeybee: convolutions around a pooling keep neighbours together at any number of tokens (C-Abstractor, 144).

Paper: Cha et al., arXiv:2312.06742. Code: khanrc/honeybee, `configs`; where it differs from the paper there are two
functions.
"""

from dataclasses import replace

from isthmus.connectors.c_abstractor import CAbstractorConfig
from isthmus.data.prompts import QuestionAnswer
from isthmus.data.sources import CaptionFile, Formatted, LlavaFile, Source, SourceConfig
from isthmus.encoders.vision import VisionEncoder
from isthmus.llms import CausalLM
from isthmus.model import Model
from isthmus.train.stage import AdamW, Cosine, Stage

DATA = "honeybee-data"
"""Where the stages look for their files, in the current directory."""

SHARES = {
    "vqav2": 10.3,
    "gqa": 10.3,
    "refcoco": 10.3,
    "refcoco_plus": 10.3,
    "refcocog": 10.3,
    "aokvqa": 10.3,
    "llava150k": 10.3,
    "coyo": 7.7,
    "ocrvqa": 5.1,
    "vg": 5.1,
    "scienceqa": 5.1,
    "vsr": 2.6,
    "sharegpt": 2.6,
}
"""Sampling ratios of the instruction data, in percent."""
SHORT = ("vqav2", "gqa", "ocrvqa", "vsr")
"""Sets whose questions ask for a short answer."""


def stage1() -> Stage:
    """Pre-train: the abstractor alone on captions of two collections, as the paper's short schedule says.

    Sources (paper = arXiv:2312.06742, code = khanrc/honeybee, elsewhere = neither of them):
        name, start_from: a name of ours; the abstractor starts fresh
        model: paper figure 2: an abstractor between CLIP and Vicuna
        model.encoder: paper section 4.1: CLIP ViT-L/14 at 224 px for 7B; code, without the class token
        model.encoder.layers: paper section 4.1: the second-last layer
        model.encoder.fit: unverified: squashed
        model.connector: paper section 3.2 and code, three blocks, pooling to 144, three blocks, an MLP of two layers
        model.llm: paper section 4.1: Vicuna-7B v1.5
        model.llm.max_tokens, model.llm.precision: unverified: 2048; code, bf16
        model.llm.checkpointing, model.llm.lora: elsewhere: not used
        model.prompt: paper section 4.3: roles Human and AI, no tokens around the image
        model.placement, model.arrange: code, in place of the image's mark, one view
        model.captions: no text but the language model's
        model.video, model.audio: not used
        train: paper table 11: the projector
        objectives: next-token prediction on the answers
        data: paper section 4.1: BlipCapFilt and COYO-100M, 1:1; here your files
        steps, epochs: paper table 11: 50k (200k for the long schedule)
        batch_size: paper table 11: 256
        micro_batch_size: elsewhere: 32 on each of 8 devices
        optimizer: paper table 11: AdamW (0.9, 0.98), 1e-6, clip 1.0
        optimizer.peak_lr, optimizer.weight_decay: paper table 11: 3e-4, 0.01
        optimizer.decay_norms_and_biases: elsewhere: no decay on norms and biases
        schedule: paper table 11: cosine to 1e-5, 2000 steps of warm-up
        precision: paper table 11: bf16
        seed: elsewhere: any will do
        log_every, save_every, validate_every, validation: elsewhere: chosen here
        cached_views: elsewhere: features are encoded each step
    """
    return Stage(
        name="honeybee/stage1",
        model=Model(
            encoder=VisionEncoder(
                name="openai/clip-vit-large-patch14", image_size=224, layers=(-2,), precision="bfloat16"
            ),
            connector=CAbstractorConfig(side=12),
            llm=CausalLM(name="lmsys/vicuna-7b-v1.5", max_tokens=2_048, precision="bfloat16"),
            prompt=QuestionAnswer(question="Human: {} AI:", after_images=""),
        ),
        train=("connector",),
        data=tuple(
            Source(of=CaptionFile(path=f"{DATA}/{name}.jsonl", root=f"{DATA}/{name}-images"))
            for name in ("blipcapfilt", "coyo")
        ),
        optimizer=AdamW(peak_lr=3e-4, weight_decay=0.01, betas=(0.9, 0.98), eps=1e-6),
        schedule=Cosine(warmup_steps=2_000, min_fraction=1 / 30),
        batch_size=256,
        micro_batch_size=32,
        steps=50_000,
        precision="bf16",
        cached_views=0,
    )


def stage2() -> Stage:
    """Instruct: abstractor and language model on thirteen sets in fixed shares, as the paper's short schedule says.

    Sources (paper = arXiv:2312.06742, code = khanrc/honeybee, elsewhere = neither of them):
        name: a name of ours
        start_from: paper section 4.1: the pre-trained abstractor
        model: as in honeybee/stage1
        train: paper table 11: projector and language model
        objectives: next-token prediction on the answers
        data: paper table 12: the sampling ratios of thirteen sets; short answers are asked for before the question;
            the files hold merged turns without repetitions (section 4.3)
        steps, epochs: paper table 11: 4k (10k for the long schedule)
        batch_size: paper table 11: 128
        micro_batch_size: elsewhere: 16 on each of 8 devices
        optimizer: as in honeybee/stage1
        optimizer.peak_lr, optimizer.weight_decay: paper table 11: 2e-5, 1e-4
        schedule: paper table 11: cosine to 1e-6, 150 steps of warm-up
        precision, seed, cached_views: as in honeybee/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    first = stage1()
    return replace(
        first,
        name="honeybee/stage2",
        start_from="honeybee/stage1",
        train=("connector", "llm"),
        data=tuple(Source(of=_asked(name), weight=share) for name, share in SHARES.items()),
        optimizer=replace(first.optimizer, peak_lr=2e-5, weight_decay=1e-4),
        schedule=Cosine(warmup_steps=150, min_fraction=0.05),
        batch_size=128,
        micro_batch_size=16,
        steps=4_000,
    )


def stage1_released() -> Stage:
    """Pre-train as the released configuration does: the last layer, a third of the rate.

    Sources (code = khanrc/honeybee configs, elsewhere = not in it):
        name, start_from: a name of ours; the abstractor starts fresh
        model: as in honeybee/stage1
        model.encoder.layers: code, feature_layer_index: -1
        train, objectives, data, steps, epochs, batch_size, micro_batch_size: as in honeybee/stage1
        optimizer: as in honeybee/stage1
        optimizer.peak_lr: code, 1e-4
        schedule: as in honeybee/stage1
        schedule.min_fraction: paper table 11: to 1e-5, a tenth of this rate
        precision, seed, cached_views: as in honeybee/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    paper = stage1()
    return replace(
        paper,
        name="honeybee/stage1-released",
        model=_last_layer(paper.model),
        optimizer=replace(paper.optimizer, peak_lr=1e-4),
        schedule=Cosine(warmup_steps=2_000, min_fraction=0.1),
    )


def stage2_released() -> Stage:
    """Instruct as the released configuration does, on the last layer.

    Sources (code = khanrc/honeybee configs, elsewhere = not in it):
        name, start_from: a name of ours; the released pre-training
        model: as in honeybee/stage2
        model.encoder.layers: code, feature_layer_index: -1
        train, objectives, data, steps, epochs, batch_size, micro_batch_size: as in honeybee/stage2
        optimizer, schedule, precision, seed, cached_views: as in honeybee/stage2
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    paper = stage2()
    return replace(
        paper,
        name="honeybee/stage2-released",
        start_from="honeybee/stage1-released",
        model=_last_layer(paper.model),
    )


def _last_layer(model: Model) -> Model:
    assert isinstance(model.encoder, VisionEncoder)
    return replace(model, encoder=replace(model.encoder, layers=(-1,)))


def _asked(name: str) -> SourceConfig:
    file = LlavaFile(path=f"{DATA}/{name}.json", root=f"{DATA}/{name}-images")
    return Formatted(of=file, wanted="short", place="before") if name in SHORT else file
