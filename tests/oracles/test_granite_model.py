"""The whole granite vision model: a SigLIP tower, windowed streams, tiles, and additions to a decoder's layers."""

from dataclasses import replace
from typing import Any

import torch
from oracle_files import Oracle, oracles
from transformers import GraniteConfig, GraniteForCausalLM, SiglipVisionConfig, SiglipVisionModel

from isthmus.connectors import WindowedQFormerConfig, WindowedStreamsConfig
from isthmus.connectors.arrange import Anyres, Levels
from isthmus.connectors.key_map import load_official
from isthmus.connectors.windowed_streams import WindowedStreams, granite_keys
from isthmus.encoders.tiles.anyres import AnyresTiles
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Placed, Plan
from isthmus.llms import AddVisual
from isthmus.llms.additions import AdditionDoor

CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")


def hidden_states(oracle: Oracle, views: list[int]) -> tuple[torch.Tensor, ...]:
    """What the tower's layers give for the views that are real."""
    sizes, pixels = oracle.config, oracle.tensors["inputs/pixel_values"]
    tower = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=sizes["vh"],
            intermediate_size=sizes["siglip"]["intermediate"],
            num_hidden_layers=sizes["vlayers"],
            num_attention_heads=sizes["siglip"]["heads"],
            image_size=sizes["image"],
            patch_size=sizes["patch"],
            vision_use_head=False,
            attn_implementation="eager",
        )
    ).eval()
    tower.load_state_dict(oracle.below("weights/vision_tower."))
    real = torch.cat([one[:count] for one, count in zip(pixels, views, strict=True)])
    with torch.no_grad():
        states: tuple[torch.Tensor, ...] = tower(real, output_hidden_states=True).hidden_states
    return states


def plans_of(oracle: Oracle) -> list[Plan]:
    """The tiles of every image, chosen among the model's grids."""
    side = oracle.config["image"]
    tiling = AnyresTiles(grids=tuple((wide // side, high // side) for high, wide in oracle.config["pin"]))
    plans, first = [], 0
    for high, wide in oracle.config["sizes"]:
        cut = tiling.cut((wide, high), side)
        views = range(first, first + cut.num_views)
        plans.append(Plan(size=(wide, high), tiles=cut.grid, views=views, whole=cut.whole))
        first = views.stop
    return plans


def place(oracle: Oracle, states: tuple[torch.Tensor, ...], plans: list[Plan]) -> Placed:
    """Every stream of every image, laid out, from our connector and arrangement."""
    sizes = oracle.config
    query_side, window_side = map(int, sizes["rate"].split("/"))
    patches = sizes["image"] // sizes["patch"]
    corners = CORNERS[: len(sizes["spatial"])]
    mapped, cornered = [layer % len(states) for layer, _ in sizes["dmap"]], sizes["svl"] % len(states)
    read = sorted({*mapped, cornered} if corners else set(mapped))
    streams: tuple[Any, ...] = (
        *((read.index(layer), "area") for layer in mapped),
        *((read.index(cornered), corner) for corner in corners),
    )
    config = WindowedStreamsConfig(
        projector=WindowedQFormerConfig(
            query_side=query_side, window_side=window_side, layers=sizes["qlayers"], ffn_width=sizes["ffn"]
        ),
        streams=streams,
    )
    grid = Grid(1, patches, patches)
    source = FeatureShape(width=sizes["vh"], grid=grid, level_widths=(sizes["vh"],) * (len(read) - 1))
    target = LLMShape(embedding_width=sizes["th"], hidden_width=sizes["th"], num_layers=sizes["layers"])
    connector = config.build(source, target).eval()
    assert isinstance(connector, WindowedStreams)
    weights = oracle.below("weights/")
    # The official model has a projector for every corner, whether a layer takes its stream or not.
    used = tuple(
        [f"layerwise_projectors.{number}." for number in range(len(mapped))]
        + [f"spatial_projectors.{number}." for number in range(len(corners))]
    )
    own = {key: value for key, value in weights.items() if key.startswith(used)}
    load_official(connector, granite_keys([shrink for _, shrink in streams]), own, oracle.name)
    layers = (*(layer for _, layer in sizes["dmap"]), *sizes["spatial"])
    arrange = Levels(layers=layers, blank=True, arrange=Anyres(digits=7))
    layout = arrange.build(target)
    arrange.check(config, source, target)
    layout.arrange.newline.data = weights["image_newline"]
    first, *rest = (states[layer] for layer in read)
    visual = connector(Features(tokens=first, grid=grid, levels=tuple(rest)))
    known = tuple(replace(plan, tokens=config.token_grid(grid)) for plan in plans)
    placed: Placed = layout(visual, known)
    per_view = config.num_tokens(grid)
    assert placed.lengths == tuple(arrange.num_tokens(plan, per_view) for plan in known)
    return placed


def granite(oracle: Oracle) -> Any:
    sizes = oracle.config
    embedding, residual, attention = sizes["multipliers_embedding_residual_attention"]
    model = GraniteForCausalLM(
        GraniteConfig(
            vocab_size=len(oracle.tensors["weights/language_model.embed_tokens.weight"]),
            hidden_size=sizes["th"],
            intermediate_size=sizes["tffn"],
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["heads"],
            num_key_value_heads=sizes["kv"],
            embedding_multiplier=embedding,
            residual_multiplier=residual,
            attention_multiplier=attention,
            attn_implementation="eager",
        )
    ).eval()
    model.model.load_state_dict(oracle.below("weights/language_model."))
    return model.model


@oracles("granite4_vision_model")
def test_granite_model(name: str) -> None:
    with Oracle(name) as oracle, torch.no_grad():
        plans = plans_of(oracle)
        states = hidden_states(oracle, [len(plan.views) for plan in plans])
        for layer, state in enumerate(states):
            oracle.check(f"outputs/vision_hidden_states_{layer}", state)
        placed = place(oracle, states, plans)
        for number, (layer, stream) in enumerate(zip(placed.layers, placed.deeper, strict=True)):
            for image, tokens in enumerate(stream.split(placed.lengths)):
                oracle.check(f"outputs/stream{number}_layer{layer}/image{image}", tokens)
        # Of two streams for one layer the official code keeps the later.
        last = {layer: number for number, layer in enumerate(placed.layers)}
        text, given = granite(oracle), oracle.below("inputs/")
        visual = given["input_ids"] == oracle.config["image_token"]
        door = AdditionDoor(text.layers)
        deeper = tuple(placed.deeper[number] for number in last.values())
        door.open(AddVisual(visual=visual, deeper=deeper, layers=tuple(last)), len(visual))
        embedded = text.embed_tokens(given["input_ids"]).masked_scatter(visual[..., None], placed.tokens)
        got = text(inputs_embeds=embedded, attention_mask=given["attention_mask"], use_cache=False).last_hidden_state
        oracle.check("outputs/last_hidden_state", got)
