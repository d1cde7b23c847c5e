"""Every family of language models keeps the same promises, each on a tiny model with random weights."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import CONFIGS, T5, byte_tokenizer, save_model
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5ForConditionalGeneration

from isthmus.features import LLMShape
from isthmus.llms import CausalLM, EncoderDecoderLM, Generation, LanguageModel, LayerState, LLMConfig
from isthmus.llms.encoder_decoder import has_own_head
from isthmus.weights import quiet_transformers

FAMILIES = (*CONFIGS, "t5")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llms")


def config(family: str, root: Path, max_tokens: int = 64) -> LLMConfig:
    kind = EncoderDecoderLM if family == "t5" else CausalLM
    return kind(name=save_model(family, root), max_tokens=max_tokens)


def inputs(model: LanguageModel, width: int, lengths: tuple[int, ...], *, left: bool) -> tuple[torch.Tensor, ...]:
    """Ids, embeddings whose first three real positions are soft, mask; rows do not depend on each other."""
    longest = max(lengths)
    ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    mask = torch.zeros(len(lengths), longest, dtype=torch.bool)
    soft = torch.zeros(len(lengths), longest, width)
    for row, length in enumerate(lengths):
        draw = torch.Generator().manual_seed(length)
        start = longest - length if left else 0
        ids[row, start : start + length] = torch.randint(4, 260, (length,), generator=draw)
        mask[row, start : start + length] = True
        soft[row, start : start + 3] = torch.randn(3, width, generator=draw)
    embeddings = torch.where(soft != 0, soft, model.embed(ids))
    return ids, embeddings, mask


@pytest.mark.parametrize("family", CONFIGS)
def test_causal_loss_equals_the_models_own(family: str, root: Path) -> None:
    chosen = config(family, root)
    model = chosen.build()
    ids, embeddings, mask = inputs(model, chosen.shape().embedding_width, (9, 14, 12), left=False)
    labels = ids.masked_fill(~mask, -100)
    labels[:, :5] = -100
    labels[1, 9] = -100
    own = model.model(inputs_embeds=embeddings, attention_mask=mask.long(), labels=labels).loss
    said = model(embeddings, mask, labels)
    assert said.rows.tolist() == [0] * 4 + [1] * 8 + [2] * 7
    torch.testing.assert_close(said.losses.mean(), own, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(embeddings[1:2], mask[1:2], labels[1:2]).losses, said.losses[said.rows == 1])


def test_left_padding_in_training_gives_the_same_losses(root: Path) -> None:
    model = config("opt", root).build()
    losses = []
    for left in (False, True):
        ids, embeddings, mask = inputs(model, 16, (9, 14), left=left)
        labels = ids.masked_fill(~mask, -100)
        losses.append(model(embeddings, mask, labels).losses)
        model(embeddings, mask, labels)
    # Row 0 padded on the left predicts its first token from padding: leave that one out.
    torch.testing.assert_close(losses[0], losses[1][1:])


def test_encoder_decoder_loss_equals_the_models_own(root: Path) -> None:
    model = config("t5", root).build()
    _, embeddings, mask = inputs(model, 32, (9, 14), left=False)
    labels = torch.tensor([[10, 20, 2, -100], [7, 9, 30, 2]])
    own = model.model(inputs_embeds=embeddings, attention_mask=mask.long(), labels=labels).loss
    said = model(embeddings, mask, labels)
    assert said.rows.tolist() == [0, 0, 0, 1, 1, 1, 1]
    torch.testing.assert_close(said.losses.mean(), own)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_embeddings_get_gradients(family: str, root: Path) -> None:
    chosen = config(family, root)
    model = chosen.build()
    ids, embeddings, mask = inputs(model, chosen.shape().embedding_width, (8, 8), left=False)
    embeddings = embeddings.detach().requires_grad_()
    model(embeddings, mask, ids).losses.sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().sum() > 0
    assert [name for name, weight in model.named_parameters() if weight.requires_grad or weight.grad is not None] == []


def test_a_frozen_model_spends_no_products_on_weight_gradients(root: Path) -> None:
    model = config("llama", root).build()
    ids, embeddings, mask = inputs(model, 32, (32,), left=False)
    labels = ids.clone()
    labels[:, :-2] = -100
    embeddings = embeddings.detach().requires_grad_()
    with FlopCounterMode(display=False) as forward:
        losses = model(embeddings, mask, labels).losses.sum()
    with FlopCounterMode(display=False) as backward:
        losses.backward()
    products = [
        flops
        for counter in (forward, backward)
        for op, flops in counter.get_flop_counts()["Global"].items()
        if str(op) in ("aten.mm", "aten.addmm")
    ]
    assert products[0] == products[1] == 2 * 32 * 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) + 2 * 2 * 32 * 260


def test_the_head_sees_supervised_positions_alone(root: Path) -> None:
    model = config("gemma2", root).build()
    ids, embeddings, mask = inputs(model, 32, (8, 8), left=False)
    labels = torch.full_like(ids, -100)
    labels[0, 3] = labels[1, 6] = labels[1, 7] = 5
    seen = []
    model.head.register_forward_hook(lambda head, args, output: seen.append(tuple(output.shape)))
    model(embeddings, mask, labels)
    assert seen == [(1, 3, 260)]


@pytest.mark.parametrize(
    "options",
    [
        Generation(max_new_tokens=6),
        Generation(max_new_tokens=6, repetition_penalty=1.5),
        Generation(max_new_tokens=6, num_beams=3, length_penalty=0.5),
    ],
    ids=["greedy", "penalty", "beam"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_answered_as_its_rows_alone(family: str, options: Generation, root: Path) -> None:
    chosen = config(family, root)
    model = chosen.build()
    width = chosen.shape().embedding_width
    lengths = (5, 9, 14)
    left = family != "t5"
    ids, embeddings, mask = inputs(model, width, lengths, left=left)
    together = model.generate(embeddings, ids, mask, options)
    alone = []
    for length in lengths:
        ids, embeddings, mask = inputs(model, width, (length,), left=left)
        alone += model.generate(embeddings, ids, mask, options)
    assert together == alone
    assert len({tuple(row) for row in together}) > 1


@pytest.mark.parametrize("family", CONFIGS)
def test_text_alone_is_answered_as_by_ids(family: str, root: Path) -> None:
    model = config(family, root).build()
    ids = torch.tensor([[1, 40, 50, 60, 70]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    options = Generation(max_new_tokens=6, repetition_penalty=1.3)
    written = model.generate(model.embed(ids), ids, mask, options)
    own = model.model.generate(
        ids, attention_mask=mask.long(), max_new_tokens=6, do_sample=False, repetition_penalty=1.3
    )[0, 5:].tolist()
    assert written[0] == own[: len(written[0])]
    assert len(written[0]) == 6 or own[len(written[0])] == 2


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_five_beams_and_a_length_penalty_are_those_of_transformers(family: str, root: Path) -> None:
    model = config(family, root).build()
    ids = torch.tensor([[1, 40, 50, 60, 70]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    likeliest = model.generate(model.embed(ids), ids, mask, Generation(max_new_tokens=8, num_beams=5))[0]
    stops = tuple(one for one in range(4, 132) if one not in likeliest)  # half of the rest ends an answer
    lengths = []
    for penalty in (-3.0, 0.0, 3.0):
        options = Generation(max_new_tokens=8, num_beams=5, length_penalty=penalty)
        [written] = model.generate(model.embed(ids), ids, mask, options, stops)
        own = model.model.generate(
            ids, attention_mask=mask.long(), max_new_tokens=8, num_beams=5, length_penalty=penalty,
            do_sample=False, eos_token_id=[*model.ends, *stops],
        )[0, 1 if family == "t5" else 5 :].tolist()  # fmt: skip
        assert written == own[: len(written)]
        lengths.append(len(written))
    assert lengths[0] < lengths[2]


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("family", ["opt", "t5"])
def test_nothing_ends_an_answer_before_its_shortest_length(family: str, beams: int, root: Path) -> None:
    model = config(family, root).build()
    ids = torch.tensor([[0, 0, 1, 40, 50], [1, 40, 50, 60, 70]])
    mask = ids != 0
    every = tuple(range(3, 256))  # nearly every token ends an answer
    for least in (0, 1, 4):
        options = Generation(max_new_tokens=6, num_beams=beams, min_new_tokens=least)
        lengths = [len(row) for row in model.generate(model.embed(ids), ids, mask, options, every)]
        assert min(lengths) >= least
        assert least or lengths == [0, 0]


def test_sampling_follows_the_seed_and_stop_tokens_end_an_answer(root: Path) -> None:
    model = config("llama", root).build()
    ids, embeddings, mask = inputs(model, 32, (6,), left=True)
    options = Generation(max_new_tokens=8, do_sample=True, temperature=5.0)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn += model.generate(embeddings, ids, mask, options)
    assert drawn[0] == drawn[1] != drawn[2]
    greedy = model.generate(embeddings, ids, mask, Generation(max_new_tokens=8))[0]
    stop = greedy[3]
    assert (
        model.generate(embeddings, ids, mask, Generation(max_new_tokens=8), (stop,))[0] == greedy[: greedy.index(stop)]
    )


def test_a_models_own_sampling_settings_are_left_out(tmp_path: Path, root: Path) -> None:
    folder = save_model("llama", tmp_path)
    own = {"do_sample": True, "temperature": 0.9, "top_p": 0.6, "max_length": 4096, "no_repeat_ngram_size": 1}
    Path(folder, "generation_config.json").write_text(json.dumps({**own, "eos_token_id": 2}))
    model, plain = CausalLM(name=folder, max_tokens=64).build(), config("llama", root).build()
    ids, embeddings, mask = inputs(model, 32, (6,), left=True)
    for options in (Generation(max_new_tokens=12), Generation(max_new_tokens=12, num_beams=2)):
        answer = model.generate(embeddings, ids, mask, options)
        assert answer == plain.generate(embeddings, ids, mask, options)
    assert len(set(answer[0])) < len(answer[0])


def test_right_padding_is_refused_in_generation(root: Path) -> None:
    model = config("llama", root).build()
    ids, embeddings, mask = inputs(model, 32, (4, 6), left=False)
    with pytest.raises(ValueError, match="padded on the left"):
        model.generate(embeddings, ids, mask, Generation())


def test_shapes_are_read_from_the_config_alone(root: Path) -> None:
    assert config("opt", root).shape() == LLMShape(embedding_width=16, hidden_width=32, num_layers=3)
    assert config("gpt2", root).shape() == LLMShape(embedding_width=32, hidden_width=32, num_layers=3)
    assert config("t5", root).shape() == LLMShape(embedding_width=32, hidden_width=32, num_layers=3)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_counted_without_weights(family: str, root: Path) -> None:
    chosen = config(family, root)
    assert chosen.parameters() == sum(weight.numel() for weight in chosen.build().parameters())


@pytest.mark.parametrize("family", CONFIGS)
def test_causal_flops_equal_the_counters(family: str, root: Path) -> None:
    chosen = config(family, root)
    model = chosen.build()
    model.model.set_attn_implementation("eager")
    ids = torch.full((1, 24), 9)
    labels = torch.full_like(ids, -100)
    labels[0, -1] = 9
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(model.embed(ids), torch.ones_like(ids, dtype=torch.bool), labels)
    counts = counter.get_flop_counts()
    head = 2 * model.head.weight.numel()
    assert sum(counts["Global"].values()) - head == chosen.flops(24)


def test_encoder_decoder_flops_equal_the_counters(root: Path) -> None:
    chosen = config("t5", root)
    model = chosen.build().model
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs_embeds=torch.randn(1, 24, 32), decoder_input_ids=torch.zeros(1, 1, dtype=torch.long))
    counts = counter.get_flop_counts()
    encoder = sum(counts["T5ForConditionalGeneration.encoder"].values())
    keys = 3 * 2 * 2 * 24 * 32 * 32
    assert chosen.flops(24) == encoder + keys


def test_cache_bytes(root: Path) -> None:
    assert config("llama", root).kv_bytes(10) == 2 * 3 * 2 * 8 * 4 * 10
    assert CausalLM(name=save_model("opt", root), precision="bfloat16").kv_bytes(10) == 2 * 3 * 4 * 8 * 2 * 10
    assert config("t5", root).kv_bytes(10) == 2 * 3 * 4 * 8 * 4 * 10


def test_too_few_positions_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="128 positions, but max_tokens=129"):
        config("gpt2", root, max_tokens=129).build()


def test_fingerprint_follows_the_weights_not_the_length(root: Path) -> None:
    llama = config("llama", root)
    assert llama.fingerprint() == config("llama", root, max_tokens=32).fingerprint()
    assert llama.fingerprint() != config("qwen2", root).fingerprint()


class AddConstant:
    """Adds one vector at absolute positions 2 and 3 of the second layer, where they are in view."""

    def __init__(self, vector: torch.Tensor) -> None:
        self.vector = vector
        self.seen: list[tuple[int, int, int]] = []

    def __call__(self, hidden: torch.Tensor, layer: int, state: LayerState) -> torch.Tensor:
        if layer != 1:
            return hidden
        self.seen.append((hidden.shape[1], state.offset, state.repeats))
        added = hidden.clone()
        for position in (2, 3):
            if state.offset <= position < state.offset + hidden.shape[1]:
                added[:, position - state.offset] += self.vector
        return added


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2", "neox", "gemma2", "t5"])
def test_additions_reach_every_decoder(family: str, root: Path) -> None:
    chosen = config(family, root)
    model = chosen.build()
    ids, embeddings, mask = inputs(model, chosen.shape().embedding_width, (8, 8), left=False)
    labels = torch.where(mask, ids, -100)
    plain = model(embeddings, mask, labels).losses.reshape(2, -1)
    addition = AddConstant(torch.linspace(-3, 3, 32))
    model.add_to_layers(addition, 2)
    changed = model(embeddings, mask, labels).losses.reshape(2, -1)
    first = 2  # Label 3 is the first predicted from position 2; the decoder of T5 reads labels one step late.
    torch.testing.assert_close(changed[:, :first], plain[:, :first])
    assert (changed[:, first:] - plain[:, first:]).abs().min() > 0
    model.add_to_layers(None, 2)
    torch.testing.assert_close(model(embeddings, mask, labels).losses.reshape(2, -1), plain)
    assert addition.seen == [(8, 0, 1)]


@pytest.mark.parametrize("family", CONFIGS)
def test_additions_know_cache_and_beams(family: str, root: Path) -> None:
    model = config(family, root).build()
    ids, embeddings, mask = inputs(model, config(family, root).shape().embedding_width, (6, 6), left=True)
    addition = AddConstant(torch.zeros(32))
    model.add_to_layers(addition, 2)
    model.generate(embeddings, ids, mask, Generation(max_new_tokens=3, num_beams=2))
    assert addition.seen == [(6, 0, 2), (1, 6, 2), (1, 7, 2)]


def test_the_byte_tokenizer_is_one_token_a_byte() -> None:
    assert byte_tokenizer()("ab", add_special_tokens=False)["input_ids"] == [
        byte_tokenizer().convert_tokens_to_ids(letter) for letter in "ab"
    ]


def test_supervised_rows_are_the_mean_over_tokens(root: Path) -> None:
    model = config("gpt2", root).build()
    ids, embeddings, mask = inputs(model, 32, (7,), left=False)
    logits = model.model(inputs_embeds=embeddings).logits
    expected = functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")
    torch.testing.assert_close(model(embeddings, mask, ids).losses, expected)


def test_a_shortest_answer_above_the_longest_is_refused() -> None:
    with pytest.raises(ValueError, match=r"9 tokens or more \(min_new_tokens\) cannot have 8 at most"):
        Generation(min_new_tokens=9, max_new_tokens=8)


def test_a_length_penalty_without_beams_is_refused() -> None:
    with pytest.raises(ValueError, match=r"chooses among beams, and there is one\. Set num_beams=5"):
        Generation(length_penalty=-1.0)


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"num_beams": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_a_way_of_writing_that_writes_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Generation(**wrong)


@pytest.mark.parametrize("own", [True, False])
def test_a_head_of_its_own_counts_as_it_is_loaded(tmp_path: Path, own: bool) -> None:
    """`transformers` writes `tie_word_embeddings: true` beside every T5, whatever its weights are."""
    with quiet_transformers():
        made = T5ForConditionalGeneration(T5)
        if own:
            made.lm_head.weight = torch.nn.Parameter(torch.randn_like(made.lm_head.weight))
            made.all_tied_weights_keys.pop("lm_head.weight")
        made.save_pretrained(tmp_path)
    byte_tokenizer(bos=False).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is True
    chosen = EncoderDecoderLM(name=str(tmp_path), max_tokens=32)
    assert has_own_head(str(tmp_path)) is own
    assert chosen.parameters() == sum(weight.numel() for weight in chosen.build().model.parameters())


@pytest.mark.parametrize("said", [True, False, None])
def test_without_weights_the_config_says_whose_head_it_is(tmp_path: Path, said: bool | None) -> None:
    numbers = {"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    numbers |= {"vocab_size": 100} | ({} if said is None else {"tie_word_embeddings": said})
    for place, written in ((tmp_path / "t5", numbers), (tmp_path / "blip2", {"text_config": numbers})):
        place.mkdir()
        (place / "config.json").write_text(json.dumps({"model_type": "blip-2", **written}))
        assert has_own_head(str(place)) is (said is False)
