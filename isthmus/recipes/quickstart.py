"""The recipe that runs anywhere: a connector between the bundled eye and the bundled speaker, both frozen."""

from isthmus.connectors.arrange import Concatenate
from isthmus.connectors.mlp import MlpConfig
from isthmus.data.prompts import QuestionAnswer
from isthmus.data.sources import NlvrBoxes, Source, Textbook, WorldChat
from isthmus.encoders.vision import VisionEncoder
from isthmus.llms.causal import CausalLM
from isthmus.model import Model
from isthmus.train.stage import AdamW, Cosine, NextToken, Stage


def stage() -> Stage:
    """Train a connector between the bundled eye and speaker, both frozen, in minutes on a CPU.

    The frozen encoder and the MLP follow LLaVA-1.5's first stage (arXiv:2310.03744; haotian-liu/LLaVA,
    scripts/v1_5/pretrain.sh). The rest is chosen here for a small model and two CPU cores, and reproduces no paper.

    Sources (paper = arXiv:2310.03744, here = chosen for this recipe):
        name, start_from: here
        model: LLaVA-1.5's shape, between small models
        model.encoder: here: the bundled tower at its own size, last layer after its norm, without the class token
        model.connector: paper section 3.3: an MLP of two layers
        model.llm: here: the bundled speaker; conversations of this recipe fit in 512 tokens
        model.arrange, model.placement: paper: the patches stand in place of <image>
        model.prompt: here: the form of text that the speaker was trained on; the form itself is BLIP-2's
        train: paper section 3.1, first stage: the connector alone
        objectives: paper: next-token prediction on the answers
        data: here: scenes with exact truth for most of the samples, textbook figures and NLVR boxes for the rest; a
            description after a scene's questions teaches more of where things are than the questions do
        validation: here
        optimizer: here: rates for a small linear connector are higher; `isthmus compare` chooses among three
        schedule: paper: cosine, warm-up 0.03
        batch_size, micro_batch_size, epochs, steps, precision, seed: here; with the same number of samples, twice the
            steps at half the batch lowered the validation loss much further
        log_every, save_every, validate_every: here
        cached_views: here: one plain view an image, so the eye runs once for each image
    """
    return Stage(
        name="quickstart",
        model=Model(
            encoder=VisionEncoder(name="bundled/eye", image_size=96, layers=(-1,), class_token=False, final_norm=True),
            connector=MlpConfig(depth=2),
            arrange=Concatenate(),
            llm=CausalLM(name="bundled/speaker", max_tokens=512),
            placement="in-place",
            prompt=QuestionAnswer(),
        ),
        train=("connector",),
        objectives=(NextToken(),),
        data=(
            Source(of=WorldChat(split="train", num_scenes=4_000, questions=8, caption=True), weight=0.7),
            Source(of=Textbook(task="mixed", split="train"), weight=0.15),
            Source(of=NlvrBoxes(task="mixed", split="train"), weight=0.15),
        ),
        validation=(Source(of=WorldChat(split="val", num_scenes=24, questions=8), weight=1.0),),
        optimizer=AdamW(peak_lr=2e-2),
        schedule=Cosine(warmup_fraction=0.03),
        batch_size=8,
        steps=400,
        save_every=200,
        validate_every=200,
        cached_views=1,
    )
