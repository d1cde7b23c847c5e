"""Configs to JSON and back, and changes by dotted path."""

import json
from copy import copy
from dataclasses import dataclass
from typing import Literal

import pytest

from isthmus.config import check_choices, fingerprint, from_json, replace_at, to_json
from isthmus.recipes import quickstart


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    layers: tuple[int, ...] = (-2,)


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    nothing: None = None


TYPES: dict[str, type] = {"Inner": Inner, "Outer": Outer}


def test_a_config_survives_the_round_trip_through_text() -> None:
    config = Outer(name="a", inner=Inner(rate=1e-3, layers=(1, 2)), many=(Inner(), Inner(rate=0.0)))
    assert from_json(json.loads(json.dumps(to_json(config))), TYPES) == config


def test_json_is_readable() -> None:
    assert to_json(Inner()) == {"type": "Inner", "rate": 0.5, "layers": [-2]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"type": "Iner"}, "Did you mean 'Inner'"),
        ({"type": "Inner", "rat": 1.0}, "Did you mean 'rate'"),
        ({"type": "Outer"}, "missing 1 required keyword-only argument: 'name'"),
        ({"type": "os.system"}, "Unknown config type 'os.system'"),
    ],
)
def test_what_cannot_be_read_is_named(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(data, TYPES)


def test_a_value_that_is_no_config_is_refused() -> None:
    with pytest.raises(ValueError, match="not <class 'set'>"):
        to_json(Outer(name={1}))  # type: ignore[arg-type]


def test_equal_configs_share_a_fingerprint_and_others_do_not() -> None:
    assert fingerprint(Inner(rate=0.5)) == fingerprint(Inner())
    assert fingerprint(Inner(rate=0.25)) != fingerprint(Inner())


def test_replace_at_reaches_into_a_config_and_names_typos() -> None:
    config = replace_at(Outer(name="a"), "inner.rate", 2.0)
    assert config == Outer(name="a", inner=Inner(rate=2.0))
    with pytest.raises(ValueError, match="Did you mean 'inner'"):
        replace_at(config, "iner.rate", 1.0)
    with pytest.raises(ValueError, match="it has no fields"):
        replace_at(config, "name.length", 1)


@dataclass(frozen=True, kw_only=True)
class Choosy:
    side: Literal["left", "right"] = "left"
    width: Literal[1, 2] | None = None
    inner: tuple[object, ...] = ()


def test_what_is_none_of_the_choices_is_refused_at_any_depth() -> None:
    check_choices(Choosy(inner=(Choosy(side="right", width=2), 3)))
    with pytest.raises(
        ValueError, match=r"Choosy\(side='rigth'\): it must be one of 'left', 'right'. Did you mean 'right'"
    ):
        check_choices(Choosy(side="rigth"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Choosy\(width=3\): it must be one of 1, 2, None"):
        check_choices(Choosy(inner=(Choosy(width=3),)))  # type: ignore[arg-type]


def test_a_stage_and_a_model_refuse_what_is_none_of_the_choices() -> None:
    stage = copy(quickstart.stage())
    model = copy(stage.model)
    # Past the type checks that tests run under, which a user's own code does not.
    object.__setattr__(stage, "precision", "bfloat16")
    object.__setattr__(model, "placement", "in place")
    with pytest.raises(ValueError, match=r"Stage\(precision='bfloat16'\): it must be one of 'float32', 'bf16'"):
        stage.__post_init__()
    with pytest.raises(ValueError, match=r"Model\(placement='in place'\).* Did you mean 'in-place'"):
        model.__post_init__()
