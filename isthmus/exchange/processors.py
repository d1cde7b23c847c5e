"""Processors of `transformers` that make an image and a question ready as our model does: pixels, tokens, template."""

import importlib.util
from typing import Any

import transformers
from tokenizers.processors import TemplateProcessing
from torch import nn

from isthmus.connectors.instruct_qformer import InstructQFormerConfig
from isthmus.data.prompts import Bounded
from isthmus.data.sample import IMAGE_MARK, VIDEO_MARK
from isthmus.encoders.tiles import AnyresTiles, DynamicTiles
from isthmus.encoders.vision import VisionTower
from isthmus.exchange.templates import chat_template
from isthmus.llms.base import Kind
from isthmus.model import Model
from isthmus.weights import read_tokenizer


def add_image_token(tokenizer: Any) -> int:
    """The id of `<image>`, added behind the vocabulary where the tokenizer has none."""
    if IMAGE_MARK not in tokenizer.get_vocab():
        token = transformers.AddedToken(IMAGE_MARK, special=True, normalized=False)
        tokenizer.add_tokens([token], special_tokens=True)
    return int(tokenizer.convert_tokens_to_ids(IMAGE_MARK))


def make_room(lm: Any, num_tokens: int) -> None:
    """Rows for tokens that were added, each the mean of the others: its logit is the mean logit, never the largest."""
    table: nn.Embedding = lm.get_input_embeddings()
    before = table.num_embeddings
    if num_tokens <= before:
        return
    lm.resize_token_embeddings(num_tokens, mean_resizing=False)
    head = lm.get_output_embeddings()
    for tensor in (lm.get_input_embeddings().weight, head.weight, getattr(head, "bias", None)):
        if tensor is not None:
            tensor.data[before:] = tensor.data[:before].float().mean(dim=0).to(tensor.dtype)


def ends_alone(tokenizer: Any, kind: Kind) -> None:
    """Lets a tokenizer write its own begin-of-text (or for an encoder-decoder end-of-text) token.

    It is for processors that have no chat template to write it; a tokenizer that does so already is left alone.
    """
    written = tokenizer("a")["input_ids"]
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    if kind == "causal" and begin is not None and written[0] != tokenizer.bos_token_id:
        specials, template = [(begin, tokenizer.bos_token_id)], f"{begin} $A"
    elif kind == "encoder-decoder" and end is not None and written[-1] != tokenizer.eos_token_id:
        specials, template = [(end, tokenizer.eos_token_id)], f"$A {end}"
    else:
        return
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, pair=f"{template} $B", special_tokens=specials
    )


def llava_processor(model: Model, tower: VisionTower, tokenizer: Any, patch: int, prefix: int) -> Any:
    """Of Llava, and of LlavaNext for an encoder with tiles."""
    tiles, side = tower.config.tiles, tower.config.image_size
    options = _image_options(tower)
    shared = {
        "tokenizer": tokenizer,
        "patch_size": patch,
        "vision_feature_select_strategy": "default" if prefix else "full",
        "num_additional_image_tokens": prefix,
        "chat_template": chat_template(model.prompt, tokenizer),
        "image_token": IMAGE_MARK,
    }
    if isinstance(tiles, AnyresTiles):
        sizes = [[rows * side, columns * side] for columns, rows in tiles.grids]
        square = {"height": side, "width": side}
        images = _image_processor("LlavaNextImageProcessor")(
            image_grid_pinpoints=sizes, **(options | {"size": square, "crop_size": square, "do_center_crop": False})
        )
        return transformers.LlavaNextProcessor(image_processor=images, **shared)
    made = _image_processor("LlavaImageProcessor" if tower.config.fit == "pad" else "CLIPImageProcessor")
    return transformers.LlavaProcessor(image_processor=made(**options), **shared)


def blip_processor(model: Model, tower: VisionTower, tokenizer: Any, num_queries: int) -> Any:
    """Of Blip2, and of InstructBlip for a connector that reads the question."""
    options = _image_options(tower)
    images = _image_processor("BlipImageProcessor")(**{key: options[key] for key in options if "crop" not in key})
    assert model.llm is not None
    ends_alone(tokenizer, model.llm.kind)
    if isinstance(model.connector, InstructQFormerConfig):
        return transformers.InstructBlipProcessor(
            images, tokenizer, model.connector.tokenizer(), num_query_tokens=num_queries
        )
    return transformers.Blip2Processor(images, tokenizer, num_query_tokens=num_queries)


