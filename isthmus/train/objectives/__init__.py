"""What a stage asks of a model: `OBJECTIVES` lists every objective by its name."""

from isthmus.train.objectives.base import Objective
from isthmus.train.objectives.itc import ITC
from isthmus.train.objectives.itg import ITG
from isthmus.train.objectives.itm import ITM
from isthmus.train.objectives.next_token import NextToken

__all__ = ["ITC", "ITG", "ITM", "OBJECTIVES", "NextToken", "Objective"]

OBJECTIVES: dict[str, type[Objective]] = {
    "next-token": NextToken,
    "itc": ITC,
    "itm": ITM,
    "itg": ITG,
}
