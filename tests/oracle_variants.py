"""Oracle files of other seeds, sizes and options, made by implementations that are not ours.

`transformers`' own classes, torch's modules, and the plain modules that the benchmarks time connectors against: none of
them shares code with a connector. Gradients are those of every weight.
"""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from oracle_variants_deepstack import write_deepstack
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.models.granite4_vision.modeling_granite4_vision import Granite4VisionWindowQFormerDownsampler
from transformers.models.idefics2.modeling_idefics2 import Idefics2Connector
from transformers.models.internvl.modeling_internvl import InternVLModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel, Qwen3VLVisionPatchMerger

from benchmarks.references.plain_attention import PlainMatryoshka, PlainPerceiver, PlainQwenVl
from benchmarks.references.plain_honeybee import PlainCAbstractor, PlainDAbstractor, PlainMlp, PlainResampler
from benchmarks.references.plain_maps import PlainAveragePool, PlainLdp, PlainLdpV2, PlainTokenPacker

EAGER = {"attn_implementation": "eager"}


def drawn(module: nn.Module) -> nn.Module:
    """The module with weights of the oracles' sizes, in eval mode."""
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            norm = "norm" in name or "ln_" in name or ".bn." in name
            mean = 1.0 if norm and name.endswith("weight") else 0.0
            nn.init.normal_(weight, mean, 0.15 if weight.dim() > 1 and not norm else 0.1)
    return module.eval()


def weights(module: nn.Module, prefix: str = "weights/") -> dict[str, Tensor]:
    return {f"{prefix}{key}": value.detach().clone() for key, value in module.state_dict().items()}


def gradients(module: nn.Module, y: Tensor, prefix: str = "grads/") -> dict[str, Tensor]:
    """Of the mean of the squared output, for every weight that has one."""
    module.zero_grad()
    y.square().mean().backward()
    return {f"{prefix}{key}": one.grad.clone() for key, one in module.named_parameters() if one.grad is not None}


def write(folder: Path, name: str, config: dict[str, Any], tensors: dict[str, Tensor], **more: Any) -> None:
    """The pair of files."""
    text = {"what": "a variant", "seed": 77, "config": config, **more}
    (folder / f"{name}.json").write_text(json.dumps(text), encoding="utf-8")
    save_file(
        {key: value.detach().contiguous().clone() for key, value in tensors.items()}, folder / f"{name}.safetensors"
    )


def simple(folder: Path, name: str, config: dict[str, Any], module: nn.Module, x: Tensor, out: str = "y") -> None:
    """One input, one output, every gradient."""
    y = drawn(module)(x)
    tensors = {"inputs/x": x, f"outputs/{out}": y, **weights(module)}
    write(folder, name, config, tensors | gradients(module, y))


def projectors(folder: Path) -> None:
    """One image; three layers; grids that do not divide; a third of the sides."""
    mlp = nn.Sequential(nn.Linear(7, 9), nn.GELU(), nn.Linear(9, 9), nn.GELU(), nn.Linear(9, 9))
    said = {"mm_hidden_size": 7, "hidden_size": 9}
    simple(
        folder, "llava_projector_mlp3x_gelu_one", said | {"mm_projector_type": "mlp3x_gelu"}, mlp, torch.randn(1, 4, 7)
    )
    simple(folder, "llava_projector_linear_one", said, nn.Linear(7, 9), torch.randn(1, 3, 7))
    said = {"layer_num": 2, "query_num": 16, "mm_hidden_size": 6, "llm_hidden_size": 5, "num_input_tokens": 25}
    simple(folder, "deco_avgpool_one", said, PlainAveragePool(6, 5, 4), torch.randn(1, 25, 6))
    shuffled(folder)


