"""The connectors built on Q-Former layers against the numbers of their public implementations."""

from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from language_models import id_tokenizer, save_language_model
from oracle_files import Oracle, oracles
from torch import Tensor, nn

from isthmus.connectors import AudioQFormerConfig, QFormerConfig, VideoQFormerConfig, WindowedQFormerConfig
from isthmus.connectors.audio_qformer import VIDEO_LLAMA_AUDIO_KEYS
from isthmus.connectors.key_map import KeyMap, load_official
from isthmus.connectors.qformer_keys import connector_part
from isthmus.connectors.video_qformer import VIDEO_LLAMA_KEYS
from isthmus.connectors.windowed_qformer import GRANITE_KEYS, WindowedQFormer, cut
from isthmus.features import Features, FeatureShape, Grid, LLMShape
from isthmus.llms import CausalLM

SHRINKS = {
    "interpolate": "area",
    "offset0": "top-left",
    "offset1": "top-right",
    "offset2": "bottom-left",
    "offset3": "bottom-right",
}


def target(width: int) -> LLMShape:
    return LLMShape(embedding_width=width, hidden_width=width, num_layers=1)


def gradients(module: nn.Module, keys: KeyMap, output: Tensor) -> dict[str, Tensor | None]:
    """Of the mean of the squared output, under the official names."""
    module.zero_grad()
    output.square().mean().backward()
    return dict(keys.to_official({name: weight.grad for name, weight in module.named_parameters()}))


def video_branch(oracle: Oracle) -> tuple[Any, Features]:
    sizes, x = oracle.config, oracle.tensors["inputs/frame_features"]
    inner = QFormerConfig(
        num_queries=sizes["queries"],
        width=sizes["hidden"],
        layers=sizes["layers"],
        heads=sizes["heads"],
        ffn_width=sizes["ffn"],
        cross_every=sizes["image_qformer_cross_attention_freq"],
    )
    assert sizes["video_qformer_cross_attention_freq"] == 1
    config = VideoQFormerConfig(
        image=inner, num_queries=sizes["vq"], layers=sizes["video_qformer_layers"], max_frames=sizes["maxf"]
    )
    grid = Grid(x.shape[1], 1, x.shape[2])
    module = config.build(FeatureShape(width=x.shape[-1], grid=grid), target(sizes["llm"])).eval()
    weights = connector_part(oracle.below("weights/"), VIDEO_LLAMA_KEYS, text=False)
    load_official(module, VIDEO_LLAMA_KEYS, weights, oracle.name)
    return module, Features(tokens=rearrange(x, "b t n c -> b (t n) c"), grid=grid)


def check_video(oracle: Oracle) -> Tensor:
    module, features = video_branch(oracle)
    frames = module.image(features)
    oracle.check("outputs/frame_query_output", frames.flatten(0, 1))
    oracle.check("outputs/frame_hidden_state", module.video.place(frames))
    queries = module.video(frames)
    oracle.check("outputs/video_query_output", queries)
    tokens: Tensor = module(features).tokens
    oracle.check("outputs/video_tokens", tokens)
    oracle.check("outputs/video_attention_mask", torch.ones(tokens.shape[:2]))
    oracle.check_gradients(gradients(module, VIDEO_LLAMA_KEYS, tokens))
    return tokens.detach()


def check_audio(oracle: Oracle) -> None:
    sizes, x = oracle.config, oracle.tensors["inputs/audio_features"]
    config = AudioQFormerConfig(
        num_queries=sizes["aq"],
        width=sizes["hidden"],
        layers=sizes["video_qformer_layers"],
        heads=sizes["heads"],
        ffn_width=sizes["ffn"],
        max_windows=len(oracle.tensors["weights/audio_position_embedding.weight"]),
    )
    grid = Grid(x.shape[1], 1, 1)
    module = config.build(FeatureShape(width=x.shape[-1], grid=grid), target(sizes["llm"])).eval()
    weights = connector_part(oracle.below("weights/"), VIDEO_LLAMA_AUDIO_KEYS, text=False)
    load_official(module, VIDEO_LLAMA_AUDIO_KEYS, weights, oracle.name)
    tokens = module(Features(tokens=x, grid=grid)).tokens
    oracle.check("outputs/audio_tokens", tokens)
    oracle.check("outputs/audio_attention_mask", torch.ones(tokens.shape[:2]))


@oracles("video_llama")
def test_video_llama(name: str, tmp_path: Path) -> None:
    with Oracle(name) as oracle:
        video = check_video(oracle)
        check_audio(oracle)
        sizes, given = oracle.config["llama"], oracle.below("inputs/")
        ends = {"pad": sizes["pad_token_id"], "bos": sizes["bos_token_id"], "eos": sizes["eos_token_id"]}
        tokenizer = id_tokenizer(sizes["vocab_size"], **ends)
        folder = save_language_model("llama", sizes, oracle.below("weights/llama_model."), tokenizer, tmp_path)
        llm = CausalLM(name=folder, max_tokens=sizes["max_position_embeddings"]).build()
        places = given["input_ids"] == oracle.config["image_placeholder_id"]
        embedded = llm.embed(given["input_ids"].masked_fill(places, 0))
        embedded = embedded.masked_scatter(places[..., None], video)
        oracle.check("outputs/inputs_embeds", embedded)
        mask = given["attention_mask"]
        oracle.check("outputs/loss", llm(embedded, mask.bool(), given["labels"]).losses.mean())
        with torch.no_grad():
            logits = llm.model(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits
        oracle.check("outputs/logits", logits)


def windowed(sizes: dict[str, Any], shrink: str, width: int) -> WindowedQFormer:
    """A projector of the sizes that a granite oracle gives."""
    side = sizes["image_side"]
    config = WindowedQFormerConfig(
        query_side=sizes["query_side"],
        window_side=sizes["window_side"],
        shrink=shrink,  # type: ignore[arg-type]
        layers=sizes["qformer_layers"],
        ffn_width=sizes["qformer_intermediate"],
    )
    source = FeatureShape(width=width, grid=Grid(1, side, side))
    return config.build(source, target(sizes["text_hidden"])).eval()


@oracles("granite4_vision_projector")
def test_granite_projector(name: str) -> None:
    with Oracle(name) as oracle:
        sizes, x = oracle.config, oracle.tensors["inputs/x"]
        side = sizes["image_side"]
        cases = {key.split("/")[1] for key in oracle.tensors if key.startswith("outputs/") and key.count("/") == 2}
        for case in sorted(cases):
            module = windowed(sizes, SHRINKS[case], x.shape[-1])
            load_official(module, GRANITE_KEYS, oracle.below("weights/"), name)
            features = Features(tokens=x, grid=Grid(1, side, side))
            maps = rearrange(module.norm(x), "views (h w) c -> views 1 h w c", h=side)
            oracle.check("outputs/windowed_features", cut(maps, sizes["window_side"]))
            oracle.check(f"outputs/{case}/downsampled", module.shrink(maps).flatten(1, 3))
            asked = module.ask(maps)
            oracle.check(f"outputs/{case}/query_embeds", asked)
            seen = module.stack(asked, cut(maps, sizes["window_side"]) + module.positions)
            oracle.check(f"outputs/{case}/window_output", seen)
            tokens = module(features).tokens
            oracle.check(f"outputs/{case}/y", tokens)
            oracle.check_gradients(gradients(module, GRANITE_KEYS, tokens), f"grads/{case}/")
