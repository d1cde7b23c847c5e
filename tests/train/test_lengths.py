"""Samples that the model refuses are found before the first step, and no others."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_loop import StoppedError, content, go, stop_before
from tiny_models import byte_tokenizer
from tiny_stage import Swatch, Swatches, tiny_model, tiny_stage

from isthmus.branches import plan_inputs
from isthmus.connectors import MatryoshkaConfig
from isthmus.connectors.arrange import Anyres
from isthmus.data.frames import UniformFrames
from isthmus.data.mixture import Mixture
from isthmus.data.prompts import Caption, ChatTemplate, Plain, QuestionAnswer, Vicuna
from isthmus.data.sample import Sample, Turn
from isthmus.data.sources import Source
from isthmus.data.video import FileVideo
from isthmus.encoders import CachedEncoder
from isthmus.encoders.tiles import AnyresTiles, DynamicTiles
from isthmus.model import Model
from isthmus.train.lengths import Fits
from isthmus.train.steps import Steps

MEDIA = Path(__file__).parent.parent / "data" / "media"
ONE_LONG = Source(of=Swatches(long=(17,)))


def never(*_: object, **__: object) -> None:
    pytest.fail("something was encoded, opened or trained")


def test_a_sample_that_is_too_long_is_refused_before_the_first_step(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Steps, "take", never)
    monkeypatch.setattr(CachedEncoder, "features", never)
    stage = tiny_stage(root, data=(ONE_LONG,), steps=6)
    told = r"(?s)^1 of the samples .*'swatch/17' needs \d+ tokens \(4 of them visual\).*max_tokens=96.*unfit='skip'"
    with pytest.raises(ValueError, match=told):
        go(stage, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    held_out = (Source(of=Swatches(num=3, long=(2,))),)
    with pytest.raises(ValueError, match="'swatch/2' needs"):
        go(replace(stage, data=(Source(of=Swatches()),), validation=held_out), tmp_path / "run")
    many = (Source(of=Swatches(long=tuple(range(9)))),)
    with pytest.raises(ValueError, match=r"(?s)^9 of the samples.*\n  \.\.\.\n"):
        go(replace(stage, data=many), tmp_path / "run")


def test_what_a_run_never_reads_is_no_matter(root: Path, tmp_path: Path) -> None:
    stage = tiny_stage(root, steps=1, batch_size=1)
    _, first = Mixture(stage.data, seed=stage.seed).place(0)
    others = tuple(number for number in range(24) if number != first)
    assert go(replace(stage, data=(Source(of=Swatches(long=others)),)), tmp_path / "run").finished
    with pytest.raises(ValueError, match=f"'swatch/{first}' needs"):
        go(replace(stage, data=(Source(of=Swatches(long=(first,))),)), tmp_path / "refused")


def test_a_source_may_leave_such_samples_out(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = tiny_stage(root, data=(replace(ONE_LONG, unfit="skip"),), steps=6)
    whole = go(stage, tmp_path / "whole")
    assert whole.result["skipped"] == ["data 0:Remembered/17"]
    with monkeypatch.context() as patch:
        patch.setattr(Steps, "take", stop_before(5))
        with pytest.raises(StoppedError):
            go(stage, tmp_path / "broken")
    resumed = go(stage, tmp_path / "broken", resume=True)
    assert resumed.result == whole.result
    assert content(resumed.folder) == content(whole.folder)


def test_an_encoder_decoder_is_asked_every_exchange(root: Path) -> None:
    model = tiny_model(root, "t5")
    fits = Fits(model, byte_tokenizer(bos=False))
    answer = Turn(role="assistant", text="yes " * 50)
    fits(Sample(id="short", turns=(Turn(role="user", text="x" * 60), answer)))
    with pytest.raises(ValueError, match="'long' needs 121 tokens"):
        fits(Sample(id="long", turns=(Turn(role="user", text="x" * 103), answer)))


TILES = {"encoder": {"tiles": DynamicTiles(max_tiles=3)}}
MADE: dict[str, dict[str, Any]] = {
    "question-answer": {},
    "plain": {"prompt": Plain()},
    "caption": {"prompt": Caption(prompt="a photo of")},
    "vicuna": {"prompt": Vicuna(system="Help.")},
    "template": {"prompt": ChatTemplate()},
    "before-bos": {"placement": "before-bos", "prompt": QuestionAnswer(after_images="")},
    "tiles": TILES,
    "anyres": {"encoder": {"tiles": AnyresTiles(grids=((1, 2), (2, 1)))}, "arrange": Anyres()},
    "matryoshka": {"connector": MatryoshkaConfig(tokens=1, side=4, varies=True)},
}


def made(root: Path, name: str) -> Model:
    changes = dict(MADE[name])
    model = tiny_model(root)
    encoder = replace(model.encoder, **changes.pop("encoder", {}))
    return replace(model, encoder=encoder, **changes)


def drawn(draw: random.Random, number: int) -> Sample:
    """One to three exchanges, images in any turn, now and then letters of two bytes or an empty answer."""
    turns, images = [], []
    for exchange in range(draw.randint(1, 3)):
        marks = [Swatch(colour="red", number=draw.randint(0, 99)) for _ in range(draw.choice((0, 1, 1, 3)))]
        images += marks
        asked = draw.choice(("a", "a", "\u00e9")) * draw.choice((3, 10, 30, 40, 50, 60, 70, 80))
        said = draw.choice(("yes", "no " * 20, "no " * 40, ""))
        turns.append(Turn(role="user", text="<image>" * len(marks) + asked))
        turns.append(Turn(role="assistant", text=said))
        if exchange == 0 and draw.random() < 0.2:
            images.append(Swatch(colour="blue", number=0))
            turns[-1] = Turn(role="assistant", text=f"{said}<image> there")
    return Sample(id=f"drawn/{number}", turns=tuple(turns), images=tuple(images))


def refused(model: Model, sample: Sample, tokenizer: Any) -> bool:
    """Whether a step would end with this sample."""
    plans = plan_inputs([sample], {"image": model.encoder}, tile_several=True)
    try:
        model.batch([sample], tokenizer=tokenizer, plans=plans)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("name", MADE)
def test_it_refuses_exactly_what_a_step_would(name: str, root: Path) -> None:
    template = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    tokenizer = byte_tokenizer(template=template)
    model = made(root, name)
    largest = replace(model, connector=model.connector.at_most())
    fits, draw = Fits(model, tokenizer), random.Random(5)
    outcomes = {True: 0, False: 0}
    for number in range(150):
        sample = drawn(draw, number)
        expected = refused(largest, sample, tokenizer)
        outcomes[expected] += 1
        if expected:
            with pytest.raises(ValueError, match=rf"drawn/{number}\b"):
                fits(sample)
        else:
            fits(sample)
    assert min(outcomes.values()) > 5


@pytest.mark.parametrize("name", ["question-answer", "tiles", "anyres"])
def test_short_samples_are_told_without_opening_a_picture(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Swatch, "load", never)
    fits = Fits(made(root, name), byte_tokenizer())
    for text in ("a" * 40, "\u00e9" * 20):
        turns = (Turn(role="user", text=f"<image>{text}"), Turn(role="assistant", text="yes " * 100))
        fits(Sample(id="short", turns=turns, images=(Swatch(colour="red", number=1),)))


def test_a_video_is_counted_at_the_frames_that_were_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = Fits(tiny_model(root), byte_tokenizer())
    clips = [FileVideo(root=str(MEDIA), path="classroom.mp4", frames=UniformFrames(num=num)) for num in (4, 30)]
    turns = (Turn(role="user", text="<video>what?"), Turn(role="assistant", text="it"))
    with pytest.raises(ValueError, match="'1' needs"):
        fits(Sample(id="1", turns=turns, videos=(clips[1],)))
    monkeypatch.setattr(FileVideo, "load", never)
    fits(Sample(id="0", turns=turns, videos=(clips[0],)))


def test_what_cannot_be_read_is_left_to_the_mixture(root: Path) -> None:
    broken = Swatch(colour="red", number=1, broken=True)
    turns = (Turn(role="user", text="<image>" + "a" * 200), Turn(role="assistant", text="yes"))
    fits = Fits(tiny_model(root), byte_tokenizer())
    fits(Sample(id="broken", turns=turns, images=(broken,)))
    with pytest.raises(ValueError, match="'whole' needs"):
        fits(Sample(id="whole", turns=turns, images=(replace(broken, broken=False),)))
