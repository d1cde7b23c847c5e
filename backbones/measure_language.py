"""Measure the language models on texts they never saw: exact answers by family, and perplexities by source.

One command: `python -m backbones.measure_language --data DATA --speaker FOLDER --translator FOLDER --reader FOLDER`.
An answer counts when greedy decoding from the context and that one question gives it exactly, end mark included.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import BertForMaskedLM, LlamaForCausalLM, PreTrainedTokenizerFast, T5ForConditionalGeneration

from backbones.bags import bag_ids, embed_bags
from backbones.budget import Means
from backbones.documents import Document, nlvr_document, world_document
from backbones.reader import loss_of as reader_loss
from backbones.real import Figure, read_figures, read_nlvr
from backbones.sequences import FREE, Encoder
from backbones.translator import pad_rows

ITEM_FAMILIES = ("attribute", "position", "count", "relation", "existence")
Asked = tuple[str, list[int], list[int], list[tuple[int, ...]]]
"""Family, the ids before the answer, the ids of the answer, the word bags at positions 1, 2, ... of a grid context."""


def figure_documents(figures: list[Figure]) -> list[Document]:
    """Every description as a plain text."""
    return [Document(source="textbook", context=one.description, turns=()) for one in figures]


def questions_of(documents: list[Document], encoder: Encoder, *, start: list[int]) -> list[Asked]:
    """Each question alone after its context."""
    end = encoder.tokenizer.eos_token_id
    asked = []
    for document in documents:
        bags = [tuple(piece for word in slot for piece in encoder.pieces(word)) for slot in document.slots]
        words = [bag[0] for bag in bags] if bags else encoder.pieces.__wrapped__(document.context)
        context = [*start, *words]
        for turn in document.turns:
            if turn.family not in FREE:
                before = [*context, *encoder.question(turn, after_context=True)]
                asked.append((turn.family, before, [*encoder.pieces(f" {turn.answer}"), end], bags))
    return sorted(asked, key=lambda one: len(one[1]))


def share_right(rights: list[tuple[str, bool]]) -> dict[str, float]:
    """Accuracy by family, and of the five item families together."""
    by_family: dict[str, list[bool]] = defaultdict(list)
    for family, right in rights:
        by_family[family].append(right)
        if family in ITEM_FAMILIES:
            by_family["items, all five"].append(right)
    return {family: sum(found) / len(found) for family, found in sorted(by_family.items())}


@torch.no_grad()
def speaker_answers(model: LlamaForCausalLM, asked: list[Asked]) -> dict[str, float]:
    """Greedy decoding says the answer exactly when every token of it is the likeliest after those before it."""
    rights = []
    for at in range(0, len(asked), 32):
        part = asked[at : at + 32]
        ids = pad_rows([[*before, *said] for _, before, said, _ in part], 0)
        embedded = embed_bags(model.model.embed_tokens, bag_ids([bags for *_, bags in part], ids))
        logits = model(inputs_embeds=embedded).logits
        for row, (family, before, said, _) in enumerate(part):
            best = logits[row, len(before) - 1 : len(before) - 1 + len(said)].argmax(1).tolist()
            rights.append((family, best == said))
    return share_right(rights)


@torch.no_grad()
def translator_answers(model: T5ForConditionalGeneration, asked: list[Asked]) -> dict[str, float]:
    """The same for the encoder-decoder, which reads context and question and ends them with the end mark."""
    rights = []
    for at in range(0, len(asked), 32):
        part = asked[at : at + 32]
        ids = pad_rows([[*before, said[-1]] for _, before, said, _ in part], 0)
        labels = pad_rows([said for _, _, said, _ in part], -100)
        best = model(input_ids=ids, attention_mask=ids != 0, labels=labels).logits.argmax(2)
        for row, (family, _, said, _) in enumerate(part):
            rights.append((family, best[row, : len(said)].tolist() == said))
    return share_right(rights)


@torch.no_grad()
def answer_perplexity(model: T5ForConditionalGeneration, asked: list[Asked]) -> float:
    """Of the encoder-decoder, per token of the answers and their end marks."""
    total, count = 0.0, 0
    for at in range(0, len(asked), 32):
        part = asked[at : at + 32]
        ids = pad_rows([[*before, said[-1]] for _, before, said, _ in part], 0)
        labels = pad_rows([said for _, _, said, _ in part], -100)
        logits = model(input_ids=ids, attention_mask=ids != 0, labels=labels).logits
        total += float(F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"))
        count += int((labels != -100).sum())
    return math.exp(total / count)


@torch.no_grad()
def perplexity(model: LlamaForCausalLM, documents: list[Document], encoder: Encoder) -> float:
    """Per token of the context and its end, after the start mark."""
    total, count = 0.0, 0
    start, end = encoder.tokenizer.bos_token_id, encoder.tokenizer.eos_token_id
    for document in documents:
        ids = torch.tensor([[start, *encoder.pieces.__wrapped__(document.context)[:500], end]])
        logits = model(ids).logits[0, :-1]
        total += float(F.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    return math.exp(total / count)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder."""
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def measure_reader(folder: Path, texts: list[str]) -> dict[str, float]:
    """Masked-token accuracy and perplexity."""
    model = BertForMaskedLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    means = Means()
    with torch.no_grad():
        for at in range(0, len(texts), 32):
            reader_loss(model, texts[at : at + 32], load_tokenizer(folder), means)
    found = means.take()
    return {"masked tokens": found["masked tokens"], "masked perplexity": math.exp(found["loss"])}


