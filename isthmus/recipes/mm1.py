"""MM1: captions, interleaved pages and text together, with a learning rate that follows from the model's size.

Paper: McKinzie et al., arXiv:2403.09611. It has no public code, and its language models are not published: here any
of their size stands in their place.
"""

import math
from dataclasses import replace

from isthmus.connectors.c_abstractor import CAbstractorConfig
from isthmus.data.prompts import Plain, Vicuna
from isthmus.data.sources import CaptionFile, LlavaFile, Source, TextFile
from isthmus.encoders.tiles import SubImages
from isthmus.encoders.vision import VisionEncoder
from isthmus.llms import CausalLM
from isthmus.model import Model
from isthmus.train.stage import AdamW, Cosine, Stage

DATA = "mm1-data"
"""Where the stages look for their files, in the current directory."""

VIT_H = VisionEncoder(
    name="apple/DFN5B-CLIP-ViT-H-14-378", image_size=378, layers=(-1,), precision="bfloat16", checkpointing=True
)
PARAMETERS = 3e9
"""Of the language model: MM1-3B."""


def peak_rate(parameters: float) -> float:
    """The peak rate for a language model of so many parameters: exp(-0.4214 ln N - 0.5535)."""
    return math.exp(-0.4214 * math.log(parameters) - 0.5535)


def pretrain() -> Stage:
    """Pre-train: everything learns, 45% interleaved pages, 45% captions, 10% text.

    Sources (paper = arXiv:2403.09611 as summaries of its tables quote it, elsewhere = not in it):
        name, start_from: a name of ours; the connector starts fresh
        model: paper figure 3: an encoder, a connector and a language model
        model.encoder: paper section 4: CLIP ViT-H/14 of DFN-5B at 378 px
        model.encoder.layers, model.encoder.class_token, model.encoder.fit: unverified: the last layer's patches,
            squashed to the square
        model.encoder.final_norm: unverified
        model.encoder.precision, model.encoder.checkpointing: elsewhere: chosen here
        model.connector: paper section 3.2: C-Abstractor, 144 tokens; sizes as in Honeybee
        model.connector.positions: elsewhere: none, so that the tuning at 672 px can go on
        model.llm: paper section 4: 3 billion parameters, 4096 tokens
        model.llm.name: elsewhere: MM1's own is not published; one of its size
        model.llm.precision, model.llm.checkpointing, model.llm.lora: elsewhere: chosen here
        model.prompt: unverified: the text as it is; a page is one turn with images in place
        model.placement, model.arrange: paper figure 3: interleaved, one view an image
        model.captions: no text but the language model's
        model.video, model.audio: not used
        train: paper section 4: all parameters
        objectives: next-token prediction of the text
        data: paper section 3.3: 45:45:10; 600M pages, 2B pairs, 2T tokens: here your files
        data.0.of.max_images: paper section 4: up to 16 images a sequence
        data.0.of.frames, data.0.of.audio_rate: no videos or sounds
        steps, epochs: paper section 4: 200k
        batch_size: paper section 4: 512
        micro_batch_size: elsewhere: 4 on each of 128 devices; the paper packs sequences to 4096, here one a row
        optimizer.peak_lr: paper equation 1: exp(-0.4214 ln N - 0.5535), 6e-5 for 3B
        optimizer.weight_decay: paper section 4: 0.1 times the rate, a step: torch multiplies by the rate itself
        optimizer: unverified: betas, eps and clip 1.0
        schedule: paper section 4: 2000 steps of warm-up, cosine to 10%
        precision, seed: elsewhere: bf16, and any seed
        log_every, save_every, validate_every, validation: elsewhere: chosen here
        cached_views: the encoder learns, so nothing is kept
    """
    return Stage(
        name="mm1/pretrain",
        model=Model(
            encoder=VIT_H,
            connector=CAbstractorConfig(side=12, positions=False),
            llm=CausalLM(
                name="openlm-research/open_llama_3b_v2", max_tokens=4_096, precision="bfloat16", checkpointing=True
            ),
            prompt=Plain(),
        ),
        train=("encoder", "connector", "llm"),
        data=(
            Source(of=LlavaFile(path=f"{DATA}/pages.jsonl", root=f"{DATA}/pages-images", max_images=16), weight=0.45),
            Source(of=CaptionFile(path=f"{DATA}/captions.jsonl", root=f"{DATA}/captions-images"), weight=0.45),
            Source(of=TextFile(path=f"{DATA}/text.jsonl"), weight=0.10),
        ),
        optimizer=AdamW(peak_lr=peak_rate(PARAMETERS), weight_decay=0.1),
        schedule=Cosine(warmup_steps=2_000, min_fraction=0.1),
        batch_size=512,
        micro_batch_size=4,
        steps=200_000,
        precision="bf16",
        cached_views=0,
    )


def sft() -> Stage:
    """Instruct: four crops of 672 px and the whole image, 720 tokens, on about 1.45M samples.

    Sources (paper = arXiv:2403.09611 as summaries of its tables quote it, elsewhere = not in it):
        name: a name of ours
        start_from: paper section 5: the pre-trained model
        model: as in mm1/pretrain
        model.encoder.image_size: paper section 5.1: positions interpolated to 672 px
        model.encoder.tiles: paper section 5.1: 1344 px as an overview and four crops
        model.encoder.views_at_once, model.encoder.tile_several: elsewhere: chosen here
        model.connector: as in mm1/pretrain
        model.llm.max_tokens: paper section 5: 2048
        model.prompt: unverified: LLaVA's form
        train: paper section 5: everything
        objectives: next-token prediction on the answers
        data: paper section 5: about 1.45M samples; here your file
        steps, epochs: paper section 5: 10k
        batch_size: paper section 5: 256
        micro_batch_size: elsewhere: 2 on each of 128 devices
        optimizer.peak_lr: paper section 5: 1e-5
        optimizer: elsewhere: AdamW, where the paper takes AdaFactor, which a stage has not
        schedule: paper section 5: cosine; without warm-up, unverified
        precision, seed, cached_views: as in mm1/pretrain
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    before = pretrain()
    assert isinstance(before.model.encoder, VisionEncoder)
    assert before.model.llm is not None
    return replace(
        before,
        name="mm1/sft",
        start_from="mm1/pretrain",
        model=replace(
            before.model,
            encoder=replace(before.model.encoder, image_size=672, tiles=SubImages(columns=2, rows=2, whole="first")),
            llm=replace(before.model.llm, max_tokens=2_048),
            prompt=Vicuna(),
        ),
        data=(Source(of=LlavaFile(path=f"{DATA}/instruct.json", root=f"{DATA}/instruct-images")),),
        optimizer=AdamW(peak_lr=1e-5),
        schedule=Cosine(warmup_fraction=0.0),
        batch_size=256,
        micro_batch_size=2,
        steps=10_000,
    )
