"""InternVL 1.0 on an oracle's inputs: what our code makes of them, under the names of the official code.

Run as `python internvl_g.py FILE OUT` with RANK and WORLD_SIZE set, it is one process of several.
"""

import os
import sys
from pathlib import Path

import torch
from blip2_stage1 import Alone, weights_of
from oracle_files import Oracle
from safetensors.torch import save_file
from torch import Tensor, distributed

from isthmus.connectors import QLlamaConfig
from isthmus.connectors.key_map import load_official
from isthmus.connectors.qllama import QLlama
from isthmus.connectors.qllama_reading import QLlamaReading
from isthmus.connectors.qllama_start import INTERNVL_G_KEYS
from isthmus.data.collate import Batch
from isthmus.features import Captions, Features, FeatureShape, Grid, Plan, Text
from isthmus.train.objectives import ITC, ITG, ITM
from isthmus.train.objectives.shared import Shared

Made = tuple[dict[str, Tensor], dict[str, Tensor | None]]


def build(oracle: Oracle) -> QLlama:
    """The QLLaMA of an oracle's sizes with its weights, every one of them."""
    sizes = oracle.config
    config = QLlamaConfig(
        num_queries=sizes["queries"],
        width=sizes["hidden"],
        layers=sizes["layers"],
        heads=sizes["heads"],
        ffn_width=sizes["ffn"],
        cross_every=sizes["cross_freq"],
        eps=sizes["rms_eps"],
        text=True,
        vocabulary=sizes["vocab"],
        embedding=sizes["embed"],
        pool_heads=sizes["pool_heads"],
        temperature=sizes["temp"],
    )
    module = config.build_alone(FeatureShape(width=sizes["vision_width"], grid=Grid(1, 1, sizes["nv"])))
    weights = {
        key: value
        for key, value in weights_of(oracle, "internvl_g_stage2").items()
        if not key.endswith("rotary_emb.inv_freq")
    }
    load_official(module, INTERNVL_G_KEYS, weights, oracle.name)
    return module.train()


def batch_of(given: dict[str, Tensor], captions: Captions) -> Batch:
    """The official inputs as our batch."""
    seen = given["visual_features"]
    rows, patches = seen.shape[:2]
    plan = Plan(size=(1, 1), tiles=Grid(1, 1, 1), views=range(1))
    return Batch(
        ids=captions.match.ids,
        mask=captions.match.mask,
        labels=torch.full_like(captions.match.ids, -100),
        visual=torch.zeros_like(captions.match.mask),
        plans=(plan,) * rows,
        owner=tuple(range(rows)),
        sample_ids=tuple(map(str, range(rows))),
        features=Features(tokens=seen, grid=Grid(1, 1, patches)),
        captions=captions,
    )


def text(given: dict[str, Tensor], name: str) -> Text:
    return Text(ids=given[f"{name}input_ids"], mask=given[f"{name}attention_mask"].bool())


def captions_of(given: dict[str, Tensor], *, ignored: bool) -> Captions:
    """Stage 2's texts; `ignored`: texts of special tokens alone count for nothing."""
    match, negatives, contrast = (text(given, f"{name}_") for name in ("positive", "negative", "summarize"))
    write = text(given, "") if "input_ids" in given else contrast
    rows = len(match.ids)
    return Captions(
        contrast=contrast,
        match=match,
        write=write,
        targets=given.get("labels", torch.full_like(write.ids, -100)),
        image_ids=given.get("image_ids", torch.arange(rows)),
        empty=(match.mask.sum(1) == 2) & ignored,
        negatives=negatives,
        negatives_empty=(negatives.mask.sum(1) == 2) & ignored,
    )


def gradients_of(module: QLlama) -> dict[str, Tensor | None]:
    return INTERNVL_G_KEYS.to_official({name: weight.grad for name, weight in module.named_parameters()})


def stage2(module: QLlama, given: dict[str, Tensor], smoothing: float) -> Made:
    """Contrast, matching and writing."""
    batch = batch_of(given, captions_of(given, ignored=True))
    shared = Shared(Alone(module), batch)
    itc = ITC(gradients="both", label_smoothing=smoothing)
    itm, itg = ITM(negatives="given"), ITG(label_smoothing=0.0)
    for one in (itc, itm, itg):
        one.prepare(shared)
    losses = {name: loss for one in (itm, itc, itg) for name, loss in one.losses(shared).items()}
    counts = {name: count for one in (itm, itc, itg) for name, count in one.counts(batch).items()}
    means = {name: loss / max(1, counts[name]) for name, loss in losses.items()}
    total = means["itm"] + means["itc"] + means["itg"]
    total.backward()
    judged, reading, compared = itm.judge_given(shared), shared.reading, shared.compare("queries", "both")
    assert isinstance(reading, QLlamaReading)
    parts = [reading.joint[part] for part in ("match", "contrast", "write")]
    targets = torch.arange(len(batch.ids)) + compared.first
    outputs = {
        "itm_input_ids": judged.text.ids,
        "itm_labels": judged.labels.masked_fill(~judged.kept, -100),
        "itm_logits": judged.logits,
        "itc_targets": targets.masked_fill(batch.captions.empty, -100),
        "additive_mask_blocked": torch.cat([~part.mask for part in parts]).long(),
        "last_hidden_state": torch.cat([torch.cat([part.queries, part.text], dim=1) for part in parts]),
        "query_output_itm": parts[0].queries,
        "query_output_itc": parts[1].queries,
        "query_output_itg": parts[2].queries,
        "image_itc": reading.images("queries")[:, 0],
        "text_itc": reading.texts(),
        "backbone_embeds": reading.pooled_features,
        "vision_similarity": torch.nn.functional.cosine_similarity(
            reading.pooled_features, reading.pooled_queries, dim=-1
        ).mean(),
        "lm_logits": module.heads.write(parts[2].text),
        "sim_i2t": compared.image_to_text,
        "sim_t2i": compared.text_to_image,
        "loss_itm": means["itm"],
        "loss_itc": means["itc"],
        "loss_itg": means["itg"],
        "loss": total,
    }
    return {name: value.detach().clone().contiguous() for name, value in outputs.items()}, gradients_of(module)


