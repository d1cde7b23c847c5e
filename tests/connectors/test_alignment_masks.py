"""Who sees whom in the three passes, proven in float64: what a mask forbids changes nothing, what it allows does."""

import dataclasses

import pytest
import torch
from torch import Tensor

from isthmus.connectors import QFormerConfig, QLlamaConfig
from isthmus.connectors.qformer import QFormer
from isthmus.connectors.qformer_reading import QFormerReading
from isthmus.features import Captions, Features, FeatureShape, Grid, Text

QUERIES, LENGTH = 2, 4
SOURCE = FeatureShape(width=6, grid=Grid(1, 1, 3))
QFORMER = QFormerConfig(
    num_queries=QUERIES, width=8, layers=3, heads=2, ffn_width=12, dropout=0.0, text=True, vocabulary=20, positions=8,
    embedding=4,
)  # fmt: skip
QLLAMA = QLlamaConfig(
    num_queries=QUERIES, width=8, layers=3, heads=2, ffn_width=12, text=True, vocabulary=20, embedding=4, pool_heads=2
)


def expected(pattern: str, *, text_alone_is_causal: bool) -> Tensor:
    """[places that are told, places that are changed]; queries first."""
    total = QUERIES + LENGTH
    seen = torch.ones(total, total, dtype=torch.bool)
    causal = pattern == "causal" or (pattern == "uni-modal" and text_alone_is_causal)
    if causal:
        seen[QUERIES:, QUERIES:] = seen[QUERIES:, QUERIES:].tril()
    if pattern != "bidirectional":
        seen[:QUERIES, QUERIES:] = False
    if pattern == "uni-modal":
        seen[QUERIES:, :QUERIES] = False
    return seen


def read(module: torch.nn.Module, ids: Tensor, mask: Tensor, pattern: str) -> Tensor:
    """[queries and text, width] of one image with one text."""
    seen = Features(
        tokens=torch.randn(1, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), grid=SOURCE.grid
    )
    text = Text(ids=ids[None], mask=mask[None])
    if isinstance(module.config, QFormerConfig):
        told = module.read(seen, text, mask=pattern)
    else:
        told = module.read(seen, text, (pattern,))
    return torch.cat([told.queries[0], told.text[0]])


@pytest.mark.parametrize("config", [QFORMER, QLLAMA], ids=["q-former", "qllama"])
@pytest.mark.parametrize("pattern", ["uni-modal", "bidirectional", "causal"])
@pytest.mark.parametrize("padded", [False, True])
def test_what_is_forbidden_changes_nothing_and_what_is_allowed_does(config, pattern: str, padded: bool) -> None:
    torch.manual_seed(3)
    module = config.build_alone(SOURCE).double().eval()
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    ids, mask = torch.tensor([3, 4, 5, 6]), torch.tensor([True, True, True, not padded])
    before = read(module, ids, mask, pattern)
    changes, slopes = [], []
    for place in range(QUERIES):
        kept = module.queries.data.clone()
        module.queries.data[place] += torch.randn(8, dtype=torch.float64)
        changes.append((read(module, ids, mask, pattern) - before).abs().amax(-1))
        module.queries.data = kept
    for place in range(LENGTH):
        other = ids.clone()
        other[place] = 11
        changes.append((read(module, other, mask, pattern) - before).abs().amax(-1))
    direction = torch.randn(8, dtype=torch.float64)
    for row in read(module, ids, mask, pattern):
        by_query, by_word = torch.autograd.grad(
            (row * direction).sum(), (module.queries, module.words.weight), retain_graph=True, materialize_grads=True
        )
        slopes.append(torch.cat([by_query, by_word[ids]]).abs().amax(-1))
    wanted = expected(pattern, text_alone_is_causal=isinstance(config, QLlamaConfig))
    if padded:
        wanted[:-1, -1] = False
    told = slice(None, QUERIES + LENGTH - padded)
    moved, felt = torch.stack(changes, dim=1)[told], torch.stack(slopes)[told]
    wanted = wanted[told]
    assert bool((moved[~wanted] == 0).all())
    assert bool((felt[~wanted] == 0).all())
    assert bool((moved[wanted] > 1e-6).all())
    assert bool((felt[wanted] > 1e-9).all())
    assert bool((~wanted).any()) == (pattern != "bidirectional" or padded)


