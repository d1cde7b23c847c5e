"""DeepStack, Qwen3-VL and the granite vision model: tokens added at image positions before decoder layers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle_files import FOLDER, Oracle, oracle_names, oracles, tabled
from tiny_models import byte_tokenizer
from torch import Tensor, nn
from transformers import GraniteConfig, GraniteForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from isthmus.connectors import LinearConfig
from isthmus.connectors.arrange import Anyres, Concatenate, DeepStack, Levels
from isthmus.connectors.key_map import load_official
from isthmus.connectors.qwen3vl_mergers import QWEN3VL_KEYS, Qwen3VlConfig
from isthmus.data.collate import Batch
from isthmus.encoders import EncoderConfig
from isthmus.exchange.key_maps import LLAVA_LINEAR
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Placed, Plan, VisualTokens
from isthmus.llms import AddVisual, CausalLM
from isthmus.llms.additions import AdditionDoor
from isthmus.model import Model, VisionLanguageModel

IMAGE = -200
"""The image's mark in the ids of the LLaVA family."""


@oracles("deepstack_grouping")
def test_which_token_goes_to_which_group(name: str) -> None:
    cases = json.loads((FOLDER / f"{name}.json").read_text())["cases"]
    for case in cases:
        side, tiles = case["patches_per_side"], Grid(1, case["grid_h"], case["grid_w"])
        config = DeepStack(groups=case["num_crops"], sampling=case["sampling"], start_layer=0)
        rows, columns = torch.meshgrid(
            torch.arange(tiles.rows * side), torch.arange(tiles.columns * side), indexing="ij"
        )
        places = torch.stack([rows, columns], dim=-1).float() + 1  # 0 is left for groups without a crop
        crops = places.unfold(0, side, side).unfold(1, side, side).permute(0, 1, 3, 4, 2).reshape(-1, side * side, 2)
        views = torch.cat([torch.full((1, side * side, 2), -1.0), crops])
        plan = Plan(size=(9, 9), tiles=tiles, views=range(len(views)), whole="first", tokens=Grid(1, side, side))
        target = LLMShape(embedding_width=2, hidden_width=2, num_layers=case["num_crops"])
        placed = config.build(target)(VisualTokens(views), (plan,))
        assert torch.equal(placed.tokens, views[0])
        found = [None if not bool(group.any()) else (group - 1).int().tolist() for group in placed.deeper]
        assert found == case["groups_high_res_row_col"], case
    tabled(name, len(cases))


@dataclass(frozen=True, kw_only=True)
class Given(EncoderConfig):
    """Features that a file gives: only their shape is needed."""

    given: FeatureShape

    def shape(self) -> FeatureShape:
        return self.given


def record(layers: nn.ModuleList, into: list[Tensor]) -> None:
    """Keeps every layer's input as the layer gets it, after the door has added to it."""

    def keep(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        into.append(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])

    for layer in layers:
        layer.register_forward_pre_hook(keep, with_kwargs=True)


def deepstack_model(oracle: Oracle, folder: Path) -> VisionLanguageModel:
    sizes, weights = oracle.config, oracle.below("weights/")
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=sizes["vocab"],
            hidden_size=sizes["hidden_size"],
            intermediate_size=sizes["intermediate_size"],
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["heads"],
            rms_norm_eps=sizes["rms_norm_eps"],
            rope_parameters={"rope_type": "default", "rope_theta": sizes["rope_theta"]},
            eos_token_id=2,
            max_position_embeddings=1024,
        )
    )
    own = ("model.mm_projector.", "model.image_newline")
    llama.load_state_dict({key: value for key, value in weights.items() if not key.startswith(own)})
    llama.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    side = sizes["patches_per_side"]
    anyres = sizes["is_anyres_deepstack"]
    arrange = DeepStack(
        groups=sizes["num_crops"],
        start_layer=sizes["deepstack_start_id"],
        interval=sizes["deepstack_interval"],
        every_view=anyres,
        arrange=Anyres(unpad=False) if anyres else Concatenate(),
    )
    encoder = Given(given=FeatureShape(width=sizes["vit_width"], grid=Grid(1, side, side)))
    config = Model(encoder=encoder, connector=LinearConfig(), arrange=arrange, llm=CausalLM(name=str(folder)))
    model = VisionLanguageModel(config, with_encoder=False)
    state = {key.removeprefix(own[0]): value for key, value in weights.items() if key.startswith(own[0])}
    load_official(model.connector, LLAVA_LINEAR, state, oracle.name)
    if anyres:
        model.arrange.load_state_dict({"arrange.newline": weights["model.image_newline"]})
    return model


