"""The pieces of the trainings: the optimizer, the eye's own forward pass, the first lookup of a speaker."""

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from backbones.budget import rate_at
from backbones.eye_batch import GRID, centre_of, patches_of
from backbones.eye_model import choose_patches, new_tower, see
from backbones.lookup_start import start_heads
from backbones.optimise import Both, orthogonalise, split_parameters
from backbones.translator import deepen


def test_orthogonalised_matrices_have_like_singular_values() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, 12, 20)))
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.7


def test_the_optimizer_lowers_a_loss_and_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 1))
    inputs, before = torch.randn(32, 6), [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = Both([model], matrix_rate=1e-2, other_rate=1e-2, decay=0.0)
    losses = []
    for _ in range(100):
        loss = (model(inputs) - inputs[:, :1]).pow(2).mean()
        loss.backward()
        optimizer.step(1.0)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_embeddings_and_heads_are_no_matrices() -> None:
    matrices, others = split_parameters([nn.ModuleDict({"embed": nn.Embedding(4, 3), "inner": nn.Linear(3, 3)})])
    assert [tuple(one.shape) for one in matrices] == [(3, 3)]
    assert len(others) == 2


def test_the_rate_warms_up_and_ends_low() -> None:
    assert rate_at(0.0, 0, warmup_steps=10) == 0.1
    assert rate_at(0.5, 100) == 0.01 + 0.99 * 0.5
    assert rate_at(1.0, 100) == 0.01


def test_seeing_all_patches_equals_the_towers_own_forward() -> None:
    torch.manual_seed(0)
    tower, pixels = new_tower().eval(), torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        own = tower(pixels, output_hidden_states=True).hidden_states[-1]
        assert torch.allclose(see(tower, pixels, None), own, atol=1e-5)
        everything = torch.arange(GRID * GRID).expand(2, -1)
        assert torch.allclose(see(tower, pixels, everything), own, atol=1e-5)


def test_boxes_cover_their_patches() -> None:
    box = (0.5, 0.0, 0.68, 0.08)
    assert patches_of(box).nonzero()[:, 0].tolist() == [6, 7]
    assert centre_of(box) == (0, 7)


def test_kept_patches_are_those_of_small_regions_first() -> None:
    torch.manual_seed(0)
    covered = torch.zeros(1, 144, dtype=torch.bool)
    covered[0, :10] = True
    kept = choose_patches(covered, torch.tensor([0]), 2, 40)
    assert kept.shape == (2, 40)
    assert int((kept[0] < 10).sum()) >= 6


def test_started_heads_look_back_by_fixed_distances() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=200, hidden_size=256, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM._from_config(config, attn_implementation="eager")
    start_heads(model)
    with torch.no_grad():
        seen = model(torch.randint(3, 200, (1, 24)), output_attentions=True).attentions[0][0, :, 20]
    assert [20 - int(head.argmax()) for head in seen] == [1, 2, 3, 4]


def test_a_deeper_translator_says_the_same_at_first() -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=20, d_model=16, d_kv=8, d_ff=24, num_layers=4, num_decoder_layers=2, num_heads=2, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).eval()
    deep = deepen(model, 6).eval()
    ids, said = torch.randint(1, 20, (2, 9)), torch.randint(1, 20, (2, 3))
    with torch.no_grad():
        torch.testing.assert_close(deep(input_ids=ids, labels=said).logits, model(input_ids=ids, labels=said).logits)
    assert len(deep.encoder.block) == 6
    assert not bool(deep.encoder.block[2].layer[0].SelfAttention.o.weight.any())
    assert bool(deep.encoder.block[4].layer[0].SelfAttention.o.weight.any())