def shuffled(folder: Path) -> None:
    rows, columns, width = 8, 4, 3
    mlp = drawn(nn.Sequential(nn.LayerNorm(16 * width), nn.Linear(16 * width, 5), nn.GELU(), nn.Linear(5, 5)))
    names = {"0": "layer_norm", "1": "linear_1", "3": "linear_2"}
    tensors = {f"weights_internvl/mlp1.{key}": value for key, value in mlp.state_dict().items()}
    tensors |= {f"weights_transformers/{names[key[0]]}{key[1:]}": value for key, value in mlp.state_dict().items()}

    def fold(maps: Tensor) -> Tensor:
        return InternVLModel.pixel_shuffle(SimpleNamespace(), maps.contiguous(), scale_factor=0.25)

    x = torch.randn(1, rows, columns, width)
    places = torch.arange(rows * columns).reshape(1, rows, columns, 1).expand(-1, -1, -1, width)
    channels = torch.arange(width).expand(1, rows, columns, -1)
    v2 = {"pixel_shuffle": fold(x), "source_token": fold(places), "source_channel": fold(channels)}
    for name, value in v2.items():
        for order, made in (("v2", value), ("v1", value.transpose(1, 2))):
            tensors[f"outputs/{name}_{order}"] = made[0] if name.startswith("source") else made
            if name == "pixel_shuffle":
                tensors[f"outputs/mlp1_of_{order}"] = mlp(made.flatten(1, 2))
    config = {"b": 1, "h": rows, "w": columns, "c": width, "scale_factor": 0.25, "llm_hidden": 5}
    write(folder, "internvl_pixel_shuffle_four", config, tensors | {"inputs/x": x})


def honeybee(folder: Path) -> None:
    """Pooling to a grid that does not divide, pooled positions, one image, no position table."""
    said = {"num_eos_tokens": 0, "hidden_size": 10, "output_hidden_size": 7, "depth": 1, "mlp_depth": 2}
    said |= {"num_query_tokens": 9, "pos_emb": True, "prenorm": False}
    plain: nn.Module = PlainCAbstractor(16, 6, 7, width=10, depth=1, side=3)
    simple(folder, "honeybee_cabstractor_one", said, plain, torch.randn(1, 16, 6), "last_hidden_state")
    said = {"num_input_tokens": 25, "d_model": 12, "output_hidden_size": 7, "num_queries": 9, "decoder_layers": 2}
    said |= {"heads": 2, "n_points": 2, "ffn": 10, "pooled_v_target": "query", "num_eos_tokens": 0, "pos_emb": True}
    plain = PlainDAbstractor(25, 6, 7, side=3, layer=(12, 2, 2, 10), layers=2, pooled="query")
    simple(
        folder,
        "honeybee_dabstractor_query",
        said | {"activation": "relu"},
        plain,
        torch.randn(3, 25, 6),
        "last_hidden_state",
    )
    said = {"depth": 1, "output_hidden_size": 5}
    simple(
        folder,
        "honeybee_mlp_one",
        said,
        PlainMlp(6, 5, depth=1, prenorm=False),
        torch.randn(1, 4, 6),
        "last_hidden_state",
    )
    said = {"num_eos_tokens": 0, "num_query_tokens": 3, "hidden_size": 8, "output_hidden_size": 5}
    said |= {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "layer_norm_eps": 1e-6}
    plain = PlainResampler(6, 5, queries=3, width=8, layers=1, heads=2, inner=12)
    simple(folder, "honeybee_resampler_one", said, plain, torch.randn(1, 4, 6), "last_hidden_state")


def mobile(folder: Path) -> None:
    """A gate that is rounded up, an even and an odd side; fewer patches than tokens."""
    plain: nn.Module = drawn(PlainLdp(6, 40, 16))
    tensors = weights(plain)
    for number, side in enumerate((4, 3)):
        x = torch.randn(1 + number, side**2, 6)
        y = plain(x)
        tensors |= {f"case{number}/x": x, f"case{number}/y": y} | ({} if number else gradients(plain, y))
    write(folder, "mobilevlm_ldp_wide", {"mm_hidden_size": 6, "hidden_size": 40}, tensors)
    plain = drawn(PlainLdpV2(6, 5, 12))
    x = torch.randn(2, 49, 6)
    y = plain(x)
    tensors = weights(plain) | {"case0/x": x, "case0/y": y} | gradients(plain, y)
    write(folder, "mobilevlm_ldpv2_small", {"mm_hidden_size": 6, "hidden_size": 5}, tensors)


