"""Video-LLaMA: a Q-Former over the frames of a clip, and another over the windows of a sound, before a frozen LLM.

Paper: Zhang et al., arXiv:2306.02858. Code: DAMO-NLP-SG/Video-LLaMA, `video_llama/models/video_llama.py` and
`train_configs`.
"""

from dataclasses import replace

from isthmus.branches import Branch
from isthmus.connectors.audio_qformer import AudioQFormerConfig
from isthmus.connectors.video_qformer import VideoQFormerConfig
from isthmus.data.frames import UniformFrames
from isthmus.data.prompts import Plain, QuestionAnswer
from isthmus.data.sources import LlavaFile, Source
from isthmus.encoders.audio import AudioEncoder
from isthmus.encoders.video import VideoEncoder
from isthmus.llms import CausalLM
from isthmus.model import Model
from isthmus.recipes.blip2 import VIT_G
from isthmus.recipes.blip2_stage2 import SPEAKING
from isthmus.train.stage import AdamW, Cosine, Stage

DATA = "video-llama-data"
"""Where the stages look for their files, in the current directory."""

FRAMES = UniformFrames(num=8)


def vision_stage1() -> Stage:
    """Align: a video Q-Former over BLIP-2's frozen one learns from captioned clips and images.

    Sources (paper = arXiv:2306.02858, code = DAMO-NLP-SG/Video-LLaMA, elsewhere = neither of them):
        name: a name of ours
        start_from: code, the Q-Former of blip2_pretrained_flant5xxl, frozen; here of the stage with Flan-T5-XL;
            llama_proj begins as MiniGPT-4's there, and anew here
        model: paper figure 1: a branch for clips before a language model
        model.encoder: code, n_frms: 8 at 224 px, EVA ViT-g in fp16 as in blip2/stage1; an image is a clip of one frame
        model.encoder.pool: code, none
        model.connector: code, video_Qformer of 2 layers with cross-attention in each, 32 queries, up to 32 frames
        model.connector.image: as in blip2/stage2-t5
        model.connector.image.start_from: its weights come from start_from
        model.llm: code, Vicuna-7B, frozen, in fp16
        model.llm.name: elsewhere: v1.1, the oldest that is published whole
        model.llm.max_tokens: code, max_txt_len: 320, and 32 queries
        model.llm.checkpointing, model.llm.lora: not used
        model.prompt: code, the clip, then the caption and its end; its wrapping words are left out
        model.placement, model.arrange: code, in place of the clip's mark
        model.captions: no text but the language model's
        model.video, model.audio: clips and images share one branch; no sounds
        train: code, video Q-Former, queries, frame positions, llama_proj
        objectives: code, next-token prediction of the caption
        data: code, WebVid-2.5M and LLaVA's CC3M 595K, sample_ratio 100 and 24; here your files
        data.0.of.frames, data.1.of.frames: code, n_frms: 8, evenly spread
        steps, epochs: code, max_epoch: 5 of iters_per_epoch: 2500
        batch_size: code, batch_size_train: 32 on each of 8 devices
        micro_batch_size: code, 32
        optimizer.peak_lr, optimizer.weight_decay: code, init_lr: 1e-4, weight_decay: 0.05
        optimizer: code, runner_base.py: AdamW (0.9, 0.999); it clips nothing
        schedule: code, warmup_steps: 2500 (from 1e-6; here from 0), min_lr: 8e-5
        precision: code, amp: True
        seed: code, seed: 42
        log_every, save_every, validate_every, validation: elsewhere: chosen here
        cached_views: elsewhere: features are encoded each step
    """
    return Stage(
        name="video-llama/vision/stage1",
        start_from="blip2/stage2-t5",
        model=Model(
            encoder=VideoEncoder(tower=VIT_G, max_frames=8),
            connector=VideoQFormerConfig(image=replace(SPEAKING, start_from=None), num_queries=32, layers=2),
            llm=CausalLM(name="lmsys/vicuna-7b-v1.1", max_tokens=352, precision="float16"),
            prompt=Plain(),
        ),
        train=("connector.video", "connector.project"),
        data=(
            Source(of=LlavaFile(path=f"{DATA}/webvid.json", root=f"{DATA}/webvid-videos", frames=FRAMES), weight=100.0),
            Source(of=LlavaFile(path=f"{DATA}/cc3m.json", root=f"{DATA}/cc3m-images", frames=FRAMES), weight=24.0),
        ),
        optimizer=AdamW(peak_lr=1e-4, weight_decay=0.05, clip_norm=None),
        schedule=Cosine(warmup_steps=2_500, min_fraction=0.8),
        batch_size=256,
        micro_batch_size=32,
        steps=12_500,
        precision="bf16",
        seed=42,
        cached_views=0,
    )


