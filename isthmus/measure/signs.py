"""Signs of how a connector learns, read off tensors: rank, likeness, where attention goes, norms of gradients."""

import math
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.connectors.qformer_layers import Attention
from isthmus.connectors.unprojected import Unprojected


def effective_rank(vectors: Float[Tensor, "*sets vectors width"]) -> Float[Tensor, "*sets"]:
    """How many directions a set of vectors uses: 1 when all are parallel, at most the smaller of number and width.

    exp of the entropy of the singular values, each as a share of their sum.
    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007.
    """
    values = torch.linalg.svdvals(vectors.float())
    shares = values / values.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    rank: Tensor = torch.special.entr(shares).sum(dim=-1).exp()
    return rank


def mean_cosine(vectors: Float[Tensor, "*sets vectors width"]) -> Float[Tensor, "*sets"]:
    """The mean cosine of two different vectors of a set; a set of one counts as 1."""
    count = vectors.shape[-2]
    if count < 2:
        return torch.ones(vectors.shape[:-2], device=vectors.device)
    unit = nn.functional.normalize(vectors.float(), dim=-1)
    whole = unit.sum(dim=-2).square().sum(dim=-1)
    return (whole - unit.square().sum(dim=(-2, -1))) / (count * (count - 1))


def share_distinct(vectors: Float[Tensor, "*sets vectors width"], alike: float = 0.9995) -> Float[Tensor, "*sets"]:
    """The share of a set's vectors that are no copy (a cosine of `alike` or more) of one before them."""
    unit = nn.functional.normalize(vectors.float(), dim=-1)
    copies = ((unit @ unit.transpose(-1, -2)) >= alike).tril(diagonal=-1).any(dim=-1)
    return (~copies).float().mean(dim=-1)


class LookingEntropy:
    """While open, notes how evenly queries look at the image in every cross-attention of a Q-Former.

    `value` is the mean entropy over its logarithm's base, 0 (one patch alone) to 1 (all patches alike); None where the
    model has no such attention. Passes that group several texts an image are left out.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = cross_attentions(model)
        self.found: list[Tensor] = []
        self.handles: list[Any] = []

    @property
    def value(self) -> float | None:
        """The mean over layers, heads, queries and images."""
        return float(torch.stack(self.found).mean()) if self.found else None

    def __enter__(self) -> "LookingEntropy":
        self.handles = [one.register_forward_pre_hook(self._note) for one in self.modules]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self.handles:
            handle.remove()

    @torch.no_grad()
    def _note(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        weights = looking(module, args)
        if weights is None:
            return
        _, _, mask, *_ = args
        most = torch.tensor(math.log(weights.shape[-1]), device=weights.device)
        if mask is not None:
            most = mask.sum(dim=-1).clamp(min=2).log()[:, None]
        self.found.append((torch.special.entr(weights).sum(dim=-1) / most).mean())


def cross_attentions(model: nn.Module) -> list[nn.Module]:
    """The attention modules by which the queries of Q-Formers look at an image, from the first layer on."""
    return [one for name, one in model.named_modules() if name.split(".")[-1] == "cross" and isinstance(one, Attention)]


def looking(module: nn.Module, args: tuple[Any, ...]) -> Float[Tensor, "rows heads places sources"] | None:
    """Where such a module, called with `args`, looks; None where texts are grouped by image, or there is one source."""
    assert isinstance(module, Attention)
    hidden, pair, mask, *arranged = args
    rows, sources = (pair.tokens if isinstance(pair, Unprojected) else pair[0]).shape[:2]
    if any(one is not None for one in arranged) or len(hidden) != rows or sources < 2:
        return None
    keys = module.key(pair.whole()) if isinstance(pair, Unprojected) else pair[0]
    split = "rows places (heads inner) -> rows heads places inner"
    query, key = (rearrange(one.float(), split, heads=module.heads) for one in (module.query(hidden), keys))
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], -math.inf)
    weights: Tensor = scores.softmax(dim=-1)
    return weights


def part_of(name: str) -> str:
    """The part that a parameter belongs to: `connector.layers.3.cross.key.weight` is in `connector.cross`."""
    head, *rest = [piece for piece in name.split(".") if not piece.isdigit() and piece != "layers"]
    if head not in ("connector", "arrange"):
        return head
    inner = rest[:-1] or rest
    return ".".join([head, *inner[: 2 if inner[0] == "heads" else 1]])


def gradient_norms(parameters: Iterable[tuple[str, Tensor]]) -> dict[str, float]:
    """The norm of the gradient of each part (`part_of`) that learns; 0 where none arrived."""
    squares: dict[str, list[Tensor]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            some = squares.setdefault(part_of(name), [])
            if parameter.grad is not None:
                some.append(parameter.grad.float().square().sum())
    return {part: float(torch.stack(some).sum().sqrt()) if some else 0.0 for part, some in squares.items()}
