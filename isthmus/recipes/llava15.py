"""LLaVA-1.5: an MLP between CLIP ViT-L/14 at 336 px and Vicuna-7B v1.5, aligned and then instructed.

Paper: Liu et al., "Improved Baselines with Visual Instruction Tuning", arXiv:2310.03744.
Code: haotian-liu/LLaVA, `scripts/v1_5/pretrain.sh` and `scripts/v1_5/finetune.sh`.

The real stages read the two files that the authors publish, under `llava15-data/` in the current directory: the JSON
of LLaVA-Pretrain (LCS-558K) and of LLaVA-Instruct (mix-665K) with their images. Other places are set by
`--data.0.of.path` and `--data.0.of.root`.
"""

from dataclasses import replace

from isthmus.connectors.arrange import Concatenate
from isthmus.connectors.mlp import MlpConfig
from isthmus.data.prompts import Plain, Vicuna
from isthmus.data.sources import LlavaFile, NlvrBoxes, Source, Textbook, WorldCaptions, WorldChat
from isthmus.encoders.vision import VisionEncoder
from isthmus.llms.causal import CausalLM
from isthmus.model import Model
from isthmus.train.stage import AdamW, Cosine, NextToken, Stage

DATA = "llava15-data"
"""Where the real stages look for their files, in the current directory."""


def stage1() -> Stage:
    """Align: train the MLP alone on 558k captioned images.

    Sources (paper = arXiv:2310.03744, code = scripts/v1_5/pretrain.sh, elsewhere = neither of them):
        name, start_from: a name of ours; the stage starts from fresh MLP weights
        model: paper section 3.3
        model.encoder: code, --vision_tower openai/clip-vit-large-patch14-336; paper section 3.3
        model.encoder.layers: code, --mm_vision_select_layer -2 (before the last block, no final norm)
        model.encoder.class_token: code, the "patch" feature of clip_encoder.py drops the class token
        model.encoder.fit: elsewhere: pretrain.sh leaves this to the CLIP processor, which crops; finetune.sh pads, and
            padding here too shows the projector the squares it will see later
        model.encoder.precision: code, --bf16
        model.connector: code, --mm_projector_type mlp2x_gelu; paper section 3.3
        model.llm: code, --model_name_or_path lmsys/vicuna-7b-v1.5, --model_max_length 2048, --bf16
        model.prompt: code, --version plain: the image, the caption, a newline; loss on the caption
        model.arrange, model.placement: code, llava_arch.py puts the patches where <image> stood
        train: code, --tune_mm_mlp_adapter True: the MLP alone
        objectives: paper, next-token prediction on the answer
        data: paper, LCS-558K: LAION, CC and SBU images with BLIP captions, once through
        epochs, steps: code, --num_train_epochs 1
        optimizer.peak_lr: code, --learning_rate 1e-3; paper table 9
        optimizer.weight_decay: code, --weight_decay 0.
        optimizer: elsewhere: the defaults of the Hugging Face trainer that the code runs under (betas, eps, clip 1.0)
        schedule: code, --lr_scheduler_type cosine, --warmup_ratio 0.03
        batch_size, micro_batch_size: paper table 9; code, 32 on each of 8 devices
        precision: code, --bf16 True
        seed: elsewhere: the trainer's default is 42; any will do
        log_every, save_every, validate_every, validation: elsewhere: chosen here; the code does not validate
        cached_views: elsewhere: features are encoded each step, since 558k images do not fit a cache of common size
    """
    return Stage(
        name="llava15/stage1",
        model=Model(
            encoder=VisionEncoder(
                name="openai/clip-vit-large-patch14-336",
                image_size=336,
                layers=(-2,),
                class_token=False,
                fit="pad",
                precision="bfloat16",
            ),
            connector=MlpConfig(depth=2),
            arrange=Concatenate(),
            llm=CausalLM(name="lmsys/vicuna-7b-v1.5", max_tokens=2_048, precision="bfloat16"),
            placement="in-place",
            prompt=Plain(),
        ),
        train=("connector",),
        objectives=(NextToken(),),
        data=(Source(of=LlavaFile(path=f"{DATA}/blip_laion_cc_sbu_558k.json", root=f"{DATA}/pretrain-images")),),
        optimizer=AdamW(peak_lr=1e-3, weight_decay=0.0),
        schedule=Cosine(warmup_fraction=0.03),
        batch_size=256,
        micro_batch_size=32,
        epochs=1.0,
        precision="bf16",
        seed=42,
        cached_views=0,
    )