def retrieval(module: QLlama, given: dict[str, Tensor]) -> Made:
    """Contrast with several captions an image, on both image vectors; matching on every negative and own caption."""
    batch = batch_of(given, captions_of(given, ignored=False))
    shared = Shared(Alone(module), batch)
    queries = ITC(gradients="both", label_smoothing=0.0, same_image=True)
    features = ITC(gradients="both", label_smoothing=0.0, same_image=True, vectors="features")
    itm = ITM(negatives="given", given="both")
    for one in (queries, features, itm):
        one.prepare(shared)
    rows = len(batch.ids)
    found = {**queries.losses(shared), **features.losses(shared), **itm.losses(shared)}
    loss_itm, loss_itc = found["itm"] / (2 * rows), (found["itc"] + found["itc_features"]) / rows
    (loss_itm + loss_itc).backward()
    own, pooled = shared.compare("queries", "both"), shared.compare("features", "both")
    reading, judged = shared.reading, itm.judge_given(shared)
    assert isinstance(reading, QLlamaReading)
    parts = [reading.joint[part] for part in ("match", "contrast")]
    targets = queries.targets(shared, own)

    def direction(logits: Tensor) -> Tensor:
        return -(targets * logits.log_softmax(1)).sum(1).mean()

    outputs = {
        "last_hidden_state": torch.cat([torch.cat([part.queries, part.text], dim=1) for part in parts]),
        "image_itc": reading.images("queries")[:, 0],
        "text_itc": reading.texts(),
        "backbone_embeds": reading.images("features")[:, 0],
        "backbone_i2t": pooled.image_to_text,
        "backbone_t2i": pooled.text_to_image,
        "sim_i2t": own.image_to_text,
        "sim_t2i": own.text_to_image,
        "sim_targets": targets,
        "itm_logits": judged.logits,
        "itm_labels": judged.labels,
        "loss_i2t": direction(own.image_to_text),
        "loss_t2i": direction(own.text_to_image),
        "loss_backbone_i2t": direction(pooled.image_to_text),
        "loss_backbone_t2i": direction(pooled.text_to_image),
        "loss_itc": loss_itc,
        "loss_itm": loss_itm,
        "loss": loss_itc + loss_itm,
    }
    return {name: value.detach().clone() for name, value in outputs.items()}, gradients_of(module)


def features(module: QLlama, given: dict[str, Tensor], kind: str) -> Made:
    """InternVL-C ("c": pooled features) or InternVL-G ("g": and pooled queries) against texts."""
    told = Text(ids=given["text"], mask=given["text"] > 0)
    rows = len(told.ids)
    captions = Captions(
        contrast=told,
        match=told,
        write=told,
        targets=torch.full_like(told.ids, -100),
        image_ids=torch.arange(rows),
        empty=torch.zeros(rows, dtype=torch.bool),
    )
    shared = Shared(Alone(module), batch_of(given, captions))
    vectors = "features" if kind == "c" else "sum"
    itc = ITC(gradients="both", label_smoothing=0.0, vectors=vectors)
    itc.prepare(shared)
    loss = itc.losses(shared)[itc.name] / rows
    loss.backward()
    reading, compared = shared.reading, shared.compare(vectors, "both")
    assert isinstance(reading, QLlamaReading)
    outputs = {
        "image_features": reading.pooled_features if kind == "c" else reading.summed(),
        "text_features": reading.text_features,
        "text_output": reading.told,
        "logits_per_image": compared.image_to_text,
        "logits_per_text": compared.text_to_image,
        "clip_loss": loss,
    }
    if kind == "g":
        outputs["query_output"] = reading.queries
    return {name: value.detach().clone() for name, value in outputs.items()}, gradients_of(module)


def main() -> None:
    """One process: its inputs and outputs stand below `rankN/`."""
    torch.set_num_threads(1)
    name, out = sys.argv[1], Path(sys.argv[2])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=world)
    oracle = Oracle(name)
    given = oracle.below(f"rank{rank}/inputs/")
    outputs, gradients = stage2(build(oracle), given, oracle.config["label_smoothing"])
    kept = {f"outputs/{key}": value for key, value in outputs.items()}
    kept |= {f"grads/{key}": value.contiguous() for key, value in gradients.items() if value is not None}
    save_file(kept, out / f"rank{rank}.safetensors")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
