"""Exchange: official checkpoints and native classes of `transformers` come in as runs; runs go out as folders."""

from isthmus.exchange.exporting import Exported, export
from isthmus.exchange.folders import Imported
from isthmus.exchange.goals import find_goal
from isthmus.exchange.importing import import_native
from isthmus.exchange.official import import_official
from isthmus.exchange.outgoing import GOALS

__all__ = ["GOALS", "Exported", "Imported", "export", "find_goal", "import_native", "import_official"]