def packer(folder: Path) -> None:
    """Two levels and factors 1, 2, 5."""
    x, levels = torch.randn(1, 100, 6), torch.randn(1, 100, 8)
    tensors: dict[str, Tensor] = {"inputs/x": x, "inputs/x_multi": levels}
    first = drawn(PlainTokenPacker(6, 8, 7, width=8, heads=2, factor=1))
    for factor in (1, 2, 5):
        plain = PlainTokenPacker(6, 8, 7, width=8, heads=2, factor=factor).eval()
        plain.load_state_dict(first.state_dict())
        y = plain(x, levels)
        tensors |= {f"outputs/scale{factor}/y": y, **gradients(plain, y, f"grads/scale{factor}/")}
    said = {"raw_grid": 10, "scale_factors": [1, 2, 5], "embed_dim": 8, "num_heads": 2, "kv_dim": 6, "levels": 2}
    write(folder, "tokenpacker_two_levels", said | {"hidden_size": 7}, tensors | weights(first))


def perceivers(folder: Path) -> None:
    """Fewer frames and images than there are positions; three heads; padding that is not named."""
    plain = drawn(PlainPerceiver(6, 1, latents=4, layers=1, heads=3, head_width=2))
    plain.project = nn.Identity()
    own = plain.perceiver
    own.frame_embs, own.media_time_embs = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(4, 1, 6))
    x = torch.randn(2, 3, 2, 3, 6)
    placed = (x + own.frame_embs[:2, None]).flatten(2, 3) + own.media_time_embs[:3]
    y = plain(placed.flatten(0, 1)).unflatten(0, (2, 3))
    said = {"dim": 6, "depth": 1, "dim_head": 2, "heads": 3, "num_latents": 4, "ff_mult": 4}
    tensors = {"inputs/x": x, "outputs/y": y, **weights(own), **gradients(own, y)}
    write(folder, "open_flamingo_perceiver_clips", said | {"max_num_media": 4, "max_num_frames": 5}, tensors)
    text = transformers.MistralConfig(hidden_size=12, intermediate_size=10, hidden_act="gelu", num_attention_heads=2)
    perceiver = {"hidden_size": 12, "hidden_act": "gelu_pytorch_tanh", "resampler_n_latents": 3, "resampler_depth": 1}
    perceiver |= {"resampler_n_heads": 6, "resampler_head_dim": 2, "num_key_value_heads": 3, "rms_norm_eps": 1e-5}
    config = transformers.Idefics2Config(vision_config={"hidden_size": 7}, perceiver_config=perceiver, text_config=text)
    native, x = drawn(Idefics2Connector(config)), torch.randn(1, 5, 7)
    y = native(x, torch.ones(1, 5, dtype=torch.long))
    tensors = {"inputs/x": x, "outputs/y": y, "outputs/modality_projection": native.modality_projection(x)}
    said = {key: value for key, value in perceiver.items() if key != "hidden_act"}
    said |= {"vision_hidden": 7, "text_intermediate": 10, "modality_act": "gelu", "perceiver_act": "gelu_pytorch_tanh"}
    write(folder, "idefics2_perceiver_unmasked", said, tensors | weights(native) | gradients(native, y))


