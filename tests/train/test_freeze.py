"""What learns is what was named, and the report says what is, not what was asked."""

import pytest
import torch
from torch import nn

from isthmus.train import freeze
from isthmus.train.optimizer import AdamW


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 2)
        self.dropout = nn.Dropout(0.5)


def whole() -> nn.ModuleDict:
    return nn.ModuleDict({"connector": nn.Linear(2, 3), "llm": nn.ModuleDict({"a": Block(), "b": Block()})})


def test_exactly_the_named_learn() -> None:
    model = whole()
    freeze.apply(model, ("connector.bias", "llm.a.first"))
    assert [name for name, one in model.named_parameters() if one.requires_grad] == [
        "connector.bias",
        "llm.a.first.weight",
        "llm.a.first.bias",
    ]


def test_a_second_choice_replaces_the_first() -> None:
    model = whole()
    freeze.apply(model, ("llm",))
    freeze.apply(model, ("connector",))
    assert [name for name, one in model.named_parameters() if one.requires_grad] == [
        "connector.weight",
        "connector.bias",
    ]


def test_a_name_that_matches_nothing_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'conector', which matches no parameter. Did you mean 'connector'"):
        freeze.apply(whole(), ("conector",))
    with pytest.raises(ValueError, match="The parts are: connector, llm"):
        freeze.apply(whole(), ("connector", "x"))


def test_frozen_modules_are_in_evaluation_mode() -> None:
    model = whole()
    freeze.apply(model, ("llm.a.first",))
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes["llm.a.first"]
    assert modes["llm.a.dropout"]
    assert not modes["llm.a.second"]
    assert not modes["llm.b.dropout"]
    assert not modes["connector"]


def test_new_weights_of_an_arrangement_are_not_left_as_they_were_drawn() -> None:
    model = nn.ModuleDict({"connector": nn.Linear(2, 3), "arrange": nn.Linear(2, 3)})
    model["video"] = nn.ModuleDict({"arrange": nn.Linear(1, 1)})
    refused = r"has 9 new parameters .* train=\('connector',\) does not name 'arrange'.*--train connector arrange"
    for names, loaded, said in (
        (("connector",), (), refused),
        (("connector", "arrange.bias"), (), r"has 6 new parameters .*'arrange'"),
        (("connector", "arrange"), (), r"has 2 new parameters .*'video\.arrange'"),
        (("connector", "video"), ("arrange.weight",), r"has 3 new parameters"),
    ):
        freeze.apply(model, names)
        with pytest.raises(ValueError, match=said):
            freeze.check_fresh(model, names, loaded)
    freeze.apply(model, ("connector", "video"))
    freeze.check_fresh(model, ("connector", "video"), ("arrange.weight", "arrange.bias"))


def test_a_tied_weight_learns_by_either_name() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(3, 2), "head": nn.Linear(2, 3, bias=False)})
    model["head"].weight = model["table"].weight
    freeze.apply(model, ("head",))
    assert model["table"].weight.requires_grad


def test_the_report_counts_what_learns() -> None:
    model = whole()
    freeze.apply(model, ("connector", "llm.b.second"))
    config = AdamW(peak_lr=1e-3, weight_decay=0.1, rates=(("llm", 1e-5),))
    report = freeze.report(model, config.build(model.named_parameters()))
    assert [(row.part, row.parameters, row.trainable) for row in report.rows] == [("connector", 9, 9), ("llm", 24, 6)]
    assert report.rows[1].peak_rates == (1e-5,)
    assert report.rows[0].weight_decays == (0.0, 0.1)
    assert (report.parameters, report.trainable) == (33, 15)
    assert "6 learn   lr 1e-05" in report.lines()[1]


def test_a_report_refuses_an_optimizer_that_disagrees() -> None:
    model = whole()
    freeze.apply(model, ("connector",))
    optimizer = torch.optim.AdamW(model["connector"].parameters())
    model["connector"].bias.requires_grad_(False)
    with pytest.raises(AssertionError, match=r"connector\.bias"):
        freeze.report(model, optimizer)


def test_adapters_on_a_branch_leave_its_connector_learning() -> None:
    encoder = nn.ModuleDict({"proj": nn.Linear(2, 2), "a": nn.Module()})
    encoder["a"].lora_A = nn.Linear(2, 1)
    model = nn.ModuleDict({"audio": nn.ModuleDict({"encoder": encoder, "connector": nn.Linear(2, 2)})})
    freeze.apply(model, ("audio",))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {
        *("audio.connector.weight", "audio.connector.bias"),
        *("audio.encoder.a.lora_A.weight", "audio.encoder.a.lora_A.bias"),
    }
