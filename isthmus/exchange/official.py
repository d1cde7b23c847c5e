"""Connector weights from the repositories that published them, into a run of a model that we name.

A checkpoint of a whole system also holds its encoder and its language model. Those come from the folders that the model
names; what stands in the file is left out, and said. Everything else has to fit exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from isthmus.connectors import ConnectorConfig, Idefics2Config, LinearConfig, MlpConfig, PixelShuffleConfig
from isthmus.connectors.c_abstractor import C_ABSTRACTOR_KEYS, CAbstractorConfig
from isthmus.connectors.d_abstractor import D_ABSTRACTOR_KEYS, DAbstractorConfig
from isthmus.connectors.honeybee_mlp import HONEYBEE_MLP_KEYS, HoneybeeMlpConfig
from isthmus.connectors.honeybee_resampler import HONEYBEE_RESAMPLER_KEYS, HoneybeeResamplerConfig
from isthmus.connectors.idefics2 import IDEFICS2_KEYS
from isthmus.connectors.instruct_qformer import InstructQFormerConfig
from isthmus.connectors.key_map import KeyMap, load_official
from isthmus.connectors.ldp import LDP_KEYS, LdpConfig
from isthmus.connectors.ldp_v2 import LDP_V2_KEYS, LdpV2Config
from isthmus.connectors.matryoshka import MATRYOSHKA_KEYS, MatryoshkaConfig
from isthmus.connectors.perceiver import PERCEIVER_KEYS, PerceiverConfig
from isthmus.connectors.qformer import QFormerConfig
from isthmus.connectors.qformer_keys import BLIP2_NATIVE, INSTRUCTBLIP_NATIVE, below, connector_part, lavis_keys
from isthmus.connectors.qwen3vl_mergers import QWEN3VL_KEYS, Qwen3VlConfig
from isthmus.connectors.qwen_vl import QWEN_VL_KEYS, QwenVlConfig
from isthmus.connectors.token_packer import TOKEN_PACKER_KEYS, TokenPackerConfig
from isthmus.exchange.folders import Imported, write_run, write_whole_folder
from isthmus.exchange.key_maps import INTERNVL, INTERNVL_NATIVE, LLAVA_LINEAR, LLAVA_MLP, TWO_LINEAR
from isthmus.model import Model
from isthmus.runs import Run
from isthmus.weights import read_state

NEWLINES = ("model.image_newline", "image_newline")
"""How LLaVA and its native class name the vector that ends a row of tiles."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One published form of a connector's weights: its names, and the names of what stands beside them."""

    system: str
    connector: type[ConnectorConfig]
    keys: KeyMap
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Beginnings of names that are no part of the connector, and what they are."""


_LLAVA = {
    "model.vision_tower.": "the vision encoder",
    "model.layers.": "the language model",
    "model.embed_tokens.": "the language model",
    "model.norm.": "the language model",
    "lm_head.": "the language model",
}
_NATIVE = {"model.vision_tower.": "the vision encoder", "model.language_model.": "the language model"} | {
    "lm_head.": "the language model"
}
_OLD_NATIVE = {"vision_tower.": "the vision encoder", "language_model.": "the language model"}
_BLIP = {
    "visual_encoder.": "the vision encoder",
    "vision_model.": "the vision encoder",
    "opt_model.": "the language model",
    "t5_model.": "the language model",
    "llm_model.": "the language model",
    "language_model.": "the language model",
}
_INTERNVL = {"vision_model.": "the vision encoder", "language_model.": "the language model"}
_QWEN = {
    "transformer.visual.": "the vision encoder, for which transformers has no class",
    "transformer.": "the language model, for which transformers has no class",
    "lm_head.": "the language model, for which transformers has no class",
}


def _shorter(keys: KeyMap) -> KeyMap:
    """The same names as older native checkpoints have them, without "model." in front."""
    return replace(keys, prefix=keys.prefix.removeprefix("model."))


def _layout(system: str, connector: type[ConnectorConfig], keys: KeyMap, elsewhere: Mapping[str, str]) -> Layout:
    return Layout(system=system, connector=connector, keys=keys, elsewhere=elsewhere)


LAYOUTS: tuple[Layout, ...] = (
    _layout("LLaVA", LinearConfig, LLAVA_LINEAR, _LLAVA),
    _layout("LLaVA-1.5", MlpConfig, LLAVA_MLP, _LLAVA),
    _layout("transformers Llava, LlavaNext or PerceptionLM", MlpConfig, TWO_LINEAR, _NATIVE),
    _layout("older transformers Llava or LlavaNext", MlpConfig, _shorter(TWO_LINEAR), _OLD_NATIVE),
    _layout("InternVL-Chat", PixelShuffleConfig, INTERNVL, _INTERNVL),
    _layout("transformers InternVL", PixelShuffleConfig, INTERNVL_NATIVE, _NATIVE),
    _layout("older transformers InternVL", PixelShuffleConfig, _shorter(INTERNVL_NATIVE), _OLD_NATIVE),
    *(_layout(f"BLIP-2 (LAVIS, {end})", QFormerConfig, lavis_keys(end), _BLIP) for end in ("opt_proj", "t5_proj")),
    _layout("transformers Blip2", QFormerConfig, BLIP2_NATIVE, _BLIP),
    *(
        _layout(f"InstructBLIP (LAVIS, {end})", InstructQFormerConfig, below(lavis_keys(end), "qformer"), _BLIP)
        for end in ("llm_proj", "t5_proj")
    ),
    _layout("transformers InstructBlip", InstructQFormerConfig, below(INSTRUCTBLIP_NATIVE, "qformer"), _BLIP),
    _layout("Qwen-VL", QwenVlConfig, QWEN_VL_KEYS, _QWEN),
    _layout("transformers Idefics2", Idefics2Config, IDEFICS2_KEYS, {"model.": "backbones", "lm_head.": "backbones"}),
    _layout("Honeybee", CAbstractorConfig, C_ABSTRACTOR_KEYS, _INTERNVL),
    _layout("Honeybee", DAbstractorConfig, D_ABSTRACTOR_KEYS, _INTERNVL),
    _layout("Honeybee", HoneybeeMlpConfig, HONEYBEE_MLP_KEYS, _INTERNVL),
    _layout("Honeybee", HoneybeeResamplerConfig, HONEYBEE_RESAMPLER_KEYS, _INTERNVL),
    _layout("transformers Qwen3-VL", Qwen3VlConfig, QWEN3VL_KEYS, {"model.": "backbones", "lm_head.": "backbones"}),
    _layout("OpenFlamingo", PerceiverConfig, PERCEIVER_KEYS, {"lang_encoder.": "the language model and its blocks"}),
    _layout("MobileVLM", LdpConfig, LDP_KEYS, _LLAVA),
    _layout("MobileVLM V2", LdpV2Config, LDP_V2_KEYS, _LLAVA),
    _layout("MQT-LLaVA", MatryoshkaConfig, MATRYOSHKA_KEYS, _LLAVA),
    _layout("TokenPacker", TokenPackerConfig, TOKEN_PACKER_KEYS, _LLAVA),
)
"""Every published form that can be read, by the connector it belongs to."""


def import_official(path: str | Path, folder: Path, model: Model) -> Imported:
    """The connector weights in a file or folder as a run of `model`, whose backbones are the ones it names.

    Raises:
        ValueError: no published form of this connector is in the file, or its weights do not fit the model's connector,
            naming each that is missing, unknown or of another shape.
    """
    state = read_state(path)
    target = model.target()
    connector = model.connector.build(model.source(), target)
    arrange = model.arrange.build(target)
    layout = find_layout(state, model.connector, connector.state_dict())
    given, rest = _split(state, layout, model.connector)
    load_official(connector, layout.keys, given, f"{path} ({layout.system})")
    newline = next((rest.pop(name) for name in NEWLINES if name in rest), None)
    own = arrange.state_dict()
    if newline is not None and own:
        arrange.load_state_dict({"newline": newline})
    elif own:
        raise ValueError(f"{path} has no {NEWLINES[0]}, which {type(model.arrange).__name__} needs. Import the whole.")
    left = _left(rest, layout, path)
    if newline is not None and not own:
        left[NEWLINES[0]] = f"{type(model.arrange).__name__} puts no vector at the end of a row"
    tensors = {f"connector.{key}": value for key, value in connector.state_dict().items()}
    tensors |= {f"arrange.{key}": value for key, value in arrange.state_dict().items()}

    def fill(partial: Path) -> None:
        write_run(partial, name=f"imported/{folder.name}", model=model, tensors=tensors, origin=str(path))

    write_whole_folder(folder, fill)
    taken = {"connector": len(given), "arrangement": len(own)}
    return Imported(run=Run(folder), taken=taken, left=left)


def find_layout(state: Mapping[str, Tensor], config: ConnectorConfig, own: Mapping[str, Tensor]) -> Layout:
    """The published form that most of the names are of.

    Raises:
        ValueError: no form is known for the connector, or none of its names is in the file.
    """
    fitting = [layout for layout in LAYOUTS if type(config) is layout.connector]
    if not fitting:
        known = sorted({layout.connector.__name__ for layout in LAYOUTS})
        raise ValueError(
            f"No published weights of {type(config).__name__} are known here; of these there are: {known}."
        )

    def found(layout: Layout) -> int:
        return sum(layout.keys.prefix + name in state for name in layout.keys.to_official(own))

    best = max(fitting, key=found)
    if not found(best):
        wanted = [best.keys.prefix + name for name in best.keys.to_official(own)]
        raise ValueError(
            f"The file holds no weights of {type(config).__name__}: its names begin {sorted(state)[:4]}, wanted were "
            f"those of {', '.join(dict.fromkeys(layout.system for layout in fitting))}, such as {wanted[:2]}. "
            f"Name the recipe whose connector they are."
        )
    return best


def _split(
    state: Mapping[str, Tensor], layout: Layout, config: ConnectorConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What belongs to the connector (named below the prefix, in float32), and the rest."""
    if isinstance(config, (QFormerConfig, InstructQFormerConfig)):
        qformer = config.qformer if isinstance(config, InstructQFormerConfig) else config
        whole = connector_part(state, layout.keys, text=qformer.text)
        heads = ("vision_proj.", "text_proj.", "itm_head.", "temp")
        dropped = () if qformer.embedding else (*heads, "Qformer.cls.")
        mine = {
            key: value
            for key, value in whole.items()
            if not key.startswith(dropped)
            and (not key.startswith("vision_model.") or key.startswith("vision_model.post_layernorm."))
        }
    else:
        prefix = layout.keys.prefix
        mine = {key: value for key, value in state.items() if key.startswith(prefix) and not _not_ours(key, layout)}
    cut = len(layout.keys.prefix)
    rest = {key: value for key, value in state.items() if key not in mine}
    return {key[cut:]: value.to(torch.float32) for key, value in mine.items()}, rest


