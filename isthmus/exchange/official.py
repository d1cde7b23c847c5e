"""Connector weights from the repositories that published them, into a run of a model that we name.

A checkpoint of a whole system also holds its encoder and its language model. Those come from the folders that the model
names; what stands in the file is left out, and said. Everything else has to fit exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from isthmus.branches import Branch
from isthmus.connectors import ConnectorConfig, Idefics2Config, LinearConfig, MlpConfig, PixelShuffleConfig
from isthmus.connectors.audio_qformer import VIDEO_LLAMA_AUDIO_KEYS, AudioQFormerConfig
from isthmus.connectors.c_abstractor import C_ABSTRACTOR_KEYS, CAbstractorConfig
from isthmus.connectors.d_abstractor import D_ABSTRACTOR_KEYS, DAbstractorConfig
from isthmus.connectors.gated_cross_attention import FLAMINGO_KEYS, GatedCrossAttentionConfig
from isthmus.connectors.honeybee_mlp import HONEYBEE_MLP_KEYS, HoneybeeMlpConfig, without_class_position
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
from isthmus.connectors.qllama import QLlamaConfig
from isthmus.connectors.qllama_start import INTERNVL_G_KEYS
from isthmus.connectors.qwen3vl_mergers import QWEN3VL_KEYS, Qwen3VlConfig
from isthmus.connectors.qwen_vl import QWEN_VL_KEYS, QwenVlConfig
from isthmus.connectors.token_packer import TOKEN_PACKER_KEYS, TokenPackerConfig
from isthmus.connectors.video_qformer import VIDEO_LLAMA_KEYS, VideoQFormerConfig
from isthmus.connectors.windowed_streams import WindowedStreamsConfig, granite_keys
from isthmus.exchange.flamingo import flamingo_part
from isthmus.exchange.folders import Imported, write_run, write_whole_folder
from isthmus.exchange.key_maps import INTERNVL, INTERNVL_NATIVE, LLAVA_LINEAR, LLAVA_MLP, TWO_LINEAR
from isthmus.features import BranchName
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
    branch: BranchName = "image"
    """The branch whose connector it is, in a model of several."""


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
_VIDEO_LLAMA = _BLIP | {
    "llama_model.": "the language model",
    "t5_proj.": "BLIP-2's way to another language model",
    "opt_proj.": "BLIP-2's way to another language model",
    "audio_encoder.": "the audio encoder",
    "audio_": "the audio branch",
}
_VIDEO_LLAMA_AUDIO = _VIDEO_LLAMA | dict.fromkeys(
    ("video_", "Qformer.", "query_tokens", "ln_vision.", "llama_proj."), "the vision branch"
)
_FLAMINGO = {"lang_encoder.": "the language model and its blocks", "vision_encoder.": "the vision encoder"}
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
    _layout("OpenFlamingo", PerceiverConfig, below(PERCEIVER_KEYS, "resampler"), _FLAMINGO),
    _layout("OpenFlamingo", GatedCrossAttentionConfig, FLAMINGO_KEYS, _FLAMINGO),
    _layout("InternVL 1.0", QLlamaConfig, INTERNVL_G_KEYS, {"vision_model.": "the vision encoder"}),
    _layout("Video-LLaMA", VideoQFormerConfig, VIDEO_LLAMA_KEYS, _VIDEO_LLAMA),
    Layout(
        system="Video-LLaMA",
        connector=AudioQFormerConfig,
        keys=VIDEO_LLAMA_AUDIO_KEYS,
        elsewhere=_VIDEO_LLAMA_AUDIO,
        branch="audio",
    ),
    _layout("transformers Granite4Vision", WindowedStreamsConfig, granite_keys(()), _NATIVE),
    _layout("MobileVLM", LdpConfig, LDP_KEYS, _LLAVA),
    _layout("MobileVLM V2", LdpV2Config, LDP_V2_KEYS, _LLAVA),
    _layout("MQT-LLaVA", MatryoshkaConfig, MATRYOSHKA_KEYS, _LLAVA),
    _layout("TokenPacker", TokenPackerConfig, TOKEN_PACKER_KEYS, _LLAVA),
)
"""Every published form that can be read, by the connector it belongs to."""


def import_official(path: str | Path, folder: Path, model: Model) -> Imported:
    """The connector weights in a file or folder as a run of `model`, whose backbones are the ones it names.

    A model without a language model (stage 1 of BLIP-2 and InternVL) takes the connector with its heads. A model with
    branches takes the connector of each.

    Raises:
        ValueError: no published form of this connector, or of a branch's, is in the file, or its weights do not fit,
            naming each that is missing, unknown or of another shape.
    """
    state = read_state(path)
    source = model.source()
    alone = model.llm is None
    connector = model.connector.build_alone(source) if alone else model.connector.build(source, model.target())
    arrange = nn.Module() if alone else model.arrange.build(model.target())
    layout = find_layout(state, model.connector, connector.state_dict())
    _check_covered(connector, layout, path)
    given, rest = _split(state, layout, model)
    load_official(connector, layout.keys, given, f"{path} ({layout.system})")
    newline = next((rest.pop(name) for name in NEWLINES if name in rest), None)
    _load_newline(arrange, newline, path)
    own = arrange.state_dict()
    heard: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for name, branch in model.branches.items():
        made, used = _branch_part(name, branch, rest, model, path)
        rest = {key: value for key, value in rest.items() if key not in used}
        heard |= {f"{name}.connector.{key}": value for key, value in made.items()}
        counts[f"{name} branch"] = len(used)
    left = _left(rest, layout, model, path)
    if newline is not None and not own:
        left[NEWLINES[0]] = f"{type(model.arrange).__name__} puts no vector at the end of a row"
    tensors = {f"connector.{key}": value for key, value in connector.state_dict().items()}
    tensors |= {f"arrange.{key}": value for key, value in own.items()} | heard

    def fill(partial: Path) -> None:
        write_run(partial, name=f"imported/{folder.name}", model=model, tensors=tensors, origin=str(path), left=left)

    write_whole_folder(folder, fill)
    taken = {"connector": len(given), "arrangement": len(own), **counts}
    return Imported(run=Run(folder), taken=taken, left=left)


def _branch_part(
    name: BranchName, branch: Branch, state: Mapping[str, Tensor], model: Model, path: str | Path
) -> tuple[dict[str, Tensor], frozenset[str]]:
    """A branch's connector under our names, and the names in the file that it was made of.

    Raises:
        ValueError: as `import_official`.
    """
    connector = branch.connector.build(branch.encoder.shape(), model.target())
    layout = find_layout(state, branch.connector, connector.state_dict(), branch=name)
    _check_covered(connector, layout, path)
    _load_newline(branch.arrange.build(model.target()), None, path)
    mine = connector_part(state, layout.keys, text=False)
    given = {key: value.to(torch.float32) for key, value in mine.items()}
    load_official(connector, layout.keys, given, f"{path} ({layout.system}, the {name} branch)")
    return connector.state_dict(), frozenset(mine)


def _check_covered(connector: nn.Module, layout: Layout, path: str | Path) -> None:
    """Raises ValueError when the connector has weights that no published checkpoint of this form holds."""
    own = connector.state_dict()
    covered = layout.keys.to_ours(layout.keys.to_official(own))
    bare = [key for key in own if key not in covered]
    if bare:
        raise ValueError(
            f"{path} cannot fill {', '.join(bare[:5])} of {type(connector).__name__}: {layout.system} publishes no "
            f"such weights. Name a recipe whose connector ends where theirs does: one without a language model "
            f"(llm=None), from whose run the next stage starts, or a connector with project=False."
        )


def _load_newline(arrange: nn.Module, newline: Tensor | None, path: str | Path) -> None:
    """LLaVA's one vector for the ends of rows, wherever the arrangement keeps it. Raises ValueError on a misfit."""
    own = arrange.state_dict()
    lacking = [key for key in own if newline is None or key.rpartition(".")[2] != "newline"]
    if lacking:
        raise ValueError(
            f"{path} has no {', '.join(lacking)} for {type(arrange).__name__}: of an arrangement's weights "
            f"{NEWLINES[0]} alone is published. Import the whole, or name a recipe with another arrangement."
        )
    wrong = [key for key, value in own.items() if newline is not None and newline.shape != value.shape]
    if wrong and newline is not None:
        raise ValueError(
            f"{NEWLINES[0]} in {path} is {tuple(newline.shape)}, wanted {tuple(own[wrong[0]].shape)}: name a recipe "
            f"with the language model that it was trained for."
        )
    arrange.load_state_dict({key: newline.to(torch.float32) for key in own} if newline is not None else {})


