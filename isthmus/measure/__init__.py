"""What a model costs, from its config alone, and what it takes on this machine."""

from isthmus.measure.cost import Cost, PartCost, cost
from isthmus.measure.latency import Latency, time_to_first_token
from isthmus.measure.memory import TrainingMemory, training_memory

__all__ = ["Cost", "Latency", "PartCost", "TrainingMemory", "cost", "time_to_first_token", "training_memory"]
