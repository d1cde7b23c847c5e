"""How a run is carried out, apart from what its recipe says: nothing here alters what is learned but by rounding."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Choices of one run and not of its stage."""

    tensorboard: bool = False
    """Write the curves as events into the run folder."""
    shard: bool = False
    """Cut the language model's layers over the processes, which changes memory and nothing else: the folder is the
    same."""
    pack: bool = False
    """Read the rows of a batch one after another in as few as hold them; losses are equal to rounding."""


AS_IT_IS = RunOptions()
"""Nothing written besides the run folder, a copy of the model in each process, rows apart."""