def table(side: int, width: int) -> Tensor:
    """Sines and cosines of column and row, by numpy."""
    rates = 10_000.0 ** -(np.arange(width // 4) / (width / 4))
    rows, columns = np.divmod(np.arange(side * side), side)
    parts = [turn(np.outer(place, rates)) for place in (columns, rows) for turn in (np.sin, np.cos)]
    return torch.from_numpy(np.concatenate(parts, axis=1)).float()


def queries(folder: Path) -> None:
    """One image, other heads, fewer and more patches than queries."""
    plain: nn.Module = drawn(PlainQwenVl(6, 12, queries=25, heads=3))
    plain.attn_pool.pos_embed.data = table(5, 12)
    tensors = {key.replace("attn_pool.", ""): value for key, value in weights(plain).items()}
    cases = {}
    for number, side in enumerate((5, 2, 7)):
        x = torch.randn(1, side**2, 6)
        tensors |= {f"case{number}/x": x, f"case{number}/output": plain(x)}
        cases[f"case{number}"] = {"n_tokens": side**2, "kv_grid": side, "query_grid": 5}
    said = {"grid_size": 5, "embed_dim": 12, "num_heads": 3, "kv_dim": 6}
    write(folder, "qwen_vl_resampler_five", said, tensors, cases=cases)
    places = table(3, 8).half().float()
    first, x = drawn(PlainMatryoshka(8, 5, queries=9, heads=2, tokens=9)), torch.randn(1, 16, 8)
    first.pos_embed.data = places
    tensors = {"inputs/x": x} | weights(first)
    for tokens in (3, 9):
        plain = PlainMatryoshka(8, 5, queries=9, heads=2, tokens=tokens).eval()
        plain.load_state_dict(first.state_dict())
        tensors[f"outputs/m{tokens}"] = y = plain(x)
    said = {"grid_size": 3, "num_queries": 9, "num_heads": 2, "kv_dim": 8, "embed_dim": 5, "tgt_size_hw": [4, 4]}
    tensors |= gradients(plain, y)
    write(folder, "mqt_resampler_nine", said | {"m": [3, 9], "m_of_grads": 9}, tensors)


def natives(folder: Path) -> None:
    """Blocks of three by three; one row without padding; two heads and layers; another activation, an odd border."""
    for name, after in (("main", False), ("deepstack", True)):
        vision = {"hidden_size": 5, "spatial_merge_size": 3, "out_hidden_size": 7}
        merger = Qwen3VLVisionPatchMerger(SimpleNamespace(**vision), use_postshuffle_norm=after)
        simple(folder, f"qwen3vl_merger_{name}_three", vision, merger, torch.randn(18, 5))
    qwen3vl(folder)
    said = {"image_side": 6, "query_side": 2, "window_side": 3, "text_hidden": 10, "qformer_layers": 2}
    said |= {"qformer_intermediate": 12}
    given = {"image_size": 6, "patch_size": 1, "hidden_size": 128}
    inner = transformers.Blip2QFormerConfig(
        hidden_size=128, num_attention_heads=2, encoder_hidden_size=128, num_hidden_layers=2, intermediate_size=12,
        cross_attention_frequency=1, use_qformer_text_input=False, **EAGER,
    )  # fmt: skip
    config = SimpleNamespace(
        text_config=SimpleNamespace(hidden_size=10), vision_config=SimpleNamespace(**given), projector_dropout=0.0,
        downsample_rate="2/3", qformer_config=inner,
    )  # fmt: skip
    native, x = drawn(Granite4VisionWindowQFormerDownsampler(config)), torch.randn(1, 36, 128)
    y = native(x)
    tensors = {
        "inputs/x": x,
        "outputs/interpolate/y": y,
        **weights(native),
        **gradients(native, y, "grads/interpolate/"),
    }
    write(folder, "granite4_vision_projector_third", said, tensors)
    clip = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4}
    clip |= {"image_size": 14, "patch_size": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-4}
    tower = drawn(transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**clip, **EAGER)))
    pixels = torch.randn(1, 3, 14, 14)
    seen = tower(pixels, output_hidden_states=True)
    tensors = {f"outputs/hidden_states_{number}": one for number, one in enumerate(seen.hidden_states)}
    tensors |= {
        "outputs/select_1_patch": seen.hidden_states[1][:, 1:],
        "outputs/select_-3_cls_patch": seen.hidden_states[0],
    }
    tensors |= {"outputs/last_hidden_state": seen.last_hidden_state, "outputs/pooler_output": seen.pooler_output}
    write(folder, "llava_feature_select_border", clip, tensors | {"inputs/pixel_values": pixels} | weights(tower))


def qwen3vl(folder: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 500.0, "mrope_section": [2, 1, 1]}
    config = transformers.models.qwen3_vl.configuration_qwen3_vl.Qwen3VLTextConfig(
        vocab_size=20, hidden_size=16, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-5, rope_parameters=rope, **EAGER,
    )  # fmt: skip
    text, visual = drawn(Qwen3VLTextModel(config)), torch.zeros(1, 7, dtype=torch.bool)
    visual[0, [1, 2, 5]] = True
    deeper = [torch.randn(3, 16) for _ in range(2)]
    run = {"inputs_embeds": torch.randn(1, 7, 16), "attention_mask": torch.ones(1, 7, dtype=torch.long)}
    with torch.no_grad():
        plain = text(**run, use_cache=False).last_hidden_state
        added = text(**run, use_cache=False, visual_pos_masks=visual, deepstack_visual_embeds=deeper).last_hidden_state
    tensors = {f"inputs/{key}": value for key, value in run.items()} | weights(text)
    tensors |= {f"inputs/deepstack_visual_embeds_{number}": one for number, one in enumerate(deeper)}
    tensors |= {"outputs/last_hidden_state": added, "outputs/last_hidden_state_without_deepstack": plain}
    said = {"hidden_size": 16, "intermediate_size": 12, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8}
    said |= {"vocab": 20, "rope": rope, "rms_norm_eps": 1e-5}
    write(folder, "qwen3vl_deepstack_every_layer", said, tensors | {"inputs/visual_pos_masks": visual.long()})


