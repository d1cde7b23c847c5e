"""One form for text, images, videos and sounds: any order, any number, in front or in place, many turns, examples."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import level, write_sound, write_video
from PIL import Image
from tiny_models import byte_tokenizer

from isthmus.data.frames import UniformFrames
from isthmus.data.interleave import few_shot, frames_as_images, in_front, scene_views, videos_as_mosaics
from isthmus.data.prompts import ChatTemplate, Plain, PromptStyle, QuestionAnswer, Vicuna, split_turns
from isthmus.data.sample import Sample, Turn
from isthmus.data.sources.interleaved import Interleaved
from isthmus.data.sources.llava_file import LlavaFile
from isthmus.data.sources.mosaics import Mosaics
from isthmus.data.tokens import Writing, encode
from isthmus.data.video import FileVideo

CHAT = "[user] @Is it in @ or @?\n[assistant] The first.$\n[user] And @?\n[assistant] No.$\n[assistant]"
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"


@dataclass(frozen=True)
class Thing:
    """Any input, known by its name."""

    key: str

    def load(self) -> Any:
        return Image.new("RGB", (4, 4))


def turns(*texts: str) -> tuple[Turn, ...]:
    return tuple(Turn(role="assistant" if place % 2 else "user", text=text) for place, text in enumerate(texts))


def things(*names: str) -> tuple[Thing, ...]:
    return tuple(map(Thing, names))


def order(sample: Sample) -> list[str]:
    return [str(ref.key) for _, ref in sample.inputs]


MIXED = Sample(
    id="mixed",
    turns=turns("<audio>Is it in <image> or <video>?", "The first.", "And <image>?", "No."),
    images=things("i1", "i2"),
    videos=things("v1"),
    sounds=things("a1"),
)


def test_inputs_stand_in_the_order_of_their_marks() -> None:
    assert order(MIXED) == ["a1", "i1", "v1", "i2"]
    assert [kind for kind, _ in MIXED.inputs] == ["audio", "image", "video", "image"]


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ({"images": ()}, r"2 image places but 0 images came with it \(sample 'mixed'\)"),
        ({"videos": things("v1", "v2")}, r"1 video places but 2 videos.*Each <video> needs exactly one video"),
        ({"sounds": ()}, r"1 sound places but 0 sounds.*Each <audio> needs exactly one sound"),
    ],
)
def test_marks_and_inputs_are_equally_many(lacking: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MIXED, **lacking)


@pytest.mark.parametrize(
    ("style", "written"),
    [
        (
            QuestionAnswer(),
            "@\nQuestion: Is it in @ or @? Answer: The first.$Question: And @? Answer: No.$",
        ),
        (Plain(), "@@@The first.\n@No.\n"),
        (Vicuna(system="S"), "S USER: @\nIs it in @ or @? ASSISTANT: The first.$USER: @\nAnd? ASSISTANT: No.$"),
        (
            ChatTemplate(),
            CHAT,
        ),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, PromptStyle) else "",
)
def test_every_style_places_inputs_of_every_kind(style: PromptStyle, written: str) -> None:
    sample = replace(MIXED, turns=(*MIXED.turns[:2], Turn(role="user", text="And <image>?"), MIXED.turns[3]))
    if isinstance(style, Vicuna):
        sample = replace(sample, turns=(*MIXED.turns[:2], Turn(role="user", text="And? <image>"), MIXED.turns[3]))
    segments = style.render(sample, byte_tokenizer(template=TEMPLATE))
    assert "".join(("@" if one.image else one.text) + "$" * one.end for one in segments) == written


def test_each_input_takes_its_own_count() -> None:
    counts = [3, 1, 2, 4]
    tokenizer = byte_tokenizer()
    placed = encode(MIXED, counts, Writing(prompt=QuestionAnswer(), tokenizer=tokenizer, placement="in-place"))
    runs = "".join("x" if one else " " for one in placed.visual).split()
    assert [len(run) for run in runs] == counts
    front = encode(MIXED, counts, Writing(prompt=QuestionAnswer(), tokenizer=tokenizer, placement="before-bos"))
    assert front.visual[:10] == (True,) * 10
    assert not any(front.visual[10:])
    assert sorted(front.ids) == sorted(placed.ids)


def test_turns_are_split_with_their_own_inputs() -> None:
    first, second = split_turns(MIXED)
    assert (order(first), order(second)) == (["a1", "i1", "v1"], ["a1", "i1", "v1", "i2"])
    alone = split_turns(MIXED, history=False)[1]
    assert alone.turns[0].text == "<audio>\n<image>\n<video>\nAnd <image>?"
    assert order(alone) == order(second)


def test_inputs_go_in_front_and_are_named() -> None:
    front = in_front(MIXED)
    assert front.turns[0].text == (
        "Sound 1: <audio>\nImage 1: <image>\nVideo 1: <video>\nImage 2: <image>\nSound 1Is it in Image 1 or Video 1?"
    )
    assert front.turns[2].text == "And Image 2?"
    assert order(front) == order(MIXED)
    plain = in_front(MIXED, refer=False)
    assert plain.turns[0].text == "<audio>\n<image>\n<video>\n<image>\nIs it in  or ?"
    single = Sample(id="one", turns=turns("What is <image>?", "A cat."), images=things("i"))
    assert in_front(single).turns[0].text == "<image>\nWhat is ?"
    document = Sample(id="document", turns=(Turn(role="assistant", text="A <image> b"),), images=things("i"))
    assert in_front(document) is document


def test_examples_stand_before_the_question() -> None:
    shots = [Sample(id=str(n), turns=turns("<image>What?", f"A {n}."), images=things(f"i{n}")) for n in range(2)]
    asked = Sample(
        id="asked",
        turns=(Turn(role="system", text="Be short."), Turn(role="user", text="<video>And <image>?")),
        images=things("x"),
        videos=things("v"),
    )
    made = few_shot(shots, asked)
    assert [turn.text for turn in made.turns] == [
        "Be short.", "<image>What?", "A 0.", "<image>What?", "A 1.", "<video>And <image>?",
    ]  # fmt: skip
    assert (made.id, order(made)) == ("asked", ["i0", "i1", "v", "x"])
    written = QuestionAnswer().render(made, for_generation=True)
    assert "".join("@" if one.image else one.text for one in written).endswith("Question: And @? Answer:")
    with pytest.raises(ValueError, match="'asked' ends without an answer"):
        few_shot([asked], shots[0])
    with pytest.raises(ValueError, match="'s' has a system turn"):
        few_shot([Sample(id="s", turns=(Turn(role="system", text="S"), *turns("a", "b")))], shots[0])


def test_views_of_a_scene_stand_in_order() -> None:
    scene = scene_views("room", things("north", "east", "south"), "Where is the door?", "East.")
    assert scene.turns[0].text == "<image>\n<image>\n<image>\nWhere is the door?"
    assert order(scene) == ["north", "east", "south"]


def test_frames_become_images(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [40, 120, 200])
    video = FileVideo(root=str(tmp_path), path="v.mp4", frames=UniformFrames(num=3))
    sample = Sample(id="v", turns=turns("<image>then <video>?", "Yes."), images=things("i"), videos=(video,))
    made = frames_as_images(sample)
    assert made.turns[0].text == "<image>then <image><image><image>?"
    assert (len(made.images), made.videos) == (4, ())
    assert [round(level(image.load()) / 40) for image in made.images[1:]] == [1, 3, 5]
    with pytest.raises(ValueError, match="only video files"):
        frames_as_images(MIXED)


def test_a_video_becomes_a_mosaic(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [40, 120, 200])
    Image.new("RGB", (4, 4)).save(tmp_path / "i.png")
    source = write_conversations(
        tmp_path, image="i.png", video="v.mp4", conversations=said("<video> What follows <image>?")
    )
    sample = Mosaics(of=replace(source, frames=UniformFrames(num=3)), columns=2).build()[0]
    assert sample.turns[0].text == "<image> What follows <image>?"
    assert sample.videos == ()
    picture, other = (image.load() for image in sample.images)
    assert (picture.size, other.size) == ((64, 32), (4, 4))
    corners = [picture.getpixel(place)[0] for place in ((16, 8), (48, 8), (16, 24), (48, 24))]  # type: ignore[index]
    assert [round(value / 40) for value in corners] == [1, 3, 5, 0]
    with pytest.raises(ValueError, match="only video files"):
        videos_as_mosaics(MIXED, 2)
    with pytest.raises(ValueError, match="columns=0"):
        Mosaics(of=source, columns=0)


def write_conversations(folder: Path, **fields: Any) -> LlavaFile:
    (folder / "c.json").write_text(json.dumps([{"id": "7", **fields}]))
    return LlavaFile(path=str(folder / "c.json"), root=str(folder), frames=UniformFrames(num=2), audio_rate=8_000)


def said(text: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": text}, {"from": "gpt", "value": "Yes."}]


def test_a_file_of_conversations_may_hold_videos_and_sounds(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "i.png")
    write_video(tmp_path / "v.mp4", [40, 120])
    write_sound(tmp_path / "s.wav", np.zeros(800), 8_000)
    source = write_conversations(
        tmp_path, image="i.png", video=["v.mp4"], audio="s.wav", conversations=said("<video> <audio> and <image>?")
    )
    sample = source.build()[0]
    assert [kind for kind, _ in sample.inputs] == ["video", "audio", "image"]
    assert len(sample.videos[0].load().frames) == 2
    assert sample.sounds[0].load().rate == 8_000
    theirs = write_conversations(tmp_path, video="v.mp4", conversations=said("What happens?\n<image>")).build()[0]
    assert theirs.turns[0].text == "<video>\nWhat happens?"
    with pytest.raises(ValueError, match=r"c\.json item 0.*0 <audio> marks and 1 sounds"):
        write_conversations(tmp_path, audio="s.wav", conversations=said("What?")).build()[0]


def test_a_source_mixes_both_placements(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    row = {"id": "x", "image": ["a.png", "b.png"], "conversations": said("Is <image> like <image>?")}
    (tmp_path / "c.json").write_text(json.dumps([row] * 40))
    plain = LlavaFile(path=str(tmp_path / "c.json"), root=str(tmp_path))
    mixed = Interleaved(of=plain, front_share=0.25).build()
    texts = [mixed[index].turns[0].text for index in range(len(mixed))]
    fronts = [text for text in texts if text.startswith("Image 1: <image>\nImage 2: <image>\nIs Image 1 like Image 2?")]
    assert 4 <= len(fronts) <= 16
    assert set(texts) - set(fronts) == {"Is <image> like <image>?"}
    assert texts == [Interleaved(of=plain, front_share=0.25).build()[index].turns[0].text for index in range(40)]
    with pytest.raises(ValueError, match="a share from 0 to 1"):
        Interleaved(of=plain, front_share=1.5)