def held_out(data: Path, count: int) -> dict[str, list[Document]]:
    """Documents of the test splits: scenes, scenes with never-seen pairs, NLVR's public test, textbook test."""
    rng = random.Random(11)
    nlvr = read_nlvr(data, "test")
    found: dict[str, list[Document]] = {}
    for split in ("test", "test_combos"):
        found[split] = [world_document(4_000_000 + seed, split, rng) for seed in range(count)]
    found["bags"] = [world_document(4_000_000 + seed, "test", rng, bags=1.0) for seed in range(count)]
    found["bags"] = [document for document in found["bags"] if document.slots]
    found["nlvr"] = [nlvr_document(one, rng) for one in nlvr[: count // 2]]
    found["textbook"] = figure_documents(read_figures(data, "test"))[: count // 2]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--speaker", type=Path)
    parser.add_argument("--translator", type=Path)
    parser.add_argument("--reader", type=Path)
    parser.add_argument("--scenes", type=int, default=500)
    args = parser.parse_args()
    torch.manual_seed(0)
    documents = held_out(args.data, args.scenes)
    found: dict[str, dict[str, float]] = {}
    sources = ("test", "test_combos", "nlvr")
    if args.speaker:
        encoder = Encoder(load_tokenizer(args.speaker))
        speaker = LlamaForCausalLM.from_pretrained(str(args.speaker), dtype=torch.float32).eval()
        start = [encoder.tokenizer.bos_token_id]
        for source in (*sources, "bags"):
            found[f"speaker, {source}"] = speaker_answers(
                speaker, questions_of(documents[source], encoder, start=start)
            )
        found["speaker, perplexity"] = {
            source: perplexity(speaker, texts[:200], encoder) for source, texts in documents.items() if source != "bags"
        }
    if args.translator:
        encoder = Encoder(load_tokenizer(args.translator))
        translator = T5ForConditionalGeneration.from_pretrained(str(args.translator), dtype=torch.float32).eval()
        for source in sources:
            asked = questions_of(documents[source], encoder, start=[])
            found[f"translator, {source}"] = translator_answers(translator, asked)
            found.setdefault("translator, perplexity", {})[source] = answer_perplexity(translator, asked)
    if args.reader:
        for source in (*sources, "textbook"):
            texts = documents[source]
            found[f"reader, {source}"] = measure_reader(args.reader, [text.context for text in texts])
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
