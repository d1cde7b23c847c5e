"""The optimizer of every backbone: Muon for the matrices inside, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.optim import AdamW

_POLAR = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
)
"""Four steps towards the polar factor (Polar Express, arXiv:2505.16932, table of coefficients)."""


def orthogonalise(matrices: Float[Tensor, "count rows columns"]) -> Float[Tensor, "count rows columns"]:
    """Nearly the orthogonal factor of every matrix; in float32, for processors without fast bfloat16."""
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (1.01 * x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for a, b, c in _POLAR:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Both:
    """Muon (arXiv:2502.16982, its update scaled to AdamW's size) and AdamW under one learning-rate factor."""

    def __init__(self, modules: Iterable[nn.Module], *, matrix_rate: float, other_rate: float, decay: float) -> None:
        self.matrices, self.others = split_parameters(modules)
        self.momenta = [torch.zeros_like(matrix) for matrix in self.matrices]
        self.matrix_rate, self.other_rate, self.decay = matrix_rate, other_rate, decay
        self.adam = AdamW(self.others, lr=other_rate, weight_decay=0.0, betas=(0.9, 0.98), foreach=True)

    def step(self, factor: float) -> float:
        """One update at this factor of the peak rates; returns the gradient norm before clipping to 1."""
        norm = torch.nn.utils.clip_grad_norm_(self.matrices + self.others, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = self.other_rate * factor
        self.adam.step()
        self._step_matrices(self.matrix_rate * factor)
        for parameter in self.matrices + self.others:
            parameter.grad = None
        return float(norm)

    @torch.no_grad()
    def _step_matrices(self, rate: float) -> None:
        """Every process orthogonalises its share of the matrices; all get all of them."""
        alone = not distributed.is_initialized()
        rank, processes = (0, 1) if alone else (distributed.get_rank(), distributed.get_world_size())
        by_shape: dict[torch.Size, list[int]] = {}
        for place, matrix in enumerate(self.matrices):
            if matrix.grad is not None:
                by_shape.setdefault(matrix.shape, []).append(place)
                self.momenta[place].lerp_(matrix.grad, 0.05)
                matrix.grad.lerp_(self.momenta[place], 0.95)
        updates = [torch.zeros_like(matrix) for matrix in self.matrices]
        for places in by_shape.values():
            own = places[rank::processes]
            if own:
                directions = torch.stack([self.matrices[place].grad for place in own])  # type: ignore[misc]
                for place, update in zip(own, orthogonalise(directions), strict=True):
                    updates[place] = update
        if not alone:
            flat = torch.cat([update.flatten() for update in updates])
            distributed.all_reduce(flat)
            parts = torch.split(flat, [update.numel() for update in updates])
            updates = [part.view_as(update) for part, update in zip(parts, updates, strict=True)]
        for matrix, update in zip(self.matrices, updates, strict=True):
            size = 0.2 * max(matrix.shape) ** 0.5
            matrix.mul_(1 - rate * self.decay).add_(update, alpha=-rate * size)


def split_parameters(modules: Iterable[nn.Module]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights of linear layers that are no embedding and no head, and everything else; shared weights once."""
    matrices: dict[int, nn.Parameter] = {}
    others: dict[int, nn.Parameter] = {}
    for module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            inside = parameter.ndim == 2 and not any(
                part in name for part in ("embed", "head", "relative", "cls.", "shared")
            )
            (matrices if inside else others).setdefault(id(parameter), parameter)
    return list(matrices.values()), list(others.values())
