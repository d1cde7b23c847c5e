"""A study whose questions are about clips and sounds: seen by their branches, priced by them, and shown."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_ears import save_ear

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from tiny_stage import tiny_model, tiny_stage

from isthmus.branches import Branch
from isthmus.compare.costs import arm_cost, inputs_of_item
from isthmus.compare.examples import _seen
from isthmus.compare.results import read_jobs
from isthmus.compare.run import RESULTS_FILE, run_study
from isthmus.compare.study import Arm, Study
from isthmus.compare.work import _of_branches
from isthmus.connectors import LinearConfig, PixelShuffleConfig
from isthmus.data.sources import MovingThings, Source, SpokenDigits
from isthmus.data.sources.moving_things import questions as moving
from isthmus.data.sources.spoken_digits import questions as spoken
from isthmus.encoders import AudioEncoder, VideoEncoder, VisionEncoder
from isthmus.evaluate.record import read_answers
from isthmus.evaluate.runner import evaluate
from isthmus.evaluate.sight import OwnEncoder
from isthmus.measure import Inputs, time_to_first_token
from isthmus.model import VisionLanguageModel
from isthmus.train.stage import Stage


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    root = tmp_path_factory.mktemp("branches")
    save_ear("ast", root / "ear")
    model = tiny_model(root)
    assert isinstance(model.encoder, VisionEncoder)
    clips = Branch(
        encoder=VideoEncoder(tower=model.encoder, max_frames=4), connector=PixelShuffleConfig(factor=2, frames=4)
    )
    ear = AudioEncoder(name=str(root / "ear"), window_s=0.4, max_windows=2, window_views=True, pool="mean")
    data = (Source(of=MovingThings(num=6)), Source(of=SpokenDigits(split="val")))
    return tiny_stage(
        root,
        model=replace(model, video=clips, audio=Branch(encoder=ear, connector=LinearConfig())),
        train=("video.connector", "audio.connector"),
        data=data,
        validation=(Source(of=MovingThings(split="val", num=2)),),
        steps=3,
        save_every=1,
        validate_every=3,
    )


def test_a_study_is_asked_about_clips_and_sounds(base: Stage, tmp_path: Path) -> None:
    study = Study(
        name="heard",
        base=base,
        arms=(
            Arm(name="one", replace=(("model.video.connector", PixelShuffleConfig(factor=2, frames=4)),)),
            Arm(name="four", replace=(("model.video.connector", PixelShuffleConfig(factor=2, frames=1)),)),
        ),
        seeds=(1,),
        tune_rates=(1e-3,),
        tune_seeds=(7,),
        tasks=("clips/moves", "sounds/digit"),
        headline=("clips/moves", "sounds/digit"),
        items_per_task=3,
        control_items=3,
        watch_items=1,
        text_only="one",
    )
    run_study(study, tmp_path, workers=1)
    final = [job for job in read_jobs(tmp_path / RESULTS_FILE) if job.kind == "final"]
    assert [sorted(job.scores) for job in final[:1]] == [["mean-image", "none", "shuffled"]]
    answered = sorted(tmp_path.glob("jobs/final/*/*/answers/none.jsonl"))
    assert [len(read_answers(path)) for path in answered] == [6, 6]
    page = (tmp_path / "report.html").read_text()
    assert page.count("Which digit is said?") >= 1
    assert page.count("move?") >= 1


def test_what_an_arm_costs_is_that_of_its_inputs(base: Stage) -> None:
    (clip,), (sound,) = moving(1, shown="moving"), spoken(1)
    assert inputs_of_item(clip) == Inputs(images=0, frames=(4,))
    assert inputs_of_item(sound) == Inputs(images=0, sounds=1)
    clips, heard = (arm_cost(base, inputs_of_item(item)) for item in (clip, sound))
    video, audio = base.model.video, base.model.audio
    assert video is not None
    assert audio is not None
    target = base.model.target()
    assert (clips.visual_tokens, heard.visual_tokens) == (1, 2)
    assert clips.connector_parameters == video.connector.parameters(video.encoder.shape(), target)
    assert clips.encoder_flops == video.encoder.flops() == 4 * base.model.encoder.flops()
    assert heard.connector_flops == 2 * audio.connector.flops(audio.encoder.shape(), target)


def test_clips_and_sounds_are_listed_once_for_their_encoders(base: Stage) -> None:
    assert base.model.video is not None
    assert base.model.audio is not None
    found = _of_branches([base, base])
    assert [type(config).__name__ for config, _ in found] == ["VideoEncoder", "AudioEncoder"]
    for _, refs in found:
        assert len({ref.key for ref in refs}) == len(refs) > 1
    assert _of_branches([replace(base, train=("video", "audio"))]) == []


def test_inputs_are_shown_as_pictures() -> None:
    (clip,), (sound,) = moving(1, shown="moving"), spoken(1)
    frame = clip.videos[0].load().frames[0]
    assert _seen(clip).size == (4 * frame.width, frame.height)
    drawn = _seen(sound).convert("L")
    assert drawn.getextrema() == (0, 255)
    with pytest.raises(ValueError, match="has no picture to show"):
        _seen(replace(sound, turns=(), sounds=()))


def test_a_clip_is_never_seen_by_the_encoder_of_pictures(base: Stage) -> None:
    whole = VisionLanguageModel(base.model).eval()
    bare = VisionLanguageModel(base.model, with_encoder=False).eval()
    items = moving(1, shown="moving")
    with pytest.raises(ValueError, match="built without its encoder"):
        evaluate(bare, items, encoder=OwnEncoder(whole))
    assert len(evaluate(whole, items, encoder=OwnEncoder(whole))) == 1
    assert time_to_first_token(whole, items[0], repeats=1).encoder_ms > 0.0
