"""The names that published checkpoints give to Q-Formers' weights, against ours.

Sources: salesforce/LAVIS `blip2_models`, DAMO-NLP-SG/Video-LLaMA, and the Blip2, InstructBlip and Granite4Vision
classes of `transformers`. Checked against: the weights in the oracles (tests/oracles/test_qformers.py, test_stage2.py).
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from isthmus.connectors.key_map import Entry, KeyMap

_ATTENTION = {
    "{}.query": "query",
    "{}.key": "key",
    "{}.value": "value",
    "output.dense": "out",
    "output.LayerNorm": "norm",
}
_FEED_FORWARDS = {
    "intermediate_query.dense": "query_ffn.widen",
    "output_query.dense": "query_ffn.narrow",
    "output_query.LayerNorm": "query_ffn.norm",
}
_TEXT_FEED_FORWARDS = {
    "intermediate.dense": "text_ffn.widen",
    "output.dense": "text_ffn.narrow",
    "output.LayerNorm": "text_ffn.norm",
}
_TEXT_ONLY = ("embeddings.word_embeddings.", "embeddings.position_embeddings.")
_TIED = (".position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
"""What BERT's code saves beside its weights: numbers 0, 1, 2, ..., and weights that are others over again."""


def layer_entries(official: str, ours: str, *, inner: str) -> tuple[Entry, ...]:
    """The layers: `official` and `ours` stand before the layer's number, `inner` is "self" (BERT) or "attention"."""
    entries = [
        Entry(f"{official}.*.{block}.{theirs.format(inner)}", (f"{ours}.*.{mine}.{own}",))
        for block, mine in (("attention", "attention"), ("crossattention", "cross"))
        for theirs, own in _ATTENTION.items()
    ]
    fed = _FEED_FORWARDS | _TEXT_FEED_FORWARDS
    return (*entries, *(Entry(f"{official}.*.{theirs}", (f"{ours}.*.{own}",)) for theirs, own in fed.items()))


def lavis_keys(project: str) -> KeyMap:
    """BLIP-2 and InstructBLIP as LAVIS saves them; `project` is opt_proj, t5_proj or llm_proj, stage 1 has none."""
    return KeyMap(
        "",
        (
            Entry("query_tokens", ("queries",), batched=True),
            Entry("ln_vision", ("ln_vision",)),
            Entry("Qformer.bert.embeddings.word_embeddings", ("words",)),
            Entry("Qformer.bert.embeddings.position_embeddings", ("positions",)),
            Entry("Qformer.bert.embeddings.LayerNorm", ("norm",)),
            *layer_entries("Qformer.bert.encoder.layer", "layers", inner="self"),
            Entry("Qformer.cls.predictions.transform.dense", ("heads.transform",)),
            Entry("Qformer.cls.predictions.transform.LayerNorm", ("heads.norm",)),
            Entry("Qformer.cls.predictions.bias", ("heads.bias",)),
            Entry("vision_proj", ("heads.image",)),
            Entry("text_proj", ("heads.text",)),
            Entry("itm_head", ("heads.match",)),
            Entry("temp", ("heads.temperature",)),
            Entry(project, ("project",)),
        ),
    )


def native_keys(prefix: str = "") -> KeyMap:
    """Blip2ForConditionalGeneration and InstructBlipForConditionalGeneration of `transformers`."""
    return KeyMap(
        prefix,
        (
            Entry("query_tokens", ("queries",), batched=True),
            Entry("vision_model.post_layernorm", ("ln_vision",)),
            Entry("qformer.embeddings.word_embeddings", ("words",)),
            Entry("qformer.embeddings.position_embeddings", ("positions",)),
            *layer_entries("qformer.encoder.layer", "layers", inner="attention"),
            Entry("language_projection", ("project",)),
        ),
    )


BLIP2_NATIVE = replace(native_keys(), entries=(*native_keys().entries, Entry("qformer.layernorm", ("norm",))))
"""`transformers` Blip2, whose norm of the queries stands outside the embeddings."""

INSTRUCTBLIP_NATIVE = replace(
    native_keys(), entries=(*native_keys().entries, Entry("qformer.embeddings.layernorm", ("norm",)))
)
"""`transformers` InstructBlip, whose norm stands inside the embeddings; the connector is `InstructQFormer.qformer`."""


def timed_entries(name: str, ours: str) -> tuple[Entry, ...]:
    """Video-LLaMA's outer Q-Formers: `name` is video or audio, `ours` stands before our names."""
    return (
        Entry(f"{name}_query_tokens", (f"{ours}.queries",), batched=True),
        Entry(f"{name}_Qformer.bert.embeddings.LayerNorm", (f"{ours}.stack.norm",)),
        *layer_entries(f"{name}_Qformer.bert.encoder.layer", f"{ours}.stack.layers", inner="self"),
    )


def below(keys: KeyMap, ours: str) -> KeyMap:
    """The same map for a module that holds the connector under the name `ours`."""
    return replace(
        keys,
        entries=tuple(replace(entry, ours=tuple(f"{ours}.{name}" for name in entry.ours)) for entry in keys.entries),
    )


def connector_part(state: Mapping[str, Tensor], keys: KeyMap, *, text: bool) -> dict[str, Tensor]:
    """The tensors of a whole checkpoint that a map speaks of, without BERT's copies; the encoder's and LLM's go.

    Without `text` the words and their feed-forwards go too, as stage 2 of BLIP-2 drops them.
    """
    roots = [entry.official.split(".")[0] for entry in keys.entries]
    # Of a part that the map takes one module from, such as the norm at a tower's end, the rest is not the connector's.
    own = {root if roots.count(root) > 1 else entry.official for root, entry in zip(roots, keys.entries, strict=True)}
    dropped = (*_TEXT_ONLY, "cls.predictions.", *(f".{name}." for name in _TEXT_FEED_FORWARDS))
    return {
        key: value
        for key, value in state.items()
        if any(key == root or key.startswith(f"{root}.") for root in own)
        and not key.endswith(_TIED)
        and (text or not any(part in key and "attention.output" not in key for part in dropped))
    }
