"""Other scripts than Latin: byte fallback there and back, shares by language, Chinese from a file to an answer."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from isthmus.app.conversation import Conversation
from isthmus.connectors import MlpConfig
from isthmus.data.images import FileImage
from isthmus.data.mixture import Mixture
from isthmus.data.sources import LlavaFile, Source, TextFile
from isthmus.data.sources.languages import share_languages
from isthmus.encoders import VisionEncoder
from isthmus.llms import CausalLM, Generation
from isthmus.model import Model, VisionLanguageModel
from isthmus.weights import resolve_model

TEXTS = ("图中有一只红色的圆。", "Ünïcödé, naïve", "こんにちは 世界", "🙂👍🏽", "مرحبا", "a 猫 b\n狗")
QUESTION, ANSWER = "图里是什么颜色？", "红色的圆"


@pytest.mark.parametrize("text", TEXTS)
def test_a_byte_fallback_tokenizer_gives_back_any_script(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("bundled/speaker"))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def text_source(path: Path, words: str, lines: int) -> Source:
    path.write_text("".join(json.dumps({"text": f"{words} {line}"}) + "\n" for line in range(lines)), encoding="utf-8")
    return Source(of=TextFile(path=str(path)))


def test_each_language_has_its_share(tmp_path: Path) -> None:
    english = [text_source(tmp_path / "a.jsonl", "cat", 300), text_source(tmp_path / "b.jsonl", "dog", 60)]
    chinese = [text_source(tmp_path / "c.jsonl", "猫", 40)]
    sources = share_languages({"en": english, "zh": chinese}, {"en": 3.0, "zh": 1.0})
    mixture = Mixture(sources, seed=0)
    drawn = Counter(mixture[place].turns[-1].text.split()[0] for place in range(len(mixture)))
    assert drawn == {"cat": 150, "dog": 150, "猫": 100}
    with pytest.raises(ValueError, match="needs a source and a share"):
        share_languages({"en": english, "zh": []}, {"en": 1.0, "zh": 1.0})
    with pytest.raises(ValueError, match="above zero"):
        share_languages({"en": english}, {"en": 0.0})


def tiny_chinese_model(root: Path) -> VisionLanguageModel:
    """A tiny language model with the bundled tokenizer, whose Chinese is all byte fallback."""
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("bundled/speaker"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes)
    LlamaForCausalLM(config).save_pretrained(root / "llm")
    tokenizer.save_pretrained(root / "llm")
    llm = CausalLM(name=str(root / "llm"), max_tokens=256)
    return VisionLanguageModel(Model(encoder=VisionEncoder(image_size=24), connector=MlpConfig(), llm=llm))


def test_chinese_from_a_data_file_to_an_answer(tmp_path: Path) -> None:
    Image.new("RGB", (24, 24), "red").save(tmp_path / "red.png")
    said = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": ANSWER}]
    row = {"id": "图", "image": "red.png", "conversations": said}
    (tmp_path / "chat.json").write_text(json.dumps([row], ensure_ascii=False), encoding="utf-8")
    sample = LlavaFile(path=str(tmp_path / "chat.json"), root=str(tmp_path)).build()[0]

    model = tiny_chinese_model(tmp_path)
    model.llm.requires_grad_(True)
    pixels, plans = model.prepare([sample])
    batch = model.config.batch([sample], tokenizer=model.tokenizer, plans=plans, pixels=pixels)
    assert int((batch.labels != -100).sum()) >= len(ANSWER.encode())
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = model(batch).loss
        loss.backward()
        optimizer.step()

    model.eval()
    options = Generation(max_new_tokens=40)
    assert model.answer([sample], options) == [ANSWER]
    chat = Conversation(model, options)
    chat.attach("image", FileImage(root=str(tmp_path), path="red.png"))
    pieces = list(chat.ask(QUESTION))
    assert pieces == list(ANSWER), "letters of several bytes come whole"
