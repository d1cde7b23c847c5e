"""Arrangements: the visual tokens of an input's views become one sequence."""

from isthmus.connectors.arrange.anyres import Anyres
from isthmus.connectors.arrange.base import Arrangement, ArrangementConfig
from isthmus.connectors.arrange.concatenate import Concatenate
from isthmus.connectors.arrange.separated import Separated

ARRANGEMENTS: dict[str, type[ArrangementConfig]] = {
    "concatenate": Concatenate,
    "anyres": Anyres,
    "separated": Separated,
}
"""Every arrangement, by name."""

__all__ = ["ARRANGEMENTS", "Anyres", "Arrangement", "ArrangementConfig", "Concatenate", "Separated"]
