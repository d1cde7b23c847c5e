"""InternVL-Chat 1.2: 448 px, four patches a token, one MLP, and all 40 billion parameters learn.

Paper: Chen et al., arXiv:2404.16821 (section 2 and tables name 1.2). Code: OpenGVLab/InternVL, `internvl_chat/shell`.
Of its stages the instruction tuning is documented; the training of the MLP before it is not.
"""

from isthmus.connectors.pixel_shuffle import PixelShuffleConfig
from isthmus.data.prompts import Bounded, ChatTemplate
from isthmus.data.sources import LlavaFile, Source
from isthmus.encoders.vision import VisionEncoder
from isthmus.llms import CausalLM
from isthmus.model import Model
from isthmus.train.stage import AdamW, Cosine, Stage

DATA = "internvl12-data"
"""Where the stage looks for `instruct.json` and `images/`, in the current directory."""

VIT_6B = VisionEncoder(
    name="OpenGVLab/InternVL3-38B-hf",
    image_size=448,
    layers=(-1,),
    class_token=False,
    precision="bfloat16",
    checkpointing=True,
)
"""InternViT-6B without its last three of 48 layers."""


def sft() -> Stage:
    """Instruct: encoder, MLP and a 34-billion language model learn together at a fixed 448 px.

    Sources (code = OpenGVLab/InternVL internvl_chat/shell/internvl1.2, elsewhere = not in it):
        name: a name of ours
        start_from: elsewhere: the MLP starts fresh; its training before this stage is not documented
        model: code, an encoder, an MLP and a language model
        model.encoder: code, InternViT-6B at 448 px, 45 of 48 layers, the last one kept, without the class token
        model.encoder.name: unverified: the same tower as a later InternVL in the transformers format has it
        model.encoder.checkpointing: code, grad_checkpoint
        model.connector: code, pixel shuffle 0.5 in the order v1, LayerNorm, MLP of two layers
        model.llm: code, Nous-Hermes-2-Yi-34B, max_seq_length 2048
        model.llm.checkpointing, model.llm.lora: code, grad_checkpoint, no adapters
        model.prompt: code, Hermes-2's chat template, <img> and </img> around the tokens
        model.placement, model.arrange: code, in place of the image's mark, one view
        model.captions: no text but the language model's
        model.video, model.audio: not used
        train: code, all 40B; drop path 0.4 of the encoder is left out here
        objectives: next-token prediction on the answers
        data: code, instruction data in LLaVA's format; here your file
        epochs, steps: unverified: one epoch, as InternVL 1.5
        optimizer.peak_lr: code, 1e-5
        optimizer.weight_decay: unverified: 0.05, as InternVL 1.5
        optimizer: elsewhere: the defaults of the Hugging Face trainer that the code runs under (betas, eps, clip 1.0)
        schedule: code, cosine, warm-up 3%
        batch_size: code, 512
        micro_batch_size: elsewhere: 2 on each of 256 devices
        precision: code, bf16
        seed: elsewhere: the trainer's default
        log_every, save_every, validate_every, validation: elsewhere: chosen here
        cached_views: the encoder learns, so nothing is kept
    """
    return Stage(
        name="internvl12/sft",
        model=Model(
            encoder=VIT_6B,
            connector=PixelShuffleConfig(factor=2, order="v1"),
            llm=CausalLM(
                name="NousResearch/Nous-Hermes-2-Yi-34B", max_tokens=2_048, precision="bfloat16", checkpointing=True
            ),
            prompt=Bounded(style=ChatTemplate(), before="<img>", after="</img>"),
        ),
        train=("encoder", "connector", "llm"),
        data=(Source(of=LlavaFile(path=f"{DATA}/instruct.json", root=f"{DATA}/images")),),
        optimizer=AdamW(peak_lr=1e-5, weight_decay=0.05),
        schedule=Cosine(warmup_fraction=0.03),
        batch_size=512,
        micro_batch_size=2,
        epochs=1.0,
        precision="bf16",
        seed=42,
        cached_views=0,
    )
