"""What the model will read, sample by sample, with supervised tokens marked: look before you train."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text as Line
from torch import Tensor

from isthmus.data.collate import Batch
from isthmus.data.tokens import IGNORED
from isthmus.features import Captions, Text

SUPERVISED_STYLE = "bold green"
VISUAL_STYLE = "magenta"


def check(batch: Batch, tokenizer: Any) -> list[Line]:
    """One styled text for each sample of a training batch.

    Supervised tokens stand in `[[ ]]` and in green, runs of visual tokens as `<image x 36>`. Collating the batch has
    already refused a sample without supervised tokens or with a wrong number of images.
    """
    return [_show(batch, row, tokenizer) for row in range(len(batch.ids))]


def check_captions(
    captions: Captions, sample_ids: Sequence[str], tokenizer: Any, *, contrast: bool, match: bool, write: bool
) -> list[Line]:
    """One styled text for each caption, with what each objective that is asked for supervises of it.

    Comparing and judging supervise the pair, so its words carry no marks; writing supervises tokens.
    """

    def words(text: Text, row: int) -> str:
        told: str = tokenizer.decode(text.ids[row][text.mask[row]].tolist(), clean_up_tokenization_spaces=False)
        return told

    lines = []
    for row, name in enumerate(sample_ids):
        line = Line()
        line.append(f"{name}: an image and a caption of {int(captions.match.mask[row].sum())} tokens", style="bold")
        if contrast:
            line.append(f"\n  compared: <image> with {words(captions.contrast, row)} -> ")
            _append(line, "its own, among all captions of the batch", True)
        if match:
            line.append(f"\n  judged: <image> {words(captions.match, row)} -> ")
            _append(line, "matches", True)
            given = captions.negatives is not None and not bool(_none(captions)[row])
            other = words(captions.negatives, row) if given and captions.negatives is not None else "another caption"
            line.append(f"\n  judged: <image> {other} -> ")
            _append(line, "does not match", True)
        if write:
            line.append("\n  written: <image> ")
            _append_written(line, captions, row, tokenizer)
        lines.append(line)
    return lines


def _none(captions: Captions) -> Tensor:
    return captions.empty if captions.negatives_empty is None else captions.negatives_empty


def _append_written(line: Line, captions: Captions, row: int, tokenizer: Any) -> None:
    kept = captions.write.mask[row].nonzero().squeeze(1).tolist()
    ids, targets = captions.write.ids[row].tolist(), captions.targets[row].tolist()
    kinds = ["supervised" if place and one != IGNORED else "read" for place, one in enumerate(targets)]
    for kind, run in _runs(kept, kinds):
        told = tokenizer.decode([ids[place] for place in run], clean_up_tokenization_spaces=False)
        _append(line, told, kind == "supervised")


def _show(batch: Batch, row: int, tokenizer: Any) -> Line:
    kept = batch.mask[row].nonzero().squeeze(1).tolist()
    ids, labels = batch.ids[row].tolist(), batch.labels[row].tolist()
    kinds = [
        "visual" if visual else "supervised" if label != IGNORED else "read"
        for visual, label in zip(batch.visual[row].tolist(), labels, strict=True)
    ]
    images = _image_lengths(batch, row, kept)
    line = Line()
    supervised = sum(kinds[place] == "supervised" for place in kept)
    target = (
        [] if batch.decoder_labels is None else [one for one in batch.decoder_labels[row].tolist() if one != IGNORED]
    )
    line.append(
        f"{batch.sample_ids[row]}: {len(kept)} tokens, {sum(images)} visual, {supervised + len(target)} supervised\n",
        style="bold",
    )
    for kind, run in _runs(kept, kinds):
        if kind == "visual":
            line.append(f"<image x {len(run)}>", style=VISUAL_STYLE)
        else:
            text = tokenizer.decode([ids[place] for place in run], clean_up_tokenization_spaces=False)
            _append(line, text, kind == "supervised")
    if target:
        line.append("\n-> ")
        _append(line, tokenizer.decode(target, clean_up_tokenization_spaces=False), True)
    return line


def _append(line: Line, text: str, supervised: bool) -> None:
    line.append(f"[[{text}]]" if supervised else text, style=SUPERVISED_STYLE if supervised else None)


def _image_lengths(batch: Batch, row: int, kept: Sequence[int]) -> list[int]:
    visual = batch.visual[row].tolist()
    return [len(run) for kind, run in _runs(kept, ["visual" if one else "text" for one in visual]) if kind == "visual"]


def _runs(places: Sequence[int], kinds: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Neighbouring places of one kind together."""
    runs: list[tuple[str, list[int]]] = []
    for place in places:
        if runs and runs[-1][0] == kinds[place]:
            runs[-1][1].append(place)
        else:
            runs.append((kinds[place], [place]))
    return runs