def gated(folder: Path) -> None:
    """All images before a text are seen; one row begins without one, and so sees the mean of all."""
    width, heads, inner, seen = 6, 2, 3, 5
    rows, length, images, latents = 2, 5, 2, 2
    named: dict[str, tuple[int, ...]] = {"attn.norm.weight": (width,), "attn.norm.bias": (width,)}
    named |= {"attn.to_q.weight": (heads * inner, width), "attn.to_kv.weight": (2 * heads * inner, seen)}
    named |= {"attn.to_out.weight": (width, heads * inner), "attn_gate": (1,), "ff.0.weight": (width,)}
    named |= {
        "ff.0.bias": (width,),
        "ff.1.weight": (2 * width, width),
        "ff.3.weight": (width, 2 * width),
        "ff_gate": (1,),
    }
    made = {key: torch.randn(*shape) * 0.3 + 0.2 for key, shape in named.items()}
    x, media = torch.randn(rows, length, width), torch.randn(rows, images, latents, seen)
    marks = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 1, 1, 0]])
    norm = nn.functional.layer_norm
    query = norm(x, (width,), made["attn.norm.weight"], made["attn.norm.bias"]) @ made["attn.to_q.weight"].T
    key, value = (media.flatten(1, 2) @ made["attn.to_kv.weight"].T).chunk(2, dim=-1)
    apart = [one.unflatten(-1, (heads, inner)).transpose(1, 2) for one in (query, key, value)]
    scores = apart[0] @ apart[1].transpose(-1, -2) / math.sqrt(inner)
    number = torch.arange(images).repeat_interleave(latents) + 1
    hidden = marks.cumsum(1)[:, None, :, None] < number
    found = scores.masked_fill(hidden, -torch.finfo(torch.float32).max).softmax(-1) @ apart[2]
    h = x + made["attn_gate"].tanh() * (found.transpose(1, 2).flatten(2) @ made["attn.to_out.weight"].T)
    fed = nn.functional.gelu(norm(h, (width,), made["ff.0.weight"], made["ff.0.bias"]) @ made["ff.1.weight"].T)
    y = h + made["ff_gate"].tanh() * (fed @ made["ff.3.weight"].T)
    tensors = {"inputs/x": x, "inputs/media": media, "inputs/media_locations": marks, "outputs/y": y}
    said = {"dim": width, "dim_visual": seen, "dim_head": inner, "heads": heads, "only_attend_immediate_media": False}
    tensors |= {f"weights/{key}": value for key, value in made.items()}
    write(folder, "open_flamingo_gated_xattn_all", said, tensors)


def official(name: str) -> str:
    """Video-LLaMA's name of a weight of `Blip2QFormerModel`."""
    if name.startswith("layernorm."):
        return f"bert.embeddings.LayerNorm.{name.removeprefix('layernorm.')}"
    return "bert." + name.replace("attention.attention.", "attention.self.")


