"""A Q-Former before a whole language model, through our model: BLIP-2's second stage and InstructBLIP, from LAVIS."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from language_models import Given, asking, id_tokenizer, one_view_each, save_language_model, words
from oracle_files import Oracle, oracles
from torch import Tensor

from isthmus.connectors import InstructQFormerConfig, QFormerConfig
from isthmus.connectors.key_map import KeyMap, load_official
from isthmus.connectors.qformer_keys import below, connector_part, lavis_keys
from isthmus.data.collate import Batch
from isthmus.data.prompts import Caption, PromptStyle, QuestionAnswer, Segment
from isthmus.data.sample import Sample
from isthmus.features import Features, FeatureShape, Grid, Text
from isthmus.llms import CausalLM, EncoderDecoderLM, LLMConfig
from isthmus.model import Model, VisionLanguageModel

TOKENIZERS: dict[str, Any] = {}


def qformer(sizes: dict[str, Any], weights: dict[str, Tensor], *, text: bool) -> QFormerConfig:
    """The sizes that the file gives; which layers look at the image is read off the weights."""
    looking = sorted({int(key.split(".")[4]) for key in weights if ".crossattention." in key})
    return QFormerConfig(
        num_queries=sizes["queries"],
        width=sizes["hidden"],
        layers=sizes["layers"],
        heads=sizes["heads"],
        ffn_width=sizes["ffn"],
        cross_every=looking[1] if len(looking) > 1 else sizes["layers"],
        text=text,
        vocabulary=sizes["vocab"],
        positions=sizes["maxpos"],
    )


class Case:
    """An oracle's weights in our model, and its inputs."""

    def __init__(
        self, oracle: Oracle, folder: Path, *, kind: str, project: str, text: bool, prompt: PromptStyle, max_tokens: int
    ) -> None:
        self.oracle = oracle
        sizes, weights = oracle.config, oracle.below("weights/")
        self.given = oracle.below("inputs/")
        self.visual = self.given["visual_features"]
        grid = Grid(1, 1, self.visual.shape[1])
        shape = FeatureShape(width=self.visual.shape[-1], grid=grid)
        lm = {"opt": "opt_model.", "t5": "t5_model.", "llama": "llm_model."}[kind]
        eos = sizes["eos_id"] if "eos_id" in sizes else sizes[kind]["eos_token_id"]
        bos = None if kind == "t5" else sizes.get("bos_id", sizes[kind]["bos_token_id"])
        self.tokenizer = id_tokenizer(
            sizes[kind]["vocab_size"], pad=sizes["pad_id"], bos=bos, eos=eos, newline=sizes.get("newline_id")
        )
        path = save_language_model(kind, sizes[kind], oracle.below(f"weights/{lm}"), self.tokenizer, folder)
        llm: type[LLMConfig] = EncoderDecoderLM if kind == "t5" else CausalLM
        inner = self.inner = qformer(sizes["qformer"], weights, text=text)
        self.model = VisionLanguageModel(
            Model(
                encoder=Given(given=shape),
                connector=InstructQFormerConfig(qformer=inner, max_text_tokens=inner.positions) if text else inner,
                llm=llm(name=path, max_tokens=max_tokens),
                placement="before-bos",
                prompt=prompt,
            ),
            with_encoder=False,
        ).eval()
        keys = lavis_keys(project)
        self.keys: KeyMap = below(keys, "qformer") if text else keys
        load_official(self.model.connector, self.keys, connector_part(weights, keys, text=text), oracle.name)

    @property
    def features(self) -> Features:
        return Features(tokens=self.visual, grid=Grid(1, 1, self.visual.shape[1]))

    def batch(self, samples: list[Sample], text: Text | None = None) -> Batch:
        """The samples as the model collates them, with the oracle's own instruction ids."""
        collating = replace(self.model.config, connector=self.inner)
        made = collating.batch(
            samples, tokenizer=self.tokenizer, plans=one_view_each(len(samples)), features=self.features
        )
        return replace(made, text=text)

    def check(self, batch: Batch, projected: str) -> None:
        """Compare what every oracle of this family has in common, and the gradients."""
        oracle, model = self.oracle, self.model
        placed = model.see(self.features, batch.plans, batch.view_text())
        rows = len(batch.ids)
        oracle.check(f"outputs/{projected}", placed.tokens.unflatten(0, (rows, -1)))
        embedded = model.embed(batch, placed)
        oracle.check("outputs/inputs_embeds", embedded)
        output = model(batch)
        oracle.check("outputs/loss", output.loss)
        output.loss.backward()
        gradients = {name: weight.grad for name, weight in model.connector.named_parameters()}
        oracle.check_gradients(dict(self.keys.to_official(gradients)))
        self.check_logits(embedded, batch)

    def check_logits(self, embedded: Tensor, batch: Batch) -> None:
        inputs: dict[str, Tensor] = {"inputs_embeds": embedded, "attention_mask": batch.mask.long()}
        if batch.decoder_labels is not None:
            target = batch.decoder_labels
            start = torch.full_like(target[:, :1], self.oracle.config["t5"]["decoder_start_token_id"])
            late = torch.cat([start, target[:, :-1]], dim=1)
            inputs["decoder_input_ids"] = late.masked_fill(late == -100, self.oracle.config["pad_id"])
            inputs["decoder_attention_mask"] = self.given["output_attention_mask"]
        with torch.no_grad():
            self.oracle.check("outputs/logits", self.model.llm.model(**inputs, use_cache=False).logits)


