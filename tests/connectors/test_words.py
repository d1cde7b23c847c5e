"""One lookup of a batch's words against a lookup a pass, and one gradient for looking up and writing."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.connectors.words import Vocabulary
from isthmus.features import Text

WORDS, WIDTH = 40, 6


def text(*rows: list[int]) -> Text:
    ids = torch.tensor(rows)
    return Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))


FIRST, SECOND, NEW = text([3, 9, 9], [1, 3, 30]), text([9, 2]), text([3, 39])


def slopes(weight: nn.Parameter, *, together: bool, writes: bool, bf16: bool = False) -> tuple[Tensor, Tensor]:
    """What is looked up and written, and the gradient of the matrix by all of it."""
    weight.grad = None
    hidden = torch.linspace(-1, 1, 2 * WIDTH, dtype=weight.dtype).view(2, WIDTH)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        if together:
            known = Vocabulary(weight, (FIRST, SECOND), writes=writes)
            found, last = [known.of(one).vectors for one in (FIRST, SECOND, NEW)], known.weight
        else:
            found, last = [functional.embedding(one.ids, weight) for one in (FIRST, SECOND, NEW)], weight
        flat = torch.cat([one.flatten(0, 1) for one in found])
        total = (flat * torch.arange(flat.numel()).view_as(flat)).sum()
        written = functional.linear(hidden, last) if writes else hidden.new_zeros(1)
    (total + (written.float() ** 2).sum()).backward()
    assert weight.grad is not None
    return torch.cat([flat.detach().flatten(), written.detach().to(flat.dtype).flatten()]), weight.grad


@pytest.mark.parametrize("writes", [True, False])
def test_words_and_the_matrix_gradient_are_those_of_separate_lookups(writes: bool) -> None:
    weight = nn.Parameter(torch.randn(WORDS, WIDTH, dtype=torch.float64))
    given, slope = slopes(weight, together=True, writes=writes)
    wanted, wanted_slope = slopes(weight, together=False, writes=writes)
    torch.testing.assert_close(given, wanted, atol=0, rtol=0)
    torch.testing.assert_close(slope, wanted_slope, atol=1e-12, rtol=1e-12)


def test_under_autocast_rows_keep_their_precision_and_writing_is_rounded_as_ever() -> None:
    weight = nn.Parameter(torch.randn(WORDS, WIDTH))
    given, slope = slopes(weight, together=True, writes=True, bf16=True)
    wanted, wanted_slope = slopes(weight, together=False, writes=True, bf16=True)
    torch.testing.assert_close(given, wanted, atol=0, rtol=0)
    torch.testing.assert_close(slope, wanted_slope, atol=1e-5, rtol=1e-6)


def test_a_word_of_no_text_here_still_learns() -> None:
    weight = nn.Parameter(torch.randn(WORDS, WIDTH))
    known = Vocabulary(weight, (FIRST,), writes=True)
    known.of(NEW).vectors.sum().backward()
    assert weight.grad is not None
    assert (weight.grad != 0).any(dim=1).nonzero().flatten().tolist() == [3, 39]