def video_llama(folder: Path) -> None:
    """More layers, fewer frames and windows than positions; BLIP-2's Q-Former of `transformers` in all three places."""
    said = {"hidden": 12, "heads": 3, "ffn": 14, "layers": 3, "queries": 2, "vq": 3, "aq": 2, "maxf": 6, "llm": 16}
    said |= {
        "image_qformer_cross_attention_freq": 2,
        "video_qformer_layers": 3,
        "video_qformer_cross_attention_freq": 1,
    }
    stacks, tensors = {}, {}
    for name, source, every, layers in (("", 10, 2, 3), ("video_", 12, 1, 3), ("audio_", 5, 1, 3)):
        inner = transformers.Blip2QFormerConfig(
            hidden_size=12, num_attention_heads=3, intermediate_size=14, num_hidden_layers=layers,
            encoder_hidden_size=source, cross_attention_frequency=every, use_qformer_text_input=False, **EAGER,
        )  # fmt: skip
        stacks[name] = drawn(transformers.Blip2QFormerModel(inner))
        state = stacks[name].state_dict().items()
        tensors |= {f"weights/{name}Qformer.{official(key)}": value for key, value in state}
    asked = {"": torch.randn(1, 2, 12), "video_": torch.randn(1, 3, 12), "audio_": torch.randn(1, 2, 12)}
    places, windows = torch.randn(6, 12), torch.randn(9, 5)
    norm, project, heard = drawn(nn.LayerNorm(10)), drawn(nn.Linear(12, 16)), drawn(nn.Linear(12, 16))
    for leaf in (asked["video_"], places):
        leaf.requires_grad_()
    tensors |= {f"weights/{name}query_tokens": value for name, value in asked.items()}
    tensors |= {"weights/video_frame_position_embedding.weight": places}
    tensors |= {"weights/audio_position_embedding.weight": windows}
    for name, module in (("ln_vision", norm), ("llama_proj", project), ("audio_llama_proj", heard)):
        tensors |= weights(module, f"weights/{name}.")
    x, sound = torch.randn(2, 4, 5, 10), torch.randn(2, 3, 5)

    def look(name: str, seen: Tensor) -> Tensor:
        made: Tensor = stacks[name](asked[name].expand(len(seen), -1, -1), encoder_hidden_states=seen).last_hidden_state
        return made

    frames = look("", norm(x.flatten(0, 1)))
    placed = (frames.unflatten(0, (2, 4)) + places[:4, None]).flatten(1, 2)
    answer = look("video_", placed)
    tokens = project(answer)
    outputs = {"frame_query_output": frames, "frame_hidden_state": placed, "video_query_output": answer}
    outputs |= {"video_tokens": tokens, "video_attention_mask": torch.ones(2, 3, dtype=torch.long)}
    outputs |= {"audio_tokens": heard(look("audio_", sound + windows[:3]))}
    outputs |= {"audio_attention_mask": torch.ones(2, 2, dtype=torch.long)}
    tokens.square().mean().backward()
    tensors |= {"grads/llama_proj.weight": project.weight.grad, "grads/video_query_tokens": asked["video_"].grad}
    tensors |= {"grads/video_frame_position_embedding.weight": places.grad}
    sizes = {"vocab_size": 20, "max_position_embeddings": 32, "hidden_size": 16, "intermediate_size": 12}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0}
    sizes |= {"bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}
    llama = drawn(transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **EAGER)))
    ids = torch.tensor([[1, 4, 19, 19, 19, 7, 8, 2], [1, 19, 19, 19, 9, 2, 0, 0]])
    mask, marks = (ids != 0).long(), ids == 19
    labels = ids.masked_fill(~mask.bool() | marks | (ids == 1), -100)
    embedded = llama.get_input_embeddings()(ids.masked_fill(marks, 0)).masked_scatter(marks[..., None], tokens)
    written = llama(inputs_embeds=embedded, attention_mask=mask, labels=labels)
    outputs |= {"inputs_embeds": embedded, "logits": written.logits, "loss": written.loss}
    given = {"frame_features": x, "audio_features": sound, "input_ids": ids, "attention_mask": mask, "labels": labels}
    tensors |= weights(llama, "weights/llama_model.") | {f"inputs/{key}": value for key, value in given.items()}
    tensors |= {f"outputs/{key}": value for key, value in outputs.items()}
    write(folder, "video_llama_deeper", said | {"llama": sizes, "image_placeholder_id": 19}, tensors)


def make_folder(folder: Path) -> list[str]:
    """Writes every variant; returns their names."""
    torch.manual_seed(77)
    makers = (
        projectors, honeybee, mobile, packer, perceivers, queries, natives, gated, write_deepstack, video_llama,
    )  # fmt: skip
    for make in makers:
        make(folder)
    return sorted(path.stem for path in folder.glob("*.json"))
