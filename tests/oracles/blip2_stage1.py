"""BLIP-2's first stage on an oracle's inputs: what our code makes of them, under the names of the official code.

Run as `python blip2_stage1.py FILE OUT` with RANK and WORLD_SIZE set, it is one process of several.
"""

import os
import sys
from pathlib import Path

import torch
from einops import rearrange
from oracle_files import OWN, Oracle, form_of, oracle_names
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from isthmus.connectors import Connector, QFormerConfig
from isthmus.connectors.key_map import load_official
from isthmus.connectors.qformer import QFormer
from isthmus.connectors.qformer_keys import connector_part, lavis_keys
from isthmus.connectors.qformer_reading import QFormerReading
from isthmus.data.collate import Batch
from isthmus.features import Captions, Features, FeatureShape, Grid, Plan, Text
from isthmus.model import VisionLanguageModel
from isthmus.train.objectives import ITC, ITG, ITM
from isthmus.train.objectives.itm import Negatives
from isthmus.train.objectives.shared import Gradients, Shared

KEYS = lavis_keys("opt_proj")


class Alone(VisionLanguageModel):
    """A connector alone where the objectives expect a model."""

    def __init__(self, connector: Connector) -> None:
        nn.Module.__init__(self)
        self.connector = connector


def weights_of(oracle: Oracle, form: str = "blip2_stage1") -> dict[str, Tensor]:
    """The oracle's own weights, or those of the file of `form` that it shares them with: of its seed and ending.

    A folder without that file takes the repository's copy, if that is of the same seed.
    """
    own = oracle.below("weights/")
    if own:
        return own
    ending = oracle.name.removeprefix(str(form_of(oracle.name)))
    others = [Oracle(name) for name in oracle_names(form)]
    others += [
        one for one in (Oracle(name, OWN) for name in oracle_names(form, OWN)) if seed_of(one) == seed_of(oracle)
    ]
    sizes = ("hidden", "layers", "queries", "vocab")
    fitting = [one for one in others if all(one.config[key] == oracle.config[key] for key in sizes)]
    assert fitting, f"{oracle.name} names no weights, and no {form} of its seed and sizes is there"

    def fit(one: Oracle) -> tuple[bool, bool]:
        return one.name == form + ending, seed_of(one) == seed_of(oracle)

    return max(fitting, key=fit).below("weights/")


def seed_of(oracle: Oracle) -> int | None:
    """What its numbers were drawn from, as far as it says."""
    seed: int | None = oracle.info.get("seed")
    return seed


def build(oracle: Oracle) -> QFormer:
    """The Q-Former of an oracle's sizes with its weights, every one of them."""
    sizes = oracle.config
    config = QFormerConfig(
        num_queries=sizes["queries"],
        width=sizes["hidden"],
        layers=sizes["layers"],
        heads=sizes["heads"],
        ffn_width=sizes["ffn"],
        cross_every=sizes["cross_freq"],
        dropout=0.0,
        text=True,
        vocabulary=sizes["vocab"],
        positions=sizes["maxpos"],
        embedding=sizes["embed"],
        temperature=sizes["temp"],
    )
    module = config.build_alone(FeatureShape(width=sizes["encoder_width"], grid=Grid(1, 1, sizes["nv"])))
    load_official(module, KEYS, connector_part(weights_of(oracle), KEYS, text=True), oracle.name)
    return module.train()


def batch_of(given: dict[str, Tensor], begin: int) -> Batch:
    """The official inputs as our batch; `begin` is [DEC]."""
    ids, mask, seen = given["input_ids"], given["attention_mask"].bool(), given["visual_features"]
    rows, patches = seen.shape[:2]
    write = ids.clone()
    write[:, 0] = begin
    captions = Captions(
        contrast=Text(ids=ids, mask=mask),
        match=Text(ids=ids, mask=mask),
        write=Text(ids=write, mask=mask),
        targets=write.masked_fill(~mask, -100),
        image_ids=given.get("image_id", torch.arange(rows)),
        empty=torch.zeros(rows, dtype=torch.bool),
    )
    plan = Plan(size=(1, 1), tiles=Grid(1, 1, 1), views=range(1))
    return Batch(
        ids=ids,
        mask=mask,
        labels=torch.full_like(ids, -100),
        visual=torch.zeros_like(mask),
        plans=(plan,) * rows,
        owner=tuple(range(rows)),
        sample_ids=tuple(map(str, range(rows))),
        features=Features(tokens=seen, grid=Grid(1, 1, patches)),
        captions=captions,
    )