def find_layout(
    state: Mapping[str, Tensor],
    config: ConnectorConfig,
    own: Mapping[str, Tensor],
    *,
    branch: BranchName = "image",
) -> Layout:
    """The published form that most of the names are of; a branch besides that of images has forms of its own.

    Raises:
        ValueError: no form is known for the connector, or none of its names is in the file.
    """
    allowed = [layout for layout in LAYOUTS if branch in ("image", layout.branch)]
    fitting = [layout for layout in allowed if type(config) is layout.connector]
    whose, way = type(config).__name__, "Name the recipe whose connector they are."
    if branch != "image":
        whose = f"{whose} in the {branch} branch"
        way = f"Name a recipe without the {branch} branch: a later stage may add it, and starts it fresh."
    if isinstance(config, WindowedStreamsConfig):
        streams = granite_keys([shrink for _, shrink in config.streams])
        fitting = [replace(layout, keys=streams) for layout in fitting]
    if not fitting:
        known = sorted({layout.connector.__name__ for layout in allowed})
        raise ValueError(f"No published weights of {whose} are known here; of these there are: {known}. {way}")

    def found(layout: Layout) -> int:
        return sum(layout.keys.prefix + name in state for name in layout.keys.to_official(own))

    best = max(fitting, key=found)
    if not found(best):
        wanted = [best.keys.prefix + name for name in best.keys.to_official(own)]
        raise ValueError(
            f"The file holds no weights of {whose}: its names begin {sorted(state)[:4]}, wanted were those of "
            f"{', '.join(dict.fromkeys(layout.system for layout in fitting))}, such as {wanted[:2]}. {way}"
        )
    return best