def idefics2_processor(model: Model, tower: VisionTower, tokenizer: Any, num_latents: int) -> Any:
    """Of Idefics2. An image whose shorter and longer edge are set to one length comes out squashed to a square."""
    assert isinstance(model.prompt, Bounded), "checked before the class was chosen"
    side = tower.config.image_size
    options = {key: value for key, value in _image_options(tower).items() if "crop" not in key}
    images = _image_processor("Idefics2ImageProcessor")(
        **(options | {"size": {"shortest_edge": side, "longest_edge": side}, "do_pad": True}), do_image_splitting=False
    )
    named = {"image_token": IMAGE_MARK, "image_boundary_token": model.prompt.before}
    tokenizer.add_special_tokens({"extra_special_tokens": list(named.values())})
    for name, token in named.items():
        tokenizer._set_model_specific_special_tokens({name: token})
    template = chat_template(model.prompt, tokenizer)
    return transformers.Idefics2Processor(images, tokenizer, image_seq_len=num_latents, chat_template=template)


def internvl_processor(model: Model, tower: VisionTower, tokenizer: Any, num_tokens: int) -> Any:
    """Of InternVL, `None` without torchvision; the tokenizer gets its chat template and the names it is read by.

    The processor writes the tokens around an image. Those that are no tokens of the tokenizer would become ones of its
    own, so they stand in the template, and the processor writes none.
    """
    tiles, style = tower.config.tiles, model.prompt
    before, after = (style.before, style.after) if isinstance(style, Bounded) else ("", "")
    known = {before, after} <= set(tokenizer.get_vocab())
    if not known:
        before, after = "", ""
    named = {
        "context_image_token": IMAGE_MARK,
        "start_image_token": before,
        "end_image_token": after,
        "video_token": VIDEO_MARK,
    }
    template = chat_template(style, tokenizer, bounds=not known)
    tokenizer.add_special_tokens({"extra_special_tokens": [token for token in dict.fromkeys(named.values()) if token]})
    for name, token in named.items():
        tokenizer._set_model_specific_special_tokens({name: token})
    tokenizer.chat_template = template
    if image_backend() != "torchvision":
        return None
    kept = {key: value for key, value in _image_options(tower).items() if "crop" not in key and key != "do_pad"}
    most = tiles.max_tiles if isinstance(tiles, DynamicTiles) else 1
    images = transformers.GotOcr2ImageProcessor(**kept, crop_to_patches=True, min_patches=1, max_patches=most)
    videos = transformers.InternVLVideoProcessor(**kept)
    return transformers.InternVLProcessor(
        images, tokenizer, videos, image_seq_length=num_tokens, chat_template=template
    )


def own_tokenizer(model: Model) -> Any:
    """A fresh copy of the language model's tokenizer, padded on the left as generation needs it."""
    assert model.llm is not None
    tokenizer = read_tokenizer(model.llm.name, padding_side="left" if model.llm.kind == "causal" else "right")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def image_backend() -> str:
    """What resizes images in a class's processor here: "torchvision" where that is installed, else "PIL"."""
    return "torchvision" if importlib.util.find_spec("torchvision") is not None else "PIL"


def _image_processor(name: str) -> Any:
    return getattr(transformers, name if image_backend() == "torchvision" else f"{name}Pil")


def _image_options(tower: VisionTower) -> dict[str, Any]:
    side, norm = tower.config.image_size, tower.normalisation
    crop = tower.config.fit == "crop"
    return {
        "size": {"shortest_edge": side} if crop else {"height": side, "width": side},
        "crop_size": {"height": side, "width": side},
        "do_center_crop": crop,
        "do_resize": True,
        "do_pad": tower.config.fit == "pad",
        "do_convert_rgb": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(norm.mean),
        "image_std": list(norm.std),
        "resample": norm.resample,
    }