def run(
    module: QFormer, given: dict[str, Tensor], gradients: Gradients
) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """Outputs and gradients under the official names."""
    batch = batch_of(given, module.config.vocabulary - 1)
    same = "image_id" in given
    itc, itm, itg = ITC(gradients=gradients, same_image=same), ITM(same_image=same), ITG()
    shared = Shared(Alone(module), batch)
    counts = {**itc.counts(batch), **itm.counts(batch), **itg.counts(batch)}
    for objective in (itc, itm, itg):
        objective.prepare(shared)
    compared = shared.compare("queries", gradients)
    weights_t2i, weights_i2t = itm.chances(shared)
    images, texts = given["itm_negative_image_index"], given["itm_negative_text_index"]
    judged = itm.judge(shared, Negatives(images=images, texts=texts, kept=torch.ones_like(images, dtype=torch.bool)))
    loss_itc = itc.losses(shared)["itc"] / counts["itc"]
    loss_itm = nn.functional.cross_entropy(judged.logits, judged.labels)
    loss_itg = itg.losses(shared)["itg"] / counts["itg"]
    (loss_itc + loss_itm + loss_itg).backward()
    reading = shared.reading
    assert isinstance(reading, QFormerReading)
    head = "rows places (heads inner) -> rows heads places inner"
    past, heads = reading.queries.past, module.config.heads
    assert reading.joint is not None
    with torch.no_grad():  # padding is left out above; the official code computes it
        padded = module.read(None, shared.captions.contrast, mask="uni-modal").text
        written = module.read(None, shared.captions.write, mask="causal", past=reading.queries).text
    outputs = {
        "image_embeds": reading.seen(),
        "query_last_hidden_state": reading.queries.queries,
        "text_last_hidden_state": padded,
        "image_feats": reading.images("queries"),
        "text_feat": reading.texts(),
        "query_key_layer0": rearrange(past[0][0], head, heads=heads),
        "query_value_layer_last": rearrange(past[-1][1], head, heads=heads),
        "sim_q2t": compared.image_vectors,
        "sim_t2q": compared.text_vectors,
        "sim_i2t": compared.image_to_text,
        "sim_t2i": compared.text_to_image,
        "sim_targets": itc.targets(shared, compared),
        "weights_i2t": weights_i2t,
        "weights_t2i": weights_t2i,
        "itm_text_ids_all": judged.text.ids,
        "itm_query_last_hidden_state": reading.joint.queries,
        "itm_logits": judged.logits,
        "itm_labels": judged.labels,
        "lm_input_ids": shared.captions.write.ids,
        "lm_labels": shared.captions.targets,
        "lm_logits": module.heads.write(written, module.words.weight),
        "loss_itc": loss_itc,
        "loss_itm": loss_itm,
        "loss_lm": loss_itg,
        "loss": loss_itc + loss_itm + loss_itg,
    }
    made = KEYS.to_official({name: weight.grad for name, weight in module.named_parameters()})
    return {name: value.detach().clone().contiguous() for name, value in outputs.items()}, made


def main() -> None:
    """One process: its inputs and outputs stand below `rankN/`."""
    torch.set_num_threads(1)
    name, out = sys.argv[1], Path(sys.argv[2])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=world)
    oracle = Oracle(name)
    outputs, gradients = run(build(oracle), oracle.below(f"rank{rank}/inputs/"), "local")
    kept = {f"outputs/{key}": value for key, value in outputs.items()}
    kept |= {f"grads/{key}": value.contiguous() for key, value in gradients.items() if value is not None}
    save_file(kept, out / f"rank{rank}.safetensors")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
