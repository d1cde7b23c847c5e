"""Questions with exact answers about scenes of the exact world."""

from isthmus.data.sources.world.questions.ask import FAMILIES, Priors, ask
from isthmus.data.sources.world.questions.existence import yes_prior
from isthmus.data.sources.world.questions.question import Question

__all__ = ["FAMILIES", "Priors", "Question", "ask", "yes_prior"]