def deepstack_batch(oracle: Oracle, model: VisionLanguageModel) -> Batch:
    """The rows of the file: ids with one image mark each, which the visual tokens take the place of."""
    sizes, tensors = oracle.config, oracle.tensors
    given = [tensors[f"inputs/vision_features_{number}"] for number in range(len(tensors["inputs/input_ids"]))]
    plans: list[Plan] = []
    for (wide, high), views in zip(sizes["bestgrid_wh"], given, strict=True):
        first = plans[-1].views.stop if plans else 0
        rows = range(first, first + len(views))
        plans.append(Plan(size=(wide * 9, high * 9), tiles=Grid(1, high, wide), views=rows, whole="first"))
    made: dict[str, list[list[int]]] = {"ids": [], "mask": [], "labels": [], "visual": []}
    length = tensors["outputs/attention_mask"].shape[1]
    for row, plan in enumerate(plans):
        real = tensors["inputs/attention_mask"][row].bool()
        ids, labels = tensors["inputs/input_ids"][row][real].tolist(), tensors["inputs/labels"][row][real].tolist()
        place, count = ids.index(IMAGE), model.config.num_visual_tokens(plan)
        longer = {
            "ids": [*ids[:place], *[0] * count, *ids[place + 1 :]],
            "labels": [*labels[:place], *[-100] * count, *labels[place + 1 :]],
            "visual": [*[0] * place, *[1] * count, *[0] * (len(ids) - place - 1)],
        }
        longer["mask"] = [1] * len(longer["ids"])
        for key, values in longer.items():
            filler = -100 if key == "labels" else 0
            made[key].append([*values, *[filler] * (length - len(values))])
    side = sizes["patches_per_side"]
    return Batch(
        ids=torch.tensor(made["ids"]),
        mask=torch.tensor(made["mask"]).bool(),
        labels=torch.tensor(made["labels"]),
        visual=torch.tensor(made["visual"]).bool(),
        plans=tuple(plans),
        owner=tuple(range(len(plans))),
        sample_ids=tuple(f"row {row}" for row in range(len(plans))),
        features=Features(tokens=torch.cat(given), grid=Grid(1, side, side)),
    )


@pytest.mark.parametrize("name", [*oracle_names("deepstack_forward"), *oracle_names("deepstack_forward_anyres")])
def test_the_whole_forward(name: str, tmp_path: Path) -> None:
    with Oracle(name) as oracle, torch.no_grad():
        model = deepstack_model(oracle, tmp_path)
        batch = deepstack_batch(oracle, model)
        placed: Placed = model.see(batch.features, batch.plans)
        for number, part in enumerate(placed.tokens.split(placed.lengths)):
            oracle.check(f"outputs/global_tokens_{number}", part)
        for k, group in enumerate(placed.deeper):
            for number, part in enumerate(group.split(placed.lengths)):
                oracle.check(f"outputs/stacked_group_{k}_image_{number}", part)
        inputs: list[Tensor] = []
        record(model.llm.model.model.layers, inputs)
        logits: list[Tensor] = []
        model.llm.model.model.norm.register_forward_hook(lambda module, args, out: logits.append(out))
        loss = model(batch).loss
        real = batch.mask

        def on_real(key: str, got: Tensor) -> None:
            """Padding is computed from itself in ours and stays zero there: only real positions are compared."""
            if key in oracle.tensors:
                oracle.check(key, torch.where(real[..., None], got, oracle.tensors[key]))

        on_real("outputs/inputs_embeds", model.embed(batch, placed))
        for layer, hidden in enumerate([*inputs, *logits]):
            on_real(f"outputs/hidden_states_{layer}", hidden)
        on_real("outputs/logits", model.llm.head(logits[0]))
        oracle.check("outputs/loss", loss)
        oracle.check("outputs/labels", batch.labels)
        oracle.check("outputs/attention_mask", batch.mask.long())


def add_before(
    layers: nn.ModuleList, visual: Tensor, deeper: tuple[Tensor, ...], where: tuple[int, ...]
) -> AdditionDoor:
    door = AdditionDoor(layers)
    door.open(AddVisual(visual=visual, deeper=deeper, layers=where), len(visual))
    return door


@oracles("qwen3vl_deepstack")
def test_qwen3vl_adds_after_a_layer(name: str) -> None:
    with Oracle(name) as oracle, torch.no_grad():
        sizes = oracle.config
        text = Qwen3VLTextModel(
            Qwen3VLTextConfig(
                vocab_size=sizes["vocab"],
                hidden_size=sizes["hidden_size"],
                intermediate_size=sizes["intermediate_size"],
                num_hidden_layers=sizes["layers"],
                num_attention_heads=sizes["heads"],
                num_key_value_heads=sizes["kv_heads"],
                head_dim=sizes["head_dim"],
                rms_norm_eps=sizes["rms_norm_eps"],
                rope_parameters=sizes["rope"],
                attn_implementation="eager",
            )
        ).eval()
        text.load_state_dict(oracle.below("weights/"))
        given = oracle.below("inputs/")
        mask, visual = given["attention_mask"], given["visual_pos_masks"].bool()
        count = sum(key.startswith("deepstack_visual_embeds_") for key in given)
        deeper = tuple(given[f"deepstack_visual_embeds_{number}"] for number in range(count))
        levels = Levels(layers=tuple(range(1, count + 1)))
        after: list[Tensor] = []
        for layer in text.layers:
            layer.register_forward_hook(lambda module, args, out: after.append(out))
        run = {"inputs_embeds": given["inputs_embeds"], "attention_mask": mask, "use_cache": False}
        oracle.check("outputs/last_hidden_state_without_deepstack", text(**run).last_hidden_state)
        after.clear()
        # After the last layer is before the final norm: there may be as many additions as layers.
        door = add_before(nn.ModuleList([*text.layers, text.norm]), visual, deeper, levels.added_before())
        assert count < door.num_layers
        before: list[Tensor] = []
        record(text.layers, before)
        oracle.check("outputs/last_hidden_state", text(**run).last_hidden_state)
        for layer in range(len(text.layers)):
            oracle.check(f"outputs/layer_input_{layer}", before[layer])
            oracle.check(f"outputs/layer_output_before_add_{layer}", after[layer])


