"""A linear classifier on frozen features, the same way for every eye."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def probe(
    train: Float[Tensor, "train width"],
    answers: Int[Tensor, "train"],
    test: Float[Tensor, "test width"],
    num_classes: int,
    *,
    decay: float = 1e-3,
) -> Int[Tensor, "test"]:
    """The predictions of a logistic regression on standardised features (L-BFGS, squared weights times `decay`)."""
    mean, spread = train.mean(0), train.std(0) + 1e-6
    inputs, unseen = (train - mean) / spread, (test - mean) / spread
    weight = torch.zeros(num_classes, train.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=150, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(inputs @ weight.T + bias, answers) + decay * weight.pow(2).sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return (unseen @ weight.T + bias).argmax(1).detach()
