"""Any recipe between the bundled models, on bundled data: the same stage by replacement.

What a paper decides stays (objectives, what learns, rates, form of prompt, tiles, arrangement); what a laptop cannot
hold is replaced: models, resolution, sizes of the connector, data, steps.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from isthmus.branches import Branch
from isthmus.connectors import ConnectorConfig
from isthmus.connectors.audio_qformer import AudioQFormerConfig
from isthmus.connectors.average_pool import AveragePoolConfig
from isthmus.connectors.c_abstractor import CAbstractorConfig
from isthmus.connectors.instruct_qformer import InstructQFormerConfig
from isthmus.connectors.qformer import QFormerConfig
from isthmus.connectors.qllama import QLlamaConfig
from isthmus.connectors.qwen_vl import QwenVlConfig
from isthmus.connectors.video_qformer import VideoQFormerConfig
from isthmus.data.prompts import Bounded, ChatTemplate, PromptStyle, QuestionAnswer
from isthmus.data.sources import LlavaFile, MovingThings, Source, SourceConfig, WorldCaptions, WorldChat
from isthmus.encoders import AudioEncoder, EncoderConfig, StackedVisionEncoder, VideoEncoder, VisionEncoder
from isthmus.encoders.audio_towers import heard_s, read_extractor
from isthmus.llms import CausalLM
from isthmus.llms.base import LLMConfig
from isthmus.train.stage import Cosine, Stage
from isthmus.weights import resolve_model

READER: dict[str, Any] = {
    "start_from": "bundled/reader", "width": 192, "layers": 4, "heads": 3, "ffn_width": 768, "vocabulary": 2_500,
}  # fmt: skip
"""Sizes of the bundled reader, which a Q-Former starts from."""
SPEAKER: dict[str, Any] = {
    "start_from": "bundled/speaker", "width": 256, "layers": 6, "heads": 4, "ffn_width": 704, "vocabulary": 8_000,
    "eps": 1e-6, "pool_heads": 4,
}  # fmt: skip
"""Sizes of the bundled speaker, which QLLaMA starts from."""
CLIPS = ("webvid", "videochat")
"""Collections of clips, by the names of their files: things that move stand in their place."""
RAISED = {364: 112, 490: 128, 672: 128}
"""Resolutions that a later stage raises, and those of the eye in their place; every other becomes 96 px."""


def on_bundled(
    stage: Stage,
    *,
    steps: int = 60,
    batch_size: int = 16,
    reader: dict[str, Any] | None = None,
    translator: str = "bundled/translator",
    ear: str = "bundled/ear",
) -> Stage:
    """The stage between bundled models, with its name, so that the stages of a recipe still follow one another.

    Args:
        stage: any recipe's.
        steps: optimizer steps.
        batch_size: samples a step.
        reader: fields of the Q-Former that starts from a small BERT-shaped model; the bundled reader's by default.
        translator: the encoder-decoder in the place of T5.
        ear: the audio tower.
    """
    model = stage.model
    sizes = READER if reader is None else reader
    connector = small_connector(model.connector, sizes)
    audio = model.audio
    if audio is not None:
        audio = Branch(encoder=small_encoder(audio.encoder, ear), connector=small_connector(audio.connector, sizes))
    video = model.video
    if video is not None:
        video = replace(
            video, encoder=small_encoder(video.encoder, ear), connector=small_connector(video.connector, sizes)
        )
    return replace(
        stage,
        model=replace(
            model,
            encoder=small_encoder(model.encoder, ear),
            connector=connector,
            llm=None if model.llm is None else small_llm(model.llm, translator),
            prompt=small_prompt(model.prompt),
            captions=replace(model.captions, max_tokens=64),
            video=video,
            audio=audio,
        ),
        train=tuple(path for path in stage.train if _layer(path) < getattr(connector, "layers", 1 << 30)),
        data=tuple(replace(one, of=small_source(one.of, captions=model.llm is None)) for one in stage.data),
        validation=tuple(Source(of=small_source(one.of, captions=model.llm is None)) for one in stage.validation),
        schedule=Cosine(warmup_fraction=0.05, min_fraction=stage.schedule.min_fraction),
        batch_size=batch_size,
        micro_batch_size=None,
        epochs=None,
        steps=steps,
        save_every=steps,
        validate_every=steps,
        precision="float32",
        cached_views=1,
    )


def small_encoder(encoder: EncoderConfig, ear: str) -> EncoderConfig:
    """The bundled eye for any tower, the ear for any audio tower; layers, class token, fit and tiles stay.

    Crops that are added inside the encoder are so from its second block on: it has six. Windows of a sound are no
    longer than the ear hears, which is a second where ImageBind and AST hear two or more.
    """
    if isinstance(encoder, VideoEncoder):
        tower = small_encoder(encoder.tower, ear)
        assert isinstance(tower, VisionEncoder)
        return replace(encoder, tower=tower)
    if isinstance(encoder, AudioEncoder):
        hears = heard_s(read_extractor(resolve_model(ear)))
        return replace(encoder, name=ear, window_s=min(encoder.window_s, hears))
    if isinstance(encoder, StackedVisionEncoder):
        tower = small_encoder(encoder.tower, ear)
        assert isinstance(tower, VisionEncoder)
        return replace(encoder, tower=tower, start_block=1)
    assert isinstance(encoder, VisionEncoder)
    side = RAISED.get(encoder.image_size, 96)
    return replace(encoder, name="bundled/eye", image_size=side, precision="float32", checkpointing=False)


def small_connector(connector: ConnectorConfig, reader: dict[str, Any]) -> ConnectorConfig:
    """The same connector in small sizes; one that has none to choose stays."""
    match connector:
        case QFormerConfig():
            start = reader if connector.start_from is not None else {**reader, "start_from": None}
            return replace(connector, num_queries=16, embedding=64 if connector.embedding else 0, **start)
        case InstructQFormerConfig():
            inner = small_connector(connector.qformer, reader)
            assert isinstance(inner, QFormerConfig)
            return replace(connector, qformer=inner, max_text_tokens=min(64, inner.positions))
        case VideoQFormerConfig():
            inner = small_connector(connector.image, reader)
            assert isinstance(inner, QFormerConfig)
            return replace(connector, image=inner, num_queries=16)
        case AudioQFormerConfig():
            return replace(connector, width=192, heads=3, ffn_width=768)
        case QLlamaConfig():
            return replace(connector, num_queries=16, embedding=64, **SPEAKER)
        case QwenVlConfig():
            return replace(connector, side=6, head_width=64)
        case CAbstractorConfig():
            return replace(connector, side=6, width=192)
        case AveragePoolConfig():
            return replace(connector, side=6)
    return connector


def small_llm(llm: LLMConfig, translator: str) -> LLMConfig:
    """The bundled speaker for any causal language model, the translator for any encoder-decoder."""
    small: dict[str, Any] = {"max_tokens": 1_024, "precision": "float32", "checkpointing": False}
    name = "bundled/speaker" if isinstance(llm, CausalLM) else translator
    return replace(llm, name=name, **small)


def small_prompt(prompt: PromptStyle) -> PromptStyle:
    """The same, but for chat templates, which the speaker has not."""
    if isinstance(prompt, Bounded):
        return replace(prompt, style=small_prompt(prompt.style))
    return QuestionAnswer() if isinstance(prompt, ChatTemplate) else prompt


def small_source(source: SourceConfig, *, captions: bool) -> SourceConfig:
    """Scenes with exact truth: described where captions are read, asked about elsewhere; wrappers stay.

    Things that move stand in the place of a file of clips.
    """
    inner = getattr(source, "of", None)
    if inner is not None:
        return replace(source, of=small_source(inner, captions=captions))  # type: ignore[call-arg]
    if isinstance(source, LlavaFile) and Path(source.path).stem in CLIPS:
        return MovingThings(split="train", num=1_000)
    if captions or type(source).__name__ == "CaptionFile":
        return WorldCaptions(split="train", num_scenes=4_000)
    return WorldChat(split="train", num_scenes=4_000, questions=2)


def _layer(path: str) -> int:
    """The number of the connector's layer that a path of `train` names; -1 when it names none."""
    parts = path.split(".")
    return int(parts[2]) if parts[:2] == ["connector", "layers"] and len(parts) > 2 else -1