def _split(state: Mapping[str, Tensor], layout: Layout, model: Model) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What belongs to the connector (named below the prefix, in float32), and the rest."""
    config, cut = model.connector, len(layout.keys.prefix)
    if isinstance(config, GatedCrossAttentionConfig):
        mine, rest = flamingo_part(state, model)
        return {key: value.to(torch.float32) for key, value in mine.items()}, rest
    if isinstance(config, (QFormerConfig, InstructQFormerConfig)):
        mine = _qformer_part(state, layout, config.qformer if isinstance(config, InstructQFormerConfig) else config)
    elif isinstance(config, (VideoQFormerConfig, AudioQFormerConfig)):
        mine = connector_part(state, layout.keys, text=False)
    elif isinstance(config, QLlamaConfig):
        mine = {key: value for key, value in state.items() if key.startswith(_QLLAMA) and not _is_buffer(key)}
    else:
        prefix = layout.keys.prefix
        mine = {key: value for key, value in state.items() if key.startswith(prefix) and not _not_ours(key, layout)}
    rest = {key: value for key, value in state.items() if key not in mine and not _is_buffer(key)}
    given = {key[cut:]: value.to(torch.float32) for key, value in mine.items()}
    return without_class_position(given, model.source().grid.size), rest


def _qformer_part(state: Mapping[str, Tensor], layout: Layout, config: QFormerConfig) -> dict[str, Tensor]:
    """The Q-Former's tensors, its text side and heads where it was built with them."""
    heads = ("vision_proj.", "text_proj.", "itm_head.", "temp")
    dropped = () if config.embedding else (*heads, "Qformer.cls.")
    return {
        key: value
        for key, value in connector_part(state, layout.keys, text=config.text).items()
        if not key.startswith(dropped)
        and (not key.startswith("vision_model.") or key.startswith("vision_model.post_layernorm."))
    }


_QLLAMA = ("query_tokens", "qllama.", "clip_projector", "text_projection", "logit_scale", "itm_head.")
"""What names of InternVL 1.0 begin with that are not its vision tower's."""


def _is_buffer(key: str) -> bool:
    """What LLaMA's and BERT's code saved beside the weights: numbers that follow from the sizes."""
    return (key.startswith("qllama.") and key.endswith("rotary_emb.inv_freq")) or key.endswith(".position_ids")


def _not_ours(key: str, layout: Layout) -> bool:
    """A name below the connector's prefix that its map does not know, where the prefix is shared (Qwen-VL's visual)."""
    own = _SHARED_PREFIX.get(layout.system)
    return own is not None and not key.removeprefix(layout.keys.prefix).startswith(own)


_SHARED_PREFIX = {
    "Qwen-VL": ("attn_pool.", "ln_post.", "proj"),
    "transformers Qwen3-VL": ("merger.", "deepstack_merger_list."),
    "transformers Granite4Vision": ("layerwise_projectors.", "spatial_projectors."),
}
"""Connectors whose names begin as the encoder's do, and what theirs begin with behind that."""


def _left(rest: Mapping[str, Tensor], layout: Layout, model: Model, path: str | Path) -> dict[str, str]:
    """What was left out, by what it is. Raises ValueError for names of nothing that is known."""
    left: dict[str, int] = {}
    unknown: list[str] = []
    filled = [f"the {name} branch" for name in model.branches]
    elsewhere = {begins: what for begins, what in layout.elsewhere.items() if what not in filled}
    for key in rest:
        kind = next((what for begins, what in elsewhere.items() if key.startswith(begins)), "")
        if not kind and (key.startswith(("Qformer.", "vision_proj.", "text_proj.", "itm_head.")) or key == "temp"):
            kind = "the Q-Former's text side and heads, which this connector was built without"
        if kind:
            left[kind] = left.get(kind, 0) + 1
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(f"{path} holds {len(unknown)} weights that {layout.system} does not have: {unknown[:10]}.")
    return {
        f"{count} tensors of {kind}": "the model has none" if kind.endswith(" branch") else _FROM_MODEL
        for kind, count in left.items()
    }


_FROM_MODEL = "the run takes it from the model"
