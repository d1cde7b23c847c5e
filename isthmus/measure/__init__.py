"""What a model costs, from its config alone, and what it takes on this machine."""

from isthmus.measure.alignment import AlignmentCost, alignment_cost, alignment_memory
from isthmus.measure.cost import BranchCost, Cost, PartCost, cost
from isthmus.measure.fit import Fit, fits, read_bytes
from isthmus.measure.formulas import SYMBOLS, Formula, formulas
from isthmus.measure.inputs import ONE_IMAGE, Inputs
from isthmus.measure.latency import Latency, time_to_first_token
from isthmus.measure.memory import TrainingMemory, training_memory
from isthmus.measure.native import native_model
from isthmus.measure.shelf import ShelfRow, shelf

__all__ = [
    "ONE_IMAGE",
    "SYMBOLS",
    "AlignmentCost",
    "BranchCost",
    "Cost",
    "Fit",
    "Formula",
    "Inputs",
    "Latency",
    "PartCost",
    "ShelfRow",
    "TrainingMemory",
    "alignment_cost",
    "alignment_memory",
    "cost",
    "fits",
    "formulas",
    "native_model",
    "read_bytes",
    "shelf",
    "time_to_first_token",
    "training_memory",
]
