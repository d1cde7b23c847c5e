"""Rows of a batch in one row: the losses and gradients of rows apart, in every family that can; others are refused."""

from pathlib import Path

import pytest
import torch
from tiny_models import CONFIGS, save_model

from isthmus.llms import CausalLM
from isthmus.llms.packing import first_fit, pack

CAN = [family for family in CONFIGS if family != "opt"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packing")


def test_the_longest_goes_first_into_the_first_pack_with_room() -> None:
    assert first_fit([3, 7, 4, 6, 1], 10) == [[1, 0], [3, 2], [4]]
    assert first_fit([12, 3], 10) == [[0], [1]]


def test_a_packed_row_by_hand() -> None:
    embeddings = torch.arange(8.0).reshape(2, 4, 1)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    packed = pack(embeddings, mask, torch.tensor([[5, 6, 7, 8], [1, 2, -100, -100]]), 6)
    assert packed.embeddings[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert packed.labels.tolist() == [[-100, 6, 7, 8, -100, 2]]
    assert packed.owner.tolist() == [[0, 0, 0, 0, 1, 1]]
    apart = pack(embeddings, mask, torch.zeros(2, 4, dtype=torch.long), 5)
    assert apart.positions.tolist() == [[0, 1, 2, 3], [0, 1, 0, 1]]
    assert apart.labels.tolist() == [[-100, 0, 0, 0], [-100, 0, -100, -100]]


@pytest.mark.parametrize("family", CAN)
def test_packed_rows_have_the_losses_and_gradients_of_rows_apart(family: str, root: Path) -> None:
    config = CausalLM(name=save_model(family, root), max_tokens=24)
    model = config.build()
    torch.manual_seed(0)
    lengths = torch.tensor([9, 14, 3, 10, 1])
    mask = torch.arange(14) < lengths[:, None]
    labels = torch.randint(4, 260, (5, 14)).masked_fill(~mask, -100)
    labels[1, :6] = -100
    soft = torch.randn(5, 14, config.shape().embedding_width)
    found = []
    for packs in (False, True):
        if packs:
            model.pack_rows()
        embeddings = soft.clone().requires_grad_()
        said = model(embeddings, mask, labels)
        said.losses.sum().backward()
        found.append((said.losses, said.rows, embeddings.grad))
    assert found[1][1].tolist() == found[0][1].tolist()
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1][2], found[0][2], atol=1e-5, rtol=1e-3)
    assert len(first_fit(lengths.tolist(), 24)) == 2


def test_a_model_whose_attention_does_not_part_rows_is_refused(root: Path) -> None:
    model = CausalLM(name=save_model("opt", root), max_tokens=24).build()
    with pytest.raises(ValueError, match="OPTForCausalLM cannot read packed rows: a row sees those before it"):
        model.pack_rows()
    assert not model.packs
