"""Small random models of the native classes of `transformers`, saved with a tokenizer and an image processor's file."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_models import SPECIALS, byte_tokenizer
from tokenizers import normalizers
from tokenizers.processors import TemplateProcessing
from torch import nn

IMAGE = "<image>"
VOCABULARY = 256 + len(SPECIALS) + 1
IMAGE_ID = VOCABULARY - 1
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": VOCABULARY}
VISION = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
_TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 640}
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_center_crop": False,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.3, 0.3, 0.3],
    "size": {"height": 16, "width": 16},
    "resample": 3,
}
_QFORMER = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 32}


def llama(**more: Any) -> Any:
    return transformers.LlamaConfig(**_IDS, **_TEXT, num_key_value_heads=2, intermediate_size=48, **more)


def opt() -> Any:
    return transformers.OPTConfig(**_IDS, **_TEXT, ffn_dim=48, word_embed_proj_dim=32)


def t5() -> Any:
    return transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=2,
    )


def clip(**more: Any) -> Any:
    return transformers.CLIPVisionConfig(**VISION, image_size=16, patch_size=4, **more)


def siglip() -> Any:
    return transformers.SiglipVisionConfig(**VISION, image_size=16, patch_size=4)


def llava(vision: Any, text: Any, layer: int = -2, strategy: str = "default") -> Any:
    return transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_ID,
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
        image_seq_length=16,
    )


def llava_next() -> Any:
    return transformers.LlavaNextConfig(
        vision_config=clip(),
        text_config=llama(),
        image_token_index=IMAGE_ID,
        vision_feature_layer=-2,
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32], [48, 16]],
    )


def internvl(layer: int = -1, *, mean_pooling: bool = True) -> Any:
    vision = transformers.InternVLVisionConfig(
        **VISION, image_size=16, patch_size=4, use_mean_pooling=mean_pooling, use_qk_norm=True
    )
    return transformers.InternVLConfig(
        vision_config=vision,
        text_config=transformers.Qwen2Config(
            **_IDS, **_TEXT, num_key_value_heads=2, intermediate_size=48, tie_word_embeddings=True
        ),
        image_token_id=IMAGE_ID,
        vision_feature_layer=layer,
        image_seq_length=4,
        tie_word_embeddings=True,
    )


def perception() -> Any:
    vision = clip(model_args={"embed_dim": 16})
    return transformers.PerceptionLMConfig(
        vision_config=vision, text_config=llama(), image_token_id=IMAGE_ID, video_token_id=3
    )


def blip2(text: Any) -> Any:
    return transformers.Blip2Config(
        vision_config=transformers.Blip2VisionConfig(**VISION, image_size=16, patch_size=4),
        qformer_config=transformers.Blip2QFormerConfig(**_QFORMER),
        text_config=text,
        num_query_tokens=5,
        image_token_index=IMAGE_ID,
    )


def instructblip(text: Any) -> Any:
    return transformers.InstructBlipConfig(
        vision_config=transformers.InstructBlipVisionConfig(**VISION, image_size=16, patch_size=4),
        qformer_config=transformers.InstructBlipQFormerConfig(
            **_QFORMER, vocab_size=VOCABULARY + 9, max_position_embeddings=64
        ),
        text_config=text,
        num_query_tokens=5,
        image_token_index=IMAGE_ID,
    )


def idefics2() -> Any:
    return transformers.Idefics2Config(
        vision_config={**VISION, "image_size": 16, "patch_size": 4},
        perceiver_config={
            "hidden_size": 32,
            "resampler_n_latents": 5,
            "resampler_depth": 2,
            "resampler_n_heads": 4,
            "resampler_head_dim": 6,
            "num_key_value_heads": 2,
        },
        text_config=transformers.MistralConfig(
            **_IDS, **_TEXT, num_key_value_heads=2, intermediate_size=48, sliding_window=None
        ),
        image_token_id=IMAGE_ID,
    )


def tokenizer() -> Any:
    made = byte_tokenizer()
    made.add_tokens([transformers.AddedToken(IMAGE, special=True, normalized=False)], special_tokens=True)
    assert made.convert_tokens_to_ids(IMAGE) == IMAGE_ID
    return made


def reader_tokenizer() -> Any:
    """A byte tokenizer with BERT's special tokens."""
    made = byte_tokenizer()
    made.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    ends = [(name, made.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")]
    made.backend_tokenizer.normalizer = normalizers.Strip()
    made.backend_tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return made


def make(class_name: str, config: Any, folder: Path) -> Any:
    """The model with weights large enough to matter, saved as its users find it."""
    torch.manual_seed(11)
    model = getattr(transformers, class_name)(config).eval()
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.25)
        elif "norm" not in name.lower():
            nn.init.normal_(weight, std=0.1)
        else:
            nn.init.normal_(weight, mean=1.0 if name.endswith("weight") else 0.0, std=0.1)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    if "Instruct" in class_name:
        reader_tokenizer().save_pretrained(folder / "qformer_tokenizer")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return model
