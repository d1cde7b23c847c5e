"""Grounding: how well an answer's box covers the thing that was named.

Source: RefCOCO's precision at IoU 0.5, as Qwen-VL (arXiv:2308.12966) reports it. Checked against: QwenLM/Qwen-VL
`eval_mm/evaluate_grounding.py`: the first box of an answer counts, and an answer without one covers nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from isthmus.data.boxes import Box, parse_boxes

ENOUGH = 0.5


@dataclass(frozen=True, kw_only=True)
class GroundingScores:
    """Shares in 0..1: boxes that cover enough (`accuracy`), the mean cover (`mean_iou`), answers that hold a box."""

    accuracy: float
    mean_iou: float
    with_box: float


def iou(left: Box, right: Box) -> float:
    """Intersection over union of two boxes; 0 where both are empty."""
    width = min(left[2], right[2]) - max(left[0], right[0])
    height = min(left[3], right[3]) - max(left[1], right[1])
    common = max(0.0, width) * max(0.0, height)
    union = _area(left) + _area(right) - common
    return common / union if union else 0.0


def answer_iou(prediction: str, answers: Sequence[str]) -> float:
    """The IoU of a prediction's first box with the best of the answers' boxes; 0 without a box.

    Raises:
        ValueError: an answer that holds no box.
    """
    wanted = [box.box for answer in answers for box in parse_boxes(answer)[:1]]
    if len(wanted) < len(answers) or not wanted:
        raise ValueError(f"A grounding answer is a box as in <box>(x1,y1),(x2,y2)</box>, got {list(answers)}.")
    said = parse_boxes(prediction)
    return max((iou(said[0].box, box) for box in wanted), default=0.0) if said else 0.0


def box_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 when the prediction's first box covers an answer with an IoU of 0.5 or more, else 0.0."""
    return float(answer_iou(prediction, answers) >= ENOUGH)


def grounding(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> GroundingScores:
    """Accuracy at 0.5, mean IoU, and how many answers hold a box at all.

    Raises:
        ValueError: no predictions, or not answers for each.
    """
    if not predictions or len(predictions) != len(answers):
        raise ValueError(f"Grounding wants answers for each prediction, got {len(predictions)} and {len(answers)}.")
    covers = [answer_iou(said, right) for said, right in zip(predictions, answers, strict=True)]
    return GroundingScores(
        accuracy=fmean(cover >= ENOUGH for cover in covers),
        mean_iou=fmean(covers),
        with_box=fmean(bool(parse_boxes(said)) for said in predictions),
    )


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
