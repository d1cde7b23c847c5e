"""The bundled translator: what an encoder-decoder arm starts from when nothing is named."""

import random
from pathlib import Path

import torch
from transformers import T5ForConditionalGeneration

from backbones.documents import world_document
from backbones.measure_language import answer_perplexity, load_tokenizer, questions_of, translator_answers
from backbones.sequences import Encoder
from isthmus.llms import EncoderDecoderLM
from isthmus.weights import resolve_model


def test_it_answers_questions_about_described_scenes() -> None:
    folder = Path(resolve_model(EncoderDecoderLM().name))
    model = T5ForConditionalGeneration.from_pretrained(str(folder), dtype=torch.float32).eval()
    rng = random.Random(3)
    documents = [world_document(4_000_000 + seed, "test", rng) for seed in range(16)]
    asked = questions_of(documents, Encoder(load_tokenizer(folder)), start=[])
    assert translator_answers(model, asked)["items, all five"] > 0.5
    assert answer_perplexity(model, asked) < 2.5


def test_its_sizes_are_those_of_its_card() -> None:
    llm = EncoderDecoderLM()
    assert 6_200_000 < llm.parameters() < 6_300_000
    assert (llm.shape().embedding_width, llm.kind) == (256, "encoder-decoder")
