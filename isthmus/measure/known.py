"""Published architectures of common models, so that their cost needs no network. See known/README.md for sources."""

from dataclasses import replace
from pathlib import Path

from isthmus.connectors import ConnectorConfig, InstructQFormerConfig, QFormerConfig, QLlamaConfig
from isthmus.encoders import (
    AudioEncoder,
    EncoderConfig,
    PairedEncoder,
    StackedVisionEncoder,
    VideoEncoder,
    VisionEncoder,
)
from isthmus.model import Model

FOLDER = Path(__file__).parent / "known"


def known_names() -> tuple[str, ...]:
    """The hub ids whose shapes are kept in the package."""
    return tuple(sorted(path.parent.name.replace("--", "/", 1) for path in FOLDER.glob("*/config.json")))


def offline(model: Model) -> Model:
    """The same model for costs: parts of a known architecture point to the numbers in the package, nothing is loaded.

    The result has shapes and no weights; a part of another name is left as it is and read by `transformers`.
    """
    llm = model.llm
    if llm is not None:
        llm = replace(llm, name=local_name(llm.name))
    branches = {
        name: replace(one, encoder=_known(one.encoder), connector=_fresh(one.connector))
        for name, one in model.branches.items()
    }
    return replace(
        model,
        encoder=_known(model.encoder),
        connector=_fresh(model.connector),
        llm=llm,
        video=branches.get("video"),
        audio=branches.get("audio"),
    )


def _fresh(connector: ConnectorConfig) -> ConnectorConfig:
    """Shapes do not depend on what a connector starts from, and its start would be read for nothing."""
    if isinstance(connector, (QFormerConfig, QLlamaConfig)):
        return replace(connector, start_from=None)
    if isinstance(connector, InstructQFormerConfig):
        return replace(connector, qformer=replace(connector.qformer, start_from=None))
    return connector


def _known(encoder: EncoderConfig) -> EncoderConfig:
    if isinstance(encoder, (VisionEncoder, AudioEncoder)):
        return replace(encoder, name=local_name(encoder.name))
    if isinstance(encoder, (VideoEncoder, StackedVisionEncoder)):
        return replace(encoder, tower=replace(encoder.tower, name=local_name(encoder.tower.name)))
    if isinstance(encoder, PairedEncoder):
        towers = (replace(tower, name=local_name(tower.name)) for tower in (encoder.first, encoder.second))
        return replace(encoder, first=next(towers), second=next(towers))
    return encoder


def local_name(name: str) -> str:
    """The folder of the package that holds this model's shapes, or the name unchanged."""
    folder = FOLDER / name.replace("/", "--", 1)
    return str(folder) if (folder / "config.json").is_file() else name
