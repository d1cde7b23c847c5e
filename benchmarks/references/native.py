"""The classes of `transformers` that hold a whole connector, made to take features alone."""

import math
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.granite4_vision.modeling_granite4_vision import Granite4VisionWindowQFormerDownsampler
from transformers.models.idefics2.modeling_idefics2 import Idefics2Connector
from transformers.models.instructblip.modeling_instructblip import InstructBlipQFormerModel
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchMerger

from isthmus.connectors import Idefics2Config, QFormerConfig, WindowedQFormerConfig

EPS = 1e-12


def llava(in_dim: int, out_dim: int) -> nn.Module:
    """LlavaMultiModalProjector."""
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(hidden_size=in_dim, num_attention_heads=1),
        text_config=transformers.LlamaConfig(hidden_size=out_dim, num_attention_heads=1),
    )
    return LlavaMultiModalProjector(config)


def _sizes(config: QFormerConfig, source: int, *, attention: str) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn_width,
        "cross_attention_frequency": config.cross_every,
        "encoder_hidden_size": source,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": EPS,
        "attn_implementation": attention,
    }


class Blip2(nn.Module):
    """`post_layernorm`, Blip2QFormerModel and `language_projection`, as Blip2ForConditionalGeneration joins them."""

    def __init__(self, config: QFormerConfig, source: int, out_dim: int, *, attention: str) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_queries, config.width))
        self.vision_model = nn.ModuleDict({"post_layernorm": nn.LayerNorm(source)})
        sizes = _sizes(config, source, attention=attention)
        self.qformer = transformers.Blip2QFormerModel(transformers.Blip2QFormerConfig(**sizes))
        self.language_projection = nn.Linear(config.width, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.vision_model["post_layernorm"](x)
        queries = self.query_tokens.expand(x.shape[0], -1, -1)
        told = self.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
        return self.language_projection(told)


class InstructBlip(nn.Module):
    """As `Blip2`, with InstructBlipQFormerModel, which reads the instruction too."""

    def __init__(self, config: QFormerConfig, source: int, out_dim: int, *, attention: str) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_queries, config.width))
        self.vision_model = nn.ModuleDict({"post_layernorm": nn.LayerNorm(source)})
        sizes = _sizes(config, source, attention=attention)
        self.qformer = InstructBlipQFormerModel(
            transformers.InstructBlipQFormerConfig(
                vocab_size=config.vocabulary, max_position_embeddings=config.positions, **sizes
            )
        )
        self.language_projection = nn.Linear(config.width, out_dim)

    def forward(self, x: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        seen = self.vision_model["post_layernorm"](x)
        queries = self.query_tokens.expand(x.shape[0], -1, -1)
        everything = torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1)
        told = self.qformer(
            input_ids=ids, attention_mask=everything.long(), query_embeds=queries, encoder_hidden_states=seen
        ).last_hidden_state
        return self.language_projection(told[:, : queries.shape[1]])


class Timed(nn.Module):
    """An outer Q-Former of Video-LLaMA by Blip2QFormerModel, over steps with positions, and its linear layer."""

    def __init__(self, config: QFormerConfig, source: int, out_dim: int, *, steps: int, attention: str) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(1, config.num_queries, config.width))
        self.positions = nn.Embedding(steps, source)
        sizes = _sizes(config, source, attention=attention)
        self.qformer = transformers.Blip2QFormerModel(transformers.Blip2QFormerConfig(**sizes))
        self.project = nn.Linear(config.width, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[views, steps, tokens, channels] -> [views, queries, out]."""
        places = self.positions(torch.arange(x.shape[1], device=x.device))
        seen = (x + places[:, None]).flatten(1, 2)
        queries = self.queries.expand(x.shape[0], -1, -1)
        return self.project(self.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state)


class Video(nn.Module):
    """Video-LLaMA's vision branch: the image Q-Former on every frame, then the outer one."""

    def __init__(
        self, image: QFormerConfig, video: QFormerConfig, source: int, out_dim: int, *, steps: int, attention: str
    ) -> None:
        super().__init__()
        self.image = Blip2(image, source, 1, attention=attention)
        self.image.language_projection = nn.Identity()
        self.video = Timed(video, image.width, out_dim, steps=steps, attention=attention)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        told = self.image(x.reshape(x.shape[0] * frames, -1, x.shape[-1]))
        return self.video(told.reshape(x.shape[0], frames, *told.shape[1:]))


def granite(config: WindowedQFormerConfig, source: int, out_dim: int, side: int, *, attention: str) -> nn.Module:
    """Granite4VisionWindowQFormerDownsampler."""
    sizes = config.sizes(source)
    qformer = transformers.Blip2QFormerConfig(**_sizes(sizes, source, attention=attention))
    whole = transformers.Granite4VisionConfig(
        qformer_config=qformer.to_dict(),
        downsample_rate=f"{config.query_side}/{config.window_side}",
        vision_config={"model_type": "siglip_vision_model", "hidden_size": source, "image_size": side, "patch_size": 1},
        text_config={"model_type": "granite4_vision_text", "hidden_size": out_dim},
    )
    return Granite4VisionWindowQFormerDownsampler(whole)


class Qwen3VlMerger(nn.Module):
    """Qwen3VLVisionPatchMerger on patches that come row by row; its encoder gives them block by block."""

    def __init__(self, source: int, out_dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        config = transformers.Qwen3VLConfig().vision_config
        config.hidden_size, config.out_hidden_size, config.spatial_merge_size = source, out_dim, factor
        self.merger = Qwen3VLVisionPatchMerger(config)

    def forward(self, x: Tensor) -> Tensor:
        side, factor = math.isqrt(x.shape[1]) // self.factor, self.factor
        blocks = x.view(x.shape[0], side, factor, side, factor, -1).transpose(2, 3)
        return self.merger(blocks.reshape(-1, x.shape[-1])).view(x.shape[0], side * side, -1)


class Idefics2(nn.Module):
    """Idefics2Connector."""

    def __init__(self, config: Idefics2Config, source: int, out_dim: int, *, attention: str) -> None:
        super().__init__()
        whole = transformers.Idefics2Config(
            vision_config={"model_type": "idefics2_vision", "hidden_size": source},
            text_config={
                "model_type": "mistral",
                "hidden_size": out_dim,
                "intermediate_size": config.project_width,
                "hidden_act": config.project_activation,
            },
            perceiver_config={
                "model_type": "idefics2_perceiver",
                "hidden_size": out_dim,
                "hidden_act": config.activation,
                "rms_norm_eps": config.norm_eps,
                "resampler_n_latents": config.num_latents,
                "resampler_depth": config.layers,
                "resampler_n_heads": config.heads,
                "num_key_value_heads": config.kv_heads,
                "resampler_head_dim": config.head_width,
            },
        )
        whole.perceiver_config._attn_implementation = attention
        self.connector = Idefics2Connector(whole)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[:2], dtype=torch.long, device=x.device)
        return self.connector(x, mask)