def test_a_text_alone_never_sees_the_image() -> None:
    module = dataclasses.replace(QFORMER).build_alone(SOURCE).double().eval()
    tokens = torch.randn(1, 3, 6, dtype=torch.float64, requires_grad=True)
    text = Text(ids=torch.tensor([[3, 4]]), mask=torch.tensor([[True, True]]))
    told = module.read(Features(tokens=tokens, grid=SOURCE.grid), text, mask="uni-modal").text
    (slope,) = torch.autograd.grad(told.square().sum(), tokens, allow_unused=True)
    assert slope is None or not bool(slope.any())


IDS = torch.tensor([[2, 4, 5, 6], [2, 8, 9, 10]])
MASK = torch.tensor([[True, True, True, True], [True, True, True, False]])
SOURCES = ("4", "5", "6", "8", "9", "10", "image 0", "image 1", "queries")
"""What is changed: words by their ids (10 is padding), the two images, the queries."""
SEEN = {
    "image 0": {"image 0", "queries"},
    "image 1": {"image 1", "queries"},
    "text 0": {"4", "5", "6"},
    "text 1": {"8", "9"},
    "written 0 after [DEC]": {"image 0", "queries"},
    "written 0 after 4": {"image 0", "queries", "4"},
    "written 0 after 5": {"image 0", "queries", "4", "5"},
    "written 1 after [DEC]": {"image 1", "queries"},
    "written 1 after 8": {"image 1", "queries", "8"},
    "text 0 with image 0": {"image 0", "queries", "4", "5", "6"},
    "text 0 with image 1": {"image 1", "queries", "4", "5", "6"},
    "text 1 with image 1": {"image 1", "queries", "8", "9"},
}
"""What each of a training step's outputs may depend on; a caption's last word is written and not read."""


def step_outputs(module: QFormer, tokens: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """The outputs of the passes as a training step makes them: packed, and the texts of two passes in one."""
    text = Text(ids=ids, mask=MASK)
    write = Text(ids=torch.cat([torch.full((2, 1), 19), ids[:, 1:]], dim=1), mask=MASK)
    targets = write.ids.masked_fill(~MASK, -100)
    captions = Captions(
        contrast=text, match=text, write=write, targets=targets, image_ids=torch.arange(2),
        empty=torch.zeros(2, dtype=torch.bool),
    )  # fmt: skip
    made = QFormerReading(module, Features(tokens=tokens, grid=SOURCE.grid), captions)
    made.expect("contrast")
    made.expect("write")
    assert made.together
    written = made.written
    pairs = made.match(Text(ids=ids[[0, 0, 1]], mask=MASK[[0, 0, 1]]), [0, 1, 1], None)
    told = [*made.images("queries").flatten(1), *made.texts(), *written[0], *written[1, :2], *pairs]
    return dict(zip(SEEN, told, strict=True))


def test_the_passes_of_a_step_see_what_they_may_and_nothing_else() -> None:
    torch.manual_seed(3)
    module = QFORMER.build_alone(SOURCE).double().eval()
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    tokens = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    before = step_outputs(module, tokens, IDS)
    moved, felt = {}, {}
    for source in SOURCES:
        ids, seen, kept = IDS, tokens.detach().clone(), module.queries.data.clone()
        if source == "queries":
            module.queries.data[0] += torch.randn(8, dtype=torch.float64)
        elif source.startswith("image"):
            seen[int(source[-1])] += torch.randn(3, 6, dtype=torch.float64)
        else:
            ids = IDS.masked_fill(int(source) == IDS, 12)
        after = step_outputs(module, seen, ids)
        module.queries.data = kept
        for name, told in before.items():
            moved[name, source] = float((after[name] - told).detach().abs().max())
    for name, told in before.items():
        direction = torch.randn(len(told), dtype=torch.float64)
        by_image, by_query, by_word = torch.autograd.grad(
            (told * direction).sum(), (tokens, module.queries, module.words.weight), retain_graph=True,
            materialize_grads=True,
        )  # fmt: skip
        slopes = [*(by_word[int(one)] for one in SOURCES[:6]), *by_image, by_query]
        felt |= {(name, one): float(slope.abs().max()) for one, slope in zip(SOURCES, slopes, strict=True)}
    for name, may in SEEN.items():
        for source in SOURCES:
            change, slope = moved[name, source], felt[name, source]
            if source in may:
                assert change > 1e-6, (name, source)
                assert slope > 1e-9, (name, source)
            else:
                assert (change, slope) == (0.0, 0.0), (name, source)
