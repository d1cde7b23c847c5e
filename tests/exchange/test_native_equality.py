"""Each native class with random weights, imported: connector outputs, logits and writings are those of the class.

The processors of InternVL and PerceptionLM need torchvision, so all classes are compared on pixel tensors and ids.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_natives as tiny
import torch
import transformers
from torch import Tensor

from isthmus.data.collate import Batch
from isthmus.exchange import import_native
from isthmus.exchange.equality import logits
from isthmus.exchange.importing import check_ready, fit_of
from isthmus.features import Text
from isthmus.llms import Generation
from isthmus.model import VisionLanguageModel

CASES: dict[str, tuple[str, Any, int]] = {
    "llava": ("LlavaForConditionalGeneration", tiny.llava(tiny.clip(), tiny.llama()), 16),
    "llava-last-layer-tied": (
        "LlavaForConditionalGeneration",
        tiny.llava(tiny.clip(), tiny.llama(tie_word_embeddings=True), layer=-1),
        16,
    ),
    "llava-siglip": ("LlavaForConditionalGeneration", tiny.llava(tiny.siglip(), tiny.llama(), strategy="full"), 16),
    "llava-next": ("LlavaNextForConditionalGeneration", tiny.llava_next(), 0),
    "internvl": ("InternVLForConditionalGeneration", tiny.internvl(), 4),
    "internvl-norm": ("InternVLForConditionalGeneration", tiny.internvl(mean_pooling=False), 4),
    "internvl-second-last": ("InternVLForConditionalGeneration", tiny.internvl(-2), 4),
    "perception-lm": ("PerceptionLMForConditionalGeneration", tiny.perception(), 16),
    "idefics2": ("Idefics2ForConditionalGeneration", tiny.idefics2(), 5),
    "blip2-opt": ("Blip2ForConditionalGeneration", tiny.blip2(tiny.opt()), 5),
    "blip2-llama": ("Blip2ForConditionalGeneration", tiny.blip2(tiny.llama()), 5),
    "blip2-t5": ("Blip2ForConditionalGeneration", tiny.blip2(tiny.t5()), 5),
    "instructblip-opt": ("InstructBlipForConditionalGeneration", tiny.instructblip(tiny.opt()), 5),
    "instructblip-llama": ("InstructBlipForConditionalGeneration", tiny.instructblip(tiny.llama()), 5),
    "instructblip-t5": ("InstructBlipForConditionalGeneration", tiny.instructblip(tiny.t5()), 5),
}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@dataclass(frozen=True)
class Pair:
    """A native model and ours that was imported from its folder."""

    native: Any
    ours: VisionLanguageModel
    tokens: int
    kind: str

    @property
    def in_front(self) -> bool:
        return "blip" in self.kind

    @property
    def encodes(self) -> bool:
        return "t5" in self.kind


@pytest.fixture(scope="module", params=list(CASES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    name, config, tokens = CASES[request.param]
    root: Path = tmp_path_factory.mktemp(request.param)
    native = tiny.make(name, config, root / "native")
    run = import_native(root / "native", root / "run").run
    return Pair(native, run.load_model(), tokens, request.param)


def inputs(pair: Pair, padding: str = "none", rows: int = 2) -> tuple[Batch, dict[str, Tensor]]:
    """Rows of unequal length with an image each, as ours and as the class reads them."""
    torch.manual_seed(3)
    size = (40, 25) if pair.kind == "llava-next" else (16, 16)
    plan = pair.ours.config.encoder.plan(size)
    views = len(plan.views)
    image = [tiny.IMAGE_ID] * (pair.tokens or pair.ours.config.num_visual_tokens(plan))
    texts = [[7, 50, 51, 52], [9, 60, 61, 62, 63, 64, 65]][:rows]
    ids = [[*image, 1, *text] if pair.in_front else [1, 20, *image, *text] for text in texts]
    longest = max(map(len, ids))
    if padding == "none":
        ids = [(one + one[-1:] * longest)[:longest] for one in ids]
    blank = [[0] * (longest - len(one)) for one in ids]
    mask = [
        [0] * len(gap) + [1] * len(one) if padding == "left" else [1] * len(one) + [0] * len(gap)
        for gap, one in zip(blank, ids, strict=True)
    ]
    filled = torch.tensor([gap + one if padding == "left" else one + gap for gap, one in zip(blank, ids, strict=True)])
    seen = torch.tensor(mask)
    pixels = torch.randn(rows * views, 3, 16, 16)
    given = {"input_ids": filled, "attention_mask": seen, "pixel_values": pixels}
    if pair.kind.startswith(("idefics2", "perception")):
        given["pixel_values"] = pixels[:, None]
    if pair.kind == "llava-next":
        given["pixel_values"] = pixels.unflatten(0, (rows, views))
        given["image_sizes"] = torch.tensor([size[::-1]] * rows)
    text = None
    if "instruct" in pair.kind:
        words = torch.tensor([[5, 30, 31, 32, 0], [5, 40, 41, 42, 43]])[:rows]
        given |= {"qformer_input_ids": words, "qformer_attention_mask": (words != 0).long()}
        text = Text(ids=words, mask=words != 0)
    plans = tuple(replace(plan, views=range(row * views, (row + 1) * views)) for row in range(rows))
    batch = Batch(
        ids=filled.masked_fill(filled == tiny.IMAGE_ID, 0),
        mask=seen.bool(),
        labels=torch.full_like(filled, -100),
        visual=filled == tiny.IMAGE_ID,
        plans=plans,
        owner=tuple(range(rows)),
        sample_ids=tuple(map(str, range(rows))),
        pixels=pixels,
        text=text,
    )
    return batch, given


def native_features(pair: Pair, given: dict[str, Tensor]) -> Tensor:
    """The visual tokens that the class makes."""
    named = ("pixel_values", "image_sizes", "qformer_input_ids", "qformer_attention_mask")
    part = pair.native if pair.in_front else pair.native.model
    with torch.no_grad():
        made = part.get_image_features(**{name: given[name] for name in named if name in given}, return_dict=True)
    tokens = made.pooler_output
    return tokens.flatten(0, 1) if isinstance(tokens, Tensor) else torch.cat(list(tokens))


def native_logits(pair: Pair, given: dict[str, Tensor], decoder_ids: Tensor | None) -> Tensor:
    more = {} if decoder_ids is None else {"decoder_input_ids": decoder_ids}
    if not pair.encodes:
        mask = given["attention_mask"]
        if not pair.in_front or "llama" in pair.kind:
            more["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        return pair.native(**given, **more).logits


def decoder_ids(pair: Pair, rows: int) -> Tensor | None:
    return torch.tensor([[0, 70, 71], [0, 80, 81]])[:rows] if pair.encodes else None


def test_connector_outputs_are_equal(pair: Pair) -> None:
    batch, given = inputs(pair)
    placed = pair.ours._placed(batch)
    assert placed is not None
    torch.testing.assert_close(placed.tokens, native_features(pair, given), **CLOSE)


@pytest.mark.parametrize(("padding", "rows"), [("none", 1), ("none", 2), ("left", 2), ("right", 2)])
def test_logits_are_equal(pair: Pair, padding: str, rows: int) -> None:
    batch, given = inputs(pair, padding, rows)
    start = decoder_ids(pair, rows)
    mine, theirs = logits(pair.ours, batch, start), native_logits(pair, given, start)
    real = batch.mask if start is None else torch.ones_like(start).bool()
    torch.testing.assert_close(mine[real], theirs[real], **CLOSE)


def written(pair: Pair, batch: Batch, options: Generation) -> list[list[int]]:
    placed = pair.ours._placed(batch)
    embedded = pair.ours.embed(batch, placed)
    pair.ours._open_door(batch, placed)
    return pair.ours.llm.generate(embedded, batch.ids, batch.mask, options)


def native_written(pair: Pair, given: dict[str, Tensor], beams: int) -> list[list[int]]:
    ids = pair.native.generate(**given, max_new_tokens=6, num_beams=beams, do_sample=False, length_penalty=1.0)
    # Blip2 and InstructBlip call their language model on embeddings and ids; T5's decoder begins with its start.
    fresh = ids[:, 1:] if pair.encodes else ids[:, given["input_ids"].shape[1] :]
    return [row[: row.index(2)] if 2 in row else row for row in fresh.tolist()]


@pytest.mark.parametrize("rows", [1, 2])
def test_greedy_writings_are_equal(pair: Pair, rows: int) -> None:
    batch, given = inputs(pair, "left", rows)
    mine = written(pair, batch, Generation(max_new_tokens=6))
    assert mine == native_written(pair, given, 1)
    assert any(mine)


@pytest.mark.parametrize("rows", [1, 2])
def test_beam_search_is_equal(pair: Pair, rows: int) -> None:
    if not pair.in_front:
        pytest.skip("beam search is compared for the classes with a soft prompt")
    batch, given = inputs(pair, "left", rows)
    assert written(pair, batch, Generation(max_new_tokens=6, num_beams=3)) == native_written(pair, given, 3)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"do_normalize": False}, "do_normalize=False"),
        ({"do_rescale": False, "do_resize": False}, "do_resize=False, do_rescale=False"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor=0.0078"),
        ({"size": {"height": 24, "width": 24}}, "images of {'height': 24, 'width': 24} before a tower for 16 px"),
        ({"do_center_crop": True, "crop_size": {"height": 16, "width": 8}}, "before a tower for 16 px"),
    ],
)
def test_an_image_processor_that_makes_other_pixels_is_refused(about: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        check_ready({**tiny.PREPROCESSOR, **about}, 16)


@pytest.mark.parametrize(
    ("about", "fit"),
    [
        (tiny.PREPROCESSOR, "squash"),
        ({"do_center_crop": True, "size": {"shortest_edge": 24}, "crop_size": {"height": 16, "width": 16}}, "crop"),
        ({"size": {"shortest_edge": 378, "longest_edge": 980}, "rescale_factor": 0.00392156862745098}, "squash"),
    ],
)
def test_what_processors_say_in_other_words_is_taken(about: dict[str, Any], fit: str) -> None:
    check_ready(about, 16)
    assert fit_of(about) == fit


def test_a_q_former_that_reads_text_in_blip2_is_refused(tmp_path: Path) -> None:
    config = tiny.blip2(tiny.opt())
    config.qformer_config.use_qformer_text_input = True
    tiny.make("Blip2ForConditionalGeneration", config, tmp_path / "native")
    with pytest.raises(ValueError, match="use_qformer_text_input=True"):
        import_native(tmp_path / "native", tmp_path / "run")


def test_transformers_names_are_there() -> None:
    assert all(hasattr(transformers, name) for name, _, _ in CASES.values())
