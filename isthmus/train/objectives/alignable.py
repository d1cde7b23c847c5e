"""Can this model be aligned? The check that ITC, ITM and ITG share, made when a stage is built."""

from isthmus.connectors import CONNECTORS, QFormerConfig
from isthmus.model import Model


def check_aligns(model: Model, objective: object) -> None:
    """Raises ValueError unless the model's connector reads text and has the heads, and there is no language model."""
    name, connector = type(objective).__name__, type(model.connector).__name__
    can = ", ".join(f"{key} ({made.__name__})" for key, made in CONNECTORS.items() if made.captions != "none")
    if model.connector.captions == "none":
        raise ValueError(
            f"{name} trains a connector that reads text, but {connector} reads none. Connectors that can: {can}."
        )
    if not model.connector.aligns:
        raise ValueError(f"{name} needs the connector's heads: give {connector} text=True and embedding=256.")
    if model.llm is not None:
        raise ValueError(f"{name} trains the connector alone, but the stage's model has an `llm`. Set llm=None.")
    longest = model.captions.max_tokens
    if isinstance(model.connector, QFormerConfig) and longest > model.connector.positions:
        raise ValueError(
            f"Captions of up to {longest} tokens (captions.max_tokens) do not fit the {model.connector.positions} "
            f"positions of {connector}. Lower max_tokens, or raise positions."
        )


def check_smoothing(objective: object, smoothing: float) -> None:
    """Raises ValueError unless a share of the target may be spread over all so much."""
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(f"{type(objective).__name__}(label_smoothing={smoothing}) must be 0 or more and below 1.")
