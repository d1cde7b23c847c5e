"""The page on connectors names every one, and its example of a new connector works as it says."""

import inspect
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from isthmus.connectors import CONNECTORS
from isthmus.features import Features, FeatureShape, Grid, LLMShape

PAGE = (Path(__file__).parents[2] / "docs" / "connectors.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


@pytest.mark.parametrize("name", list(CONNECTORS))
def test_every_connector_has_its_row_with_its_paper(name: str) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    assert CONNECTORS[name].__name__ in row
    told = inspect.getdoc(sys.modules[CONNECTORS[name].__module__]) or ""
    paper = re.search(r"arXiv:(\d{4}\.\d{5})", told)
    assert paper is not None
    assert f"arxiv.org/abs/{paper[1]}" in row


def test_the_first_example_prints_the_published_costs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[0], "connectors.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[0] == "576 20979712 24159191040"


def test_the_example_of_a_new_connector_keeps_its_costs() -> None:
    module = types.ModuleType("stride")
    sys.modules["stride"] = module
    try:
        exec(compile(BLOCKS[1], "stride.py", "exec"), module.__dict__)
    finally:
        del sys.modules["stride"]
    source = FeatureShape(width=6, grid=Grid(1, 3, 4))
    target = LLMShape(embedding_width=5, hidden_width=5, num_layers=1)
    config = module.StrideConfig(step=2)
    connector = config.build(source, target)
    with FlopCounterMode(display=False) as counter:
        tokens = connector(Features(tokens=torch.randn(2, 12, 6), grid=source.grid)).tokens
    assert tokens.shape == (2, config.num_tokens(source.grid), 5) == (2, 4, 5)
    assert counter.get_total_flops() == 2 * config.flops(source, target)
    assert sum(weight.numel() for weight in connector.parameters()) == config.parameters(source, target)