@oracles("blip2_stage2_opt")
def test_blip2_stage_2_before_a_decoder(name: str, tmp_path: Path) -> None:
    with Oracle(name) as oracle:
        config, ids = oracle.config, oracle.tensors["inputs/input_ids"]
        mask, prompt_length = oracle.tensors["inputs/text_attention_mask"].bool(), config["prompt_length"]
        prompt = Caption(prompt=words(ids[0, 1:prompt_length])) if prompt_length else Caption()
        longest = config["qformer"]["queries"] + config["max_txt_len"]
        case = Case(oracle, tmp_path, kind="opt", project="opt_proj", text=False, prompt=prompt, max_tokens=longest)
        samples = []
        for row in range(len(ids)):
            caption = ids[row][mask[row]][max(1, prompt_length) :].tolist()
            whole = caption[-1:] == [config["newline_id"]]
            # A caption that was cut lost its newline: give it a word more to lose.
            samples.append(asking(row, "", words(caption[:-1] if whole else [*caption, 0])))
        batch = case.batch(samples)
        assert torch.equal(batch.ids[:, config["qformer"]["queries"] :], ids)
        oracle.check("outputs/labels", batch.labels)
        oracle.check("outputs/attention_mask", batch.mask)
        queries = case.model.connector.read(case.features, None, mask="uni-modal").queries
        oracle.check("outputs/query_last_hidden_state", queries)
        case.check(batch, "inputs_opt")


def pairs(oracle: Oracle, *, ends: bool) -> list[Sample]:
    """Questions and answers of the oracle's ids; `ends`: both end with the end token, which collating writes anew."""
    samples = []
    sources, targets = (
        [ids[mask.bool()].tolist() for ids, mask in zip(*found, strict=True)]
        for found in (
            [oracle.tensors[f"inputs/{key}"] for key in ("input_ids", "input_attention_mask")],
            [oracle.tensors[f"inputs/{key}"] for key in ("output_ids", "output_attention_mask")],
        )
    )
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        if ends:
            assert source[-1] == target[-1] == oracle.config["eos_id"]
        samples.append(asking(row, words(source[:-1]), words(target[:-1])))
    return samples


@oracles("blip2_stage2_t5")
def test_blip2_stage_2_before_an_encoder_decoder(name: str, tmp_path: Path) -> None:
    with Oracle(name) as oracle:
        prompt = QuestionAnswer(question="{}", after_images="")
        case = Case(oracle, tmp_path, kind="t5", project="t5_proj", text=False, prompt=prompt, max_tokens=1_000)
        batch = case.batch(pairs(oracle, ends=True))
        assert batch.decoder_labels is not None
        oracle.check("outputs/labels", batch.decoder_labels)
        oracle.check("outputs/encoder_attention_mask", batch.mask)
        queries = case.model.connector.read(case.features, None, mask="uni-modal").queries
        oracle.check("outputs/query_last_hidden_state", queries)
        case.check(batch, "inputs_t5")


def instruction(oracle: Oracle) -> Text:
    """The question in the Q-Former's own ids."""
    given = oracle.below("inputs/")
    return Text(ids=given["qformer_input_ids"], mask=given["qformer_text_attention_mask"].bool())


def check_reading(case: Case, key: str) -> None:
    """The joint pass of queries and question, its last state of both."""
    text = instruction(case.oracle)
    with torch.no_grad():
        read = case.model.connector.qformer.read(case.features, text, mask="bidirectional")
    case.oracle.check(key, torch.cat([read.queries, read.text], dim=1))


@oracles("instructblip_t5")
def test_instructblip_before_an_encoder_decoder(name: str, tmp_path: Path) -> None:
    with Oracle(name) as oracle:
        prompt = QuestionAnswer(question="{}", after_images="")
        case = Case(oracle, tmp_path, kind="t5", project="t5_proj", text=True, prompt=prompt, max_tokens=1_000)
        batch = case.batch(pairs(oracle, ends=True), instruction(oracle))
        assert batch.text is not None
        assert batch.decoder_labels is not None
        oracle.check("outputs/labels", batch.decoder_labels)
        oracle.check("outputs/encoder_attention_mask", batch.mask)
        queries = torch.ones(len(batch.ids), oracle.config["qformer"]["queries"])
        oracle.check("outputs/qformer_attention_mask", torch.cat([queries, batch.text.mask], dim=1))
        check_reading(case, "outputs/query_last_hidden_state")
        case.check(batch, "inputs_t5")


