"""Arrangements: the visual tokens of an input's views become one sequence."""

from isthmus.connectors.arrange.base import Arrangement, ArrangementConfig
from isthmus.connectors.arrange.concatenate import Concatenate

ARRANGEMENTS: dict[str, type[ArrangementConfig]] = {
    "concatenate": Concatenate,
}
"""Every arrangement, by name."""

__all__ = ["ARRANGEMENTS", "Arrangement", "ArrangementConfig", "Concatenate"]
