"""What a stage asks of a model: `OBJECTIVES` lists every objective by its name."""

from isthmus.train.objectives.base import Objective
from isthmus.train.objectives.next_token import NextToken

__all__ = ["OBJECTIVES", "NextToken", "Objective"]

OBJECTIVES: dict[str, type[Objective]] = {
    "next-token": NextToken,
}