def _not_ours(key: str, layout: Layout) -> bool:
    """A name below the connector's prefix that its map does not know, where the prefix is shared (Qwen-VL's visual)."""
    own = _SHARED_PREFIX.get(layout.system)
    return own is not None and not key.removeprefix(layout.keys.prefix).startswith(own)


_SHARED_PREFIX = {
    "Qwen-VL": ("attn_pool.", "ln_post.", "proj"),
    "transformers Qwen3-VL": ("merger.", "deepstack_merger_list."),
}
"""Connectors whose names begin as the encoder's do, and what theirs begin with behind that."""


def _left(rest: Mapping[str, Tensor], layout: Layout, path: str | Path) -> dict[str, str]:
    """What was left out, by what it is. Raises ValueError for names of nothing that is known."""
    left: dict[str, int] = {}
    unknown: list[str] = []
    for key in rest:
        if key.startswith(("Qformer.", "vision_proj.", "text_proj.", "itm_head.")) or key == "temp":
            kind = "the Q-Former's text side and heads, which this connector was built without"
        else:
            kind = next((what for begins, what in layout.elsewhere.items() if key.startswith(begins)), "")
        if kind:
            left[kind] = left.get(kind, 0) + 1
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(f"{path} holds {len(unknown)} weights that {layout.system} does not have: {unknown[:10]}.")
    return {f"{count} tensors of {kind}": "the run takes it from the model" for kind, count in left.items()}
