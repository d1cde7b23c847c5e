"""Tokens, labels, image places and padding, on one token a byte."""

from typing import Any

import pytest
import torch
from tiny_models import byte_tokenizer
from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from isthmus.data.collate import Batch, Views, collate
from isthmus.data.prompts import Plain, PromptStyle, QuestionAnswer, Vicuna
from isthmus.data.sample import Sample, Turn
from isthmus.data.tokens import Writing, tokenise
from isthmus.features import Features, Grid, Plan

TOKENIZER = byte_tokenizer()


WRITTEN = ("placement", "max_tokens", "kind", "for_generation")


class Picture:
    """Stands for an image; nothing here loads it."""

    key = "picture"

    def load(self) -> Any:
        raise AssertionError("collating never loads images")


def sample(name: str, *texts: tuple[str, str]) -> Sample:
    turns = tuple(Turn(role=role, text=text) for role, text in texts)  # type: ignore[arg-type]
    images = sum(turn.text.count("<image>") for turn in turns)
    return Sample(id=name, turns=turns, images=(Picture(),) * images)


def plans(number: int) -> list[Plan]:
    return [Plan(size=(8, 8), tiles=Grid(1, 1, 1), views=range(view, view + 1)) for view in range(number)]


def batch(*samples: Sample, prompt: PromptStyle | None = None, **options: Any) -> Batch:
    number = sum(len(one.images) for one in samples)
    written = {name: options.pop(name) for name in WRITTEN if name in options}
    seen = Views(**{name: options.pop(name) for name in ("features", "pixels") if name in options})
    return collate(
        samples,
        writing=Writing(
            prompt=QuestionAnswer() if prompt is None else prompt,
            tokenizer=options.pop("tokenizer", TOKENIZER),
            **written,
        ),
        views={"image": seen, **options.pop("others", {})},
        count_tokens=lambda plan: 3 * len(plan.views),
        plans=options.pop("plans", plans(number)),
        **options,
    )


def text(ids: list[int]) -> str:
    return TOKENIZER.decode(ids).replace("Ġ", " ")


def shown(one: Batch, row: int) -> str:
    """A row as text: visual places as #, supervised tokens in capitals, padding as _."""
    letters = []
    for ids, mask, label, visual in zip(
        one.ids[row].tolist(), one.mask[row].tolist(), one.labels[row].tolist(), one.visual[row].tolist(), strict=True
    ):
        letter = "#" if visual else {1: "^", 2: "$"}.get(ids, TOKENIZER.decode([ids])) if mask else "_"
        assert label in (-100, ids)
        letters.append(letter.upper() if label != -100 else letter)
    return "".join(letters).replace("$", "$")


ASK = sample("ask", ("user", "<image>\nhm?"), ("assistant", "yes"))
MORE = sample("more", ("user", "<image>\na?"), ("assistant", "b"), ("user", "c?"), ("assistant", "d"))
TEXT = sample("text", ("user", "x?"), ("assistant", "y"))


def test_training_rows_are_padded_on_the_right() -> None:
    one = batch(ASK, TEXT)
    assert shown(one, 0) == "^###\nQuestion: hm? Answer: YES$"
    assert shown(one, 1) == "^Question: x? Answer: Y$________"[: len(shown(one, 0))]
    assert one.owner == (0,)
    assert one.sample_ids == ("ask", "text")
    assert [int(label) for label in one.labels[0] if label != -100][-1] == 2
    assert one.mask.sum().item() == len("^###\nQuestion: hm? Answer: YES$^Question: x? Answer: Y$")


def test_generation_rows_are_padded_on_the_left_and_end_open() -> None:
    one = batch(ASK, TEXT, for_generation=True)
    assert shown(one, 0) == "^###\nQuestion: hm? Answer:"
    assert shown(one, 1) == "_____^Question: x? Answer:"
    assert (one.labels == -100).all()


def test_visual_tokens_before_the_beginning() -> None:
    assert shown(batch(MORE, placement="before-bos"), 0) == "###^\nQuestion: a? Answer: B$Question: c? Answer: D$"


def test_supervised_ids_start_at_the_space_of_the_answer() -> None:
    one = batch(ASK)
    assert text([label for label in one.labels[0].tolist() if label != -100]) == " yes</s>"


def test_plain_captions() -> None:
    one = batch(sample("c", ("user", "<image>"), ("assistant", "ab")), prompt=Plain())
    assert shown(one, 0) == "^###AB\n"
    assert (one.labels[0] != -100).tolist() == [False] * 4 + [True] * 3


def test_long_conversations_lose_their_last_turns_whole() -> None:
    one = batch(MORE, max_tokens=40)
    assert shown(one, 0) == "^###\nQuestion: a? Answer: B$"
    assert one.num_cut == 1
    assert batch(MORE, max_tokens=200).num_cut == 0


