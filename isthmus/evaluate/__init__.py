"""Ask a trained model questions it has not seen, score the answers, and say what could be had without looking."""

from isthmus.evaluate.record import Answer, accuracy, read_answers, write_answers
from isthmus.evaluate.runner import evaluate
from isthmus.evaluate.task import Task

__all__ = ["Answer", "Task", "accuracy", "evaluate", "read_answers", "write_answers"]