def stage2() -> Stage:
    """Instruct: train the MLP and the LLM on 665k conversations.

    The encoder is not named in `train`, so it is frozen.

    Sources (paper = arXiv:2310.03744, code = scripts/v1_5/finetune.sh, elsewhere = neither of them):
        name: a name of ours
        start_from: code, --pretrain_mm_mlp_adapter of the first stage
        model: as in llava15/stage1
        model.encoder.fit: code, --image_aspect_ratio pad
        model.llm: code, --model_name_or_path lmsys/vicuna-7b-v1.5, --model_max_length 2048, --bf16
        model.prompt: code, --version v1: the Vicuna system sentence, USER and ASSISTANT
        train: code, the vision tower is frozen, the MLP and the LLM learn; paper section 3.1
        objectives: paper, next-token prediction on the answers
        data: paper table 7, the 665k mixture, once through
        epochs, steps: code, --num_train_epochs 1
        optimizer.peak_lr: code, --learning_rate 2e-5; paper table 9
        optimizer.weight_decay: code, --weight_decay 0.
        optimizer: elsewhere: the defaults of the Hugging Face trainer that the code runs under (betas, eps, clip 1.0)
        schedule: code, --lr_scheduler_type cosine, --warmup_ratio 0.03
        batch_size, micro_batch_size: paper table 9; code, 16 on each of 8 devices
        precision: code, --bf16 True
        seed: elsewhere: the trainer's default is 42; any will do
        log_every, save_every, validate_every, validation: elsewhere: chosen here; the code does not validate
        cached_views: elsewhere: features are encoded each step, since 665k samples do not fit a cache of common size
    """
    first = stage1()
    return replace(
        first,
        name="llava15/stage2",
        start_from="llava15/stage1",
        model=replace(first.model, prompt=Vicuna()),
        train=("connector", "llm"),
        data=(Source(of=LlavaFile(path=f"{DATA}/llava_v1_5_mix665k.json", root=f"{DATA}/images")),),
        optimizer=AdamW(peak_lr=2e-5, weight_decay=0.0),
        batch_size=128,
        micro_batch_size=16,
    )


def tiny_stage1() -> Stage:
    """LLaVA-1.5's first stage on the bundled backbones and data.

    The same stage by replacement: what the paper decides stays (connector, layer, prompt, what learns, batch, rate,
    schedule), what a laptop cannot hold is replaced.

    Sources (here = replaced for the small models; the rest as in llava15/stage1):
        name, start_from: here
        model.encoder: as in llava15/stage1, of the bundled eye
        model.encoder.name, model.encoder.image_size, model.encoder.precision: here
        model.llm: here: the bundled speaker
        data, validation: here: captions of scenes with exact truth
        epochs, steps, micro_batch_size, precision: here
        cached_views, log_every, save_every, validate_every: here
        optimizer, schedule, batch_size, train, model, objectives, seed: as in llava15/stage1
    """
    large = stage1()
    return replace(
        large,
        name="llava15/tiny-stage1",
        model=_tiny(large.model),
        data=(Source(of=WorldCaptions(split="train", num_scenes=8_000), weight=1.0),),
        validation=(Source(of=WorldCaptions(split="val", num_scenes=128), weight=1.0),),
        epochs=None,
        steps=60,
        micro_batch_size=32,
        precision="float32",
        save_every=30,
        validate_every=30,
        cached_views=1,
    )


def tiny_stage2() -> Stage:
    """LLaVA-1.5's second stage on the bundled backbones and data.

    The same stage by replacement; the LLM learns too, at the paper's rate. It starts from `llava15/tiny-stage1`.

    Sources (here = replaced for the small models; the rest as in llava15/stage2):
        name, start_from: here
        model.encoder: as in llava15/stage2, of the bundled eye
        model.encoder.name, model.encoder.image_size, model.encoder.precision: here
        model.llm: here: the bundled speaker
        data, validation: here: conversations about scenes, textbook figures and boxes
        epochs, steps, micro_batch_size, precision: here
        cached_views, log_every, save_every, validate_every: here
        optimizer, schedule, batch_size, train, model, objectives, seed: as in llava15/stage2
    """
    large, first = stage2(), tiny_stage1()
    return replace(
        large,
        name="llava15/tiny-stage2",
        start_from="llava15/tiny-stage1",
        model=_tiny(large.model),
        data=(
            Source(of=WorldChat(split="train", num_scenes=4_000), weight=0.7),
            Source(of=Textbook(task="mixed", split="train"), weight=0.15),
            Source(of=NlvrBoxes(task="mixed", split="train"), weight=0.15),
        ),
        validation=(Source(of=WorldChat(split="val", num_scenes=96), weight=1.0),),
        epochs=None,
        steps=60,
        micro_batch_size=16,
        precision="float32",
        save_every=first.save_every,
        validate_every=first.validate_every,
        cached_views=1,
    )


def _tiny(model: Model) -> Model:
    """The model with the bundled eye and speaker in the place of CLIP and Vicuna."""
    assert isinstance(model.encoder, VisionEncoder)
    eye = replace(model.encoder, name="bundled/eye", image_size=96, precision="float32")
    return replace(model, encoder=eye, llm=CausalLM(name="bundled/speaker", max_tokens=1_024))