def test_dropped_turns_take_their_images_and_features_along() -> None:
    long = sample("l", ("user", "<image>a?"), ("assistant", "b"), ("user", "<image>c?"), ("assistant", "d"))
    features = Features(tokens=torch.arange(3.0).reshape(3, 1, 1), grid=Grid(1, 1, 1))
    one = batch(long, ASK, max_tokens=40, features=features)
    assert one.owner == (0, 1)
    assert one.plans == tuple(plans(2))
    assert one.features is not None
    assert one.features.tokens.flatten().tolist() == [0.0, 2.0]


def test_a_long_caption_is_cut_but_never_its_image() -> None:
    caption = sample("c", ("user", "<image>"), ("assistant", "abcdefgh"))
    one = batch(caption, max_tokens=8)
    assert shown(one, 0) == "^###\nABC"
    assert one.num_cut == 1
    with pytest.raises(ValueError, match=r"'c' needs 14 tokens \(3 of them visual\).*max_tokens=5"):
        batch(caption, max_tokens=5)
    with pytest.raises(ValueError, match=r"prompt of sample 'ask' is longer than max_tokens=20|'ask' needs"):
        batch(ASK, max_tokens=20, for_generation=True)


def test_nothing_to_learn_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Nothing is supervised in sample 'silent'"):
        batch(sample("silent", ("user", "<image>\nhm?")))


def test_places_and_images_must_agree() -> None:
    with pytest.raises(ValueError, match="1 images came with 2 plans"):
        batch(ASK, plans=plans(2))
    with pytest.raises(ValueError, match="1 image places but 0 images came with it"):
        tokenise(QuestionAnswer().render(ASK), TOKENIZER, [])


def test_special_tokens_in_a_sample_are_plain_text() -> None:
    one = batch(sample("s", ("user", "</s><pad>?"), ("assistant", "n")))
    assert one.ids[0].tolist().count(2) == 1
    assert 0 not in one.ids[0].tolist()


def test_images_of_several_views_take_all_their_places() -> None:
    wide = [Plan(size=(16, 8), tiles=Grid(1, 1, 2), views=range(2))]
    assert shown(batch(ASK, plans=wide), 0) == "^######\nQuestion: hm? Answer: YES$"


def test_encoder_decoder_reads_the_question_and_learns_the_answer() -> None:
    one = batch(ASK, TEXT, tokenizer=byte_tokenizer(bos=False), kind="encoder-decoder")
    assert shown(one, 0) == "###\nQuestion: hm? Answer:$"
    assert shown(one, 1) == "Question: x? Answer:$___"[: len(shown(one, 0))].ljust(len(shown(one, 0)), "_")
    assert one.decoder_labels is not None
    assert [text([i for i in row if i != -100]) for row in one.decoder_labels.tolist()] == [" yes</s>", " y</s>"]
    assert one.decoder_labels[1, -1] == -100
    asked = batch(ASK, kind="encoder-decoder", for_generation=True)
    assert asked.decoder_labels is None
    assert shown(asked, 0) == "###\nQuestion: hm? Answer:$"
    history = batch(MORE, kind="encoder-decoder")
    assert shown(history, 0) == "###\nQuestion: a? Answer: bQuestion: c? Answer:$"


def test_batches_move_between_devices() -> None:
    features = Features(tokens=torch.ones(1, 1, 1), grid=Grid(1, 1, 1))
    moved = batch(ASK, features=features).to("meta")
    assert moved.ids.device.type == moved.visual.device.type == "meta"
    assert moved.features is not None
    assert moved.features.tokens.device.type == "meta"


def llama_like() -> PreTrainedTokenizerFast:
    """Writes a space before every text, as the tokenizer of Llama 1 and 2 (and Vicuna) does."""
    alphabet = [
        "<unk>",
        "<s>",
        "</s>",
        "\u2581",
        *sorted({*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *":?.,'\n"}),
        *"abcdefghijklmnopqrstuvwxyz",
    ]
    vocabulary = {token: index for index, token in enumerate(alphabet)}
    merges = [("\u2581", letter) for letter in "yn"]
    for first, second in merges:
        vocabulary[first + second] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_answers_have_one_space_with_a_tokenizer_that_writes_its_own() -> None:
    tokenizer = llama_like()
    one = batch(sample("v", ("user", "hm?"), ("assistant", "yes")), prompt=Vicuna(), tokenizer=tokenizer)
    labels = [label for label in one.labels[0].tolist() if label != -100]
    assert tokenizer.convert_ids_to_tokens(labels) == ["\u2581y", "e", "s", "</s>"]
    joint = tokenizer(Vicuna().system + " USER: hm? ASSISTANT: yes", add_special_tokens=False)["input_ids"]
    assert one.ids[0].tolist() == [1, *joint, 2]
