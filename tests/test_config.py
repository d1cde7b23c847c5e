"""Configs to JSON and back, and changes by dotted path."""

import json
from dataclasses import dataclass

import pytest

from isthmus.config import fingerprint, from_json, replace_at, to_json


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