@oracles("qwen3vl_merger_main")
def test_qwen3vl_main_merger(name: str) -> None:
    merge(name, norm_first=True)


@oracles("qwen3vl_merger_deepstack")
def test_qwen3vl_deeper_merger(name: str) -> None:
    merge(name, norm_first=False)


def merge(name: str, *, norm_first: bool) -> None:
    """The file's tokens come block by block: laid out row by row, ours folds them back to the same blocks."""
    with Oracle(name) as oracle:
        sizes, x = oracle.config, oracle.tensors["inputs/x"]
        side, width = sizes["spatial_merge_size"], sizes["hidden_size"]
        blocks = x.reshape(-1, side, side, width)
        rows = blocks.transpose(0, 1).reshape(1, -1, width)
        grid = Grid(1, side, len(blocks) * side)
        target = LLMShape(embedding_width=sizes["out_hidden_size"], hidden_width=1, num_layers=4)
        source = FeatureShape(width=width, grid=grid, level_widths=(width,))
        mergers = Qwen3VlConfig(factor=side).build(source, target)
        part, other = ("merger.", "deepstack_merger_list.0.") if norm_first else ("deepstack_merger_list.0.", "merger.")
        state = {f"{part}{key}": value for key, value in oracle.below("weights/").items()}
        own = QWEN3VL_KEYS.to_official(mergers.state_dict())
        state |= {key: value for key, value in own.items() if key.startswith(other)}
        load_official(mergers, QWEN3VL_KEYS, state, name)
        given = mergers(Features(tokens=rows, grid=grid, levels=(rows,)))
        merged = given.tokens if norm_first else given.levels[0]
        oracle.check("outputs/y", merged[0])
        merged.square().mean().backward()
        grads = QWEN3VL_KEYS.to_official({key: value.grad for key, value in mergers.named_parameters()})
        oracle.check_all("grads/", {key.removeprefix(part): value for key, value in grads.items()}.get)


@oracles("granite4_vision_deepstack")
def test_granite_adds_streams_before_their_layers(name: str) -> None:
    with Oracle(name) as oracle:
        sizes, given = oracle.config, oracle.below("inputs/")
        vocabulary = oracle.tensors["weights/embed_tokens.weight"].shape[0]
        granite = GraniteForCausalLM(
            GraniteConfig(
                vocab_size=vocabulary,
                hidden_size=sizes["hidden"],
                intermediate_size=sizes["intermediate"],
                num_hidden_layers=sizes["layers"],
                num_attention_heads=sizes["heads"],
                num_key_value_heads=sizes["kv_heads"],
                rms_norm_eps=sizes["rms_norm_eps"],
                rope_parameters={"rope_type": "default", "rope_theta": sizes["rope_theta"]},
                embedding_multiplier=sizes["embedding_multiplier"],
                residual_multiplier=sizes["residual_multiplier"],
                attention_multiplier=sizes["attention_multiplier"],
            )
        ).eval()
        text = granite.model
        text.load_state_dict(oracle.below("weights/"))
        streams = {key: given[f"deepstack_features_{key}"].requires_grad_() for key in sorted(stream_layers(given))}
        visual = given["vision_mask"].bool()
        add_before(text.layers, visual, tuple(streams.values()), tuple(streams))
        after: list[Tensor] = []
        for layer in text.layers:
            layer.register_forward_hook(lambda module, args, out: after.append(out))
        embeds = given["inputs_embeds"].masked_fill(visual[..., None], 0.0)
        mask = given["attention_mask"]
        last = text(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state
        real = mask.bool()[..., None]

        def on_real(key: str, got: Tensor) -> None:
            """Outputs at padded positions are not meaningful (the file says so)."""
            if key in oracle.tensors:
                oracle.check(key, torch.where(real, got, oracle.tensors[key]))

        on_real("outputs/last_hidden_state", last)
        for layer, hidden in enumerate(after):
            on_real(f"outputs/layer_{layer}", hidden)
        last[mask.bool()].square().mean().backward()
        found = {key: weight.grad for key, weight in text.named_parameters()}
        found |= {f"deepstack_features_{key}": value.grad for key, value in streams.items()}
        oracle.check_gradients(found)


def stream_layers(given: dict[str, Tensor]) -> list[int]:
    """The decoder layers that the file has a stream for."""
    prefix = "deepstack_features_"
    return [int(key.removeprefix(prefix)) for key in given if key.startswith(prefix)]
