"""Does it fit? The checks that connectors share, so that a misfit is said when built and not at step 1."""

from torch import nn

from isthmus.features import Features, FeatureShape


def check_depth(config: object, depth: int) -> None:
    """Raises ValueError unless there is at least one linear layer."""
    if depth < 1:
        raise ValueError(f"{type(config).__name__}(depth={depth}) has no layer: depth must be 1 or more.")


def check_patches_only(config: object, source: FeatureShape) -> None:
    """Raises ValueError when the encoder gives prefix tokens or levels, which a patch-wise connector would ignore."""
    name = type(config).__name__
    if source.prefix:
        raise ValueError(
            f"The encoder keeps {source.prefix} class or register tokens, but {name} reads the patch grid alone and "
            f"would ignore them. Set class_token=False in the encoder, or use QFormerConfig, which reads them."
        )
    check_no_levels(config, source)


def check_no_levels(config: object, source: FeatureShape) -> None:
    """Raises ValueError when the encoder gives more than one layer, which this connector would ignore."""
    if source.level_widths:
        raise ValueError(
            f"The encoder gives {1 + len(source.level_widths)} layers, but {type(config).__name__} reads one. Name one "
            f"layer in the encoder, as in layers=(-1,)."
        )


def check_counts(config: object, names: tuple[str, ...]) -> None:
    """Raises ValueError unless each of these fields is 1 or more."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{type(config).__name__}({name}={getattr(config, name)}) must be 1 or more.")


def check_heads(config: object, width: int, heads: int) -> None:
    """Raises ValueError unless the width divides by the number of heads."""
    if width % heads:
        raise ValueError(f"{type(config).__name__}(width={width}) does not divide by heads={heads}.")


def check_dropout(config: object, dropout: float) -> None:
    """Raises ValueError unless it is a probability below 1."""
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"{type(config).__name__}(dropout={dropout}) must be 0 or more and below 1.")


def check_widths(connector: nn.Module, features: Features, width: int, level_widths: tuple[int, ...] = ()) -> None:
    """Raises ValueError unless the features, and their levels, have the widths the connector was built for."""
    name = type(connector).__name__
    if features.tokens.shape[-1] != width:
        raise ValueError(
            f"{name} was built for features of width {width}, but width {features.tokens.shape[-1]} came. Build it "
            f"with the shape of the encoder that made them: config.build(encoder.shape(), llm.shape())."
        )
    came = tuple(level.shape[-1] for level in features.levels)
    if came and not level_widths:
        raise ValueError(
            f"{name} was built for one layer, but levels of widths {came} came with it, which it would ignore. Name "
            f"one layer in the encoder that made them, as in layers=(-1,)."
        )
    if came != level_widths:
        raise ValueError(
            f"{name} was built for further layers of widths {level_widths}, but {came} came. Build it with the shape "
            f"of the encoder that made them: config.build(encoder.shape(), llm.shape())."
        )


def check_patches(connector: nn.Module, features: Features, width: int, level_widths: tuple[int, ...] = ()) -> None:
    """Raises ValueError unless the features have the widths the connector was built for, and patches alone."""
    check_widths(connector, features, width, level_widths)
    if features.prefix:
        raise ValueError(
            f"{type(connector).__name__} was built for patches alone, but {features.prefix} class or register tokens "
            f"came before them, which it would ignore. Set class_token=False in the encoder that made them."
        )


def check_features(connector: nn.Module, features: Features, width: int, level_widths: tuple[int, ...] = ()) -> None:
    """Raises ValueError unless the features have the widths the connector was built for, no prefix and no padding."""
    check_patches(connector, features, width, level_widths)
    if features.valid is not None:
        raise ValueError(
            f"{type(connector).__name__} does not look around padding, so padded features (with a `valid` mask) would "
            f"put padding before the language model. Encode inputs of one length at a time, or use QFormerConfig, "
            f"which skips padding."
        )