class OpenEnded(QuestionAnswer):
    """Answers of samples whose name says so lost their end: the limit on answers cut it."""

    def render(self, sample: Sample, tokenizer: Any = None, *, for_generation: bool = False) -> list[Segment]:
        segments = super().render(sample, tokenizer, for_generation=for_generation)
        cut = sample.id.endswith("cut")
        return [replace(one, end=False) for one in segments] if cut else segments


@oracles("instructblip_vicuna")
def test_instructblip_before_a_decoder(name: str, tmp_path: Path) -> None:
    with Oracle(name) as oracle:
        prompt = OpenEnded(question="{}", after_images="")
        longest = oracle.config["llama"]["max_position_embeddings"]
        case = Case(oracle, tmp_path, kind="llama", project="llm_proj", text=True, prompt=prompt, max_tokens=longest)
        given, samples = case.given, []
        for row in range(len(given["text_input_ids"])):
            asked = given["text_input_ids"][row][given["text_input_mask"][row].bool()].tolist()
            told = given["text_output_ids"][row][given["text_output_mask"][row].bool()].tolist()
            whole = told[-1] == oracle.config["eos_id"]
            one = asking(row, words(asked[1:]), words(told[1:-1] if whole else told[1:]))
            samples.append(one if whole else replace(one, id=f"{row} cut"))
        batch = case.batch(samples, instruction(oracle))
        # LAVIS moves the padding of instruction and answer behind both, and pads no further than that.
        queries, width = oracle.config["qformer"]["queries"], oracle.tensors["outputs/labels"].shape[1]
        longer = width - batch.ids.shape[1]
        assert longer >= 0
        pad = torch.nn.functional.pad
        batch = replace(
            batch,
            ids=pad(batch.ids, (0, longer), value=oracle.config["pad_id"]),
            mask=pad(batch.mask, (0, longer)),
            labels=pad(batch.labels, (0, longer), value=-100),
            visual=pad(batch.visual, (0, longer)),
        )
        oracle.check("outputs/llm_input_ids", batch.ids[:, queries:])
        oracle.check("outputs/labels", batch.labels)
        oracle.check("outputs/attention_mask", batch.mask)
        check_reading(case, "outputs/query_and_text_last_hidden_state")
        case.check(batch, "inputs_llm")


def test_a_checkpoint_of_another_size_is_refused_by_key() -> None:
    config = QFormerConfig(num_queries=3, width=16, layers=1, heads=2, ffn_width=24)
    module = config.build_alone(FeatureShape(width=10, grid=Grid(1, 1, 2)))
    official = lavis_keys("opt_proj").to_official(module.state_dict())
    wrong = {**official, "query_tokens": torch.zeros(1, 4, 16), "ln_vision.scale": torch.zeros(10)}
    del wrong["Qformer.bert.encoder.layer.0.crossattention.self.key.bias"]
    with pytest.raises(ValueError, match=r"1 missing: .*crossattention\.self\.key\.bias.*1 unknown: ln_vision\.scale"):
        load_official(module, lavis_keys("opt_proj"), wrong, "blip2")
    with pytest.raises(ValueError, match=r"query_tokens is \(1, 4, 16\), wanted \(1, 3, 16\)"):
        load_official(module, lavis_keys("opt_proj"), {**official, "query_tokens": torch.zeros(1, 4, 16)}, "blip2")


def test_a_stage_2_connector_takes_its_part_of_a_whole_checkpoint() -> None:
    config = QFormerConfig(num_queries=3, width=16, layers=2, heads=2, ffn_width=24, vocabulary=9, positions=8)
    shape = FeatureShape(width=10, grid=Grid(1, 1, 2))
    keys = lavis_keys("opt_proj")
    whole = replace(config, text=True, embedding=4).build_alone(shape)
    checkpoint = keys.to_official(whole.state_dict())
    checkpoint["Qformer.bert.embeddings.position_ids"] = torch.arange(8)[None]
    checkpoint["Qformer.cls.predictions.decoder.weight"] = whole.words.weight
    checkpoint["visual_encoder.cls_token"] = torch.zeros(1, 1, 10)
    again = replace(config, text=True, embedding=4).build_alone(shape)
    load_official(again, keys, connector_part(checkpoint, keys, text=True), "stage 1")
    assert torch.equal(again.words.weight, whole.words.weight)
    plain = config.build_alone(shape)
    heads = ("vision_proj.", "text_proj.", "itm_head.", "temp")
    part = {key: one for key, one in connector_part(checkpoint, keys, text=False).items() if not key.startswith(heads)}
    load_official(plain, keys, part, "stage 1")
    assert torch.equal(plain.queries, whole.queries)
    assert torch.equal(plain.layers[1].attention.out.bias, whole.layers[1].attention.out.bias)