def vision_stage2() -> Stage:
    """Instruct: the same parts learn from conversations about images and clips.

    Sources (paper = arXiv:2306.02858, code = DAMO-NLP-SG/Video-LLaMA, elsewhere = neither of them):
        name: a name of ours
        start_from: code, the first stage
        model: as in video-llama/vision/stage1
        model.prompt: code, ###Human: ... ###Assistant:; there ### ends an answer, here the end of text
        train, objectives: as in video-llama/vision/stage1
        data: code, MiniGPT-4 3K, LLaVA 150K, VideoChat 11K by their sizes; here your files
        steps, epochs: code, max_epoch: 3 of iters_per_epoch: 1000
        batch_size: code, batch_size_train: 4 on each of 8 devices
        micro_batch_size: code, 4
        optimizer.peak_lr, optimizer.weight_decay: code, init_lr: 3e-5, weight_decay: 0.05
        optimizer: as in video-llama/vision/stage1
        schedule: code, warmup_steps: 1000, min_lr: 1e-5
        precision, seed, cached_views: as in video-llama/vision/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    first = vision_stage1()
    return replace(
        first,
        name="video-llama/vision/stage2",
        start_from="video-llama/vision/stage1",
        model=replace(first.model, prompt=QuestionAnswer(question="###Human: {} ###Assistant:", after_images=" ")),
        data=tuple(
            Source(of=LlavaFile(path=f"{DATA}/{name}.json", root=f"{DATA}/{name}-media", frames=FRAMES), weight=size)
            for name, size in (("minigpt4", 3.0), ("llava", 150.0), ("videochat", 11.0))
        ),
        optimizer=AdamW(peak_lr=3e-5, weight_decay=0.05, clip_norm=None),
        schedule=Cosine(warmup_steps=1_000, min_fraction=1 / 3),
        batch_size=32,
        micro_batch_size=4,
        steps=3_000,
    )


def audio_stage1() -> Stage:
    """Hear: an audio Q-Former joins the trained video branch, which stands still; trained on sounds themselves.

    The paper trains this branch on pictures, through ImageBind, whose space pictures and sounds share, and feeds it
    sounds only afterwards. ImageBind is not in `transformers`, so this recipe keeps the branch, rates and lengths, and
    trains on captioned sounds instead.

    Sources (paper = arXiv:2306.02858, code = DAMO-NLP-SG/Video-LLaMA, elsewhere = neither of them):
        name: a name of ours
        start_from: code, the video branch
        model: as in video-llama/vision/stage1
        model.audio: code, 8 windows of 2 s, one vector each, positions of 8, audio_Qformer of 2 layers, 8 queries
        model.audio.encoder.name: elsewhere: AST in the place of ImageBind
        model.audio.encoder.windows_at_once, model.audio.encoder.window_views: elsewhere: chosen here
        train: code, audio Q-Former, queries, window positions, audio_llama_proj
        objectives: code, next-token prediction of the caption
        data: elsewhere: captioned sounds, where the code has WebVid and CC3M; here your file
        steps, epochs: code, max_epoch: 5 of iters_per_epoch: 5000
        batch_size: code, batch_size_train: 32 on each of 8 devices
        micro_batch_size: code, 32
        optimizer: as in video-llama/vision/stage1
        schedule: code, warmup_steps: 5000 (from 1e-6; here from 0), min_lr: 8e-5
        precision, seed, cached_views: as in video-llama/vision/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    vision = vision_stage1()
    ear = AudioEncoder(name="MIT/ast-finetuned-audioset-10-10-0.4593", window_s=2.0, max_windows=8, pool="mean")
    return replace(
        vision,
        name="video-llama/audio/stage1",
        start_from="video-llama/vision/stage2",
        model=replace(
            vision.model, audio=Branch(encoder=ear, connector=AudioQFormerConfig(num_queries=8, max_windows=8))
        ),
        train=("audio.connector",),
        data=(Source(of=LlavaFile(path=f"{DATA}/sounds.json", root=f"{DATA}/sounds")),),
        schedule=Cosine(warmup_steps=5_000, min_fraction=0.8),
        steps=25_000,
    )


def audio_stage2() -> Stage:
    """Hear and answer: the audio Q-Former learns from questions about sounds.

    Sources (paper = arXiv:2306.02858, code = DAMO-NLP-SG/Video-LLaMA, elsewhere = neither of them):
        name: a name of ours
        start_from: code, the first stage
        model: as in video-llama/audio/stage1
        model.llm.max_tokens: code, max_txt_len: 512, and 40 queries
        model.prompt: as in video-llama/vision/stage2
        train, objectives: as in video-llama/audio/stage1
        data: elsewhere: questions about sounds, where the code has those about images and clips; here your file
        steps, epochs: code, max_epoch: 3 of iters_per_epoch: 1000
        batch_size, micro_batch_size: as in video-llama/vision/stage2
        optimizer: as in video-llama/vision/stage2
        schedule: code, warmup_steps: 400, min_lr: 1e-5
        precision, seed, cached_views: as in video-llama/vision/stage1
        log_every, save_every, validate_every, validation: elsewhere: chosen here
    """
    first, vision = audio_stage1(), vision_stage2()
    assert first.model.llm is not None
    return replace(
        first,
        name="video-llama/audio/stage2",
        start_from="video-llama/audio/stage1",
        model=replace(first.model, prompt=vision.model.prompt, llm=replace(first.model.llm, max_tokens=552)),
        data=(Source(of=LlavaFile(path=f"{DATA}/sound_questions.json", root=f"{DATA}/sounds")),),
        optimizer=vision.optimizer,
        schedule=Cosine(warmup_steps=400, min_fraction=1 / 3),
        batch_size=32,
        micro_batch_size=4,
        steps=3_000,
    )
