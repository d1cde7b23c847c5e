"""Published weights of a model with an audio branch: Video-LLaMA's file fills both connectors."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from isthmus.branches import Branch
from isthmus.cli.main import MISTAKE, main
from isthmus.connectors import AudioQFormerConfig, MlpConfig, QFormerConfig, VideoQFormerConfig
from isthmus.connectors.arrange import Separated
from isthmus.connectors.audio_qformer import VIDEO_LLAMA_AUDIO_KEYS
from isthmus.connectors.video_qformer import VIDEO_LLAMA_KEYS
from isthmus.encoders import AudioEncoder
from isthmus.exchange import import_official
from isthmus.model import Model
from isthmus.recipes import RECIPES

EYE = VideoQFormerConfig(
    image=QFormerConfig(num_queries=4, width=24, layers=2, heads=3, ffn_width=32), num_queries=3, layers=1, max_frames=4
)
EAR = Branch(
    encoder=AudioEncoder(name="bundled/ear", window_s=1.0, max_windows=5, pool="mean"),
    connector=AudioQFormerConfig(num_queries=3, width=24, heads=3, ffn_width=32, max_windows=5),
)
BOTH = Model(connector=EYE, audio=EAR)
POSITION_IDS = {f"{name}Qformer.bert.embeddings.position_ids": torch.arange(8)[None] for name in ("video_", "audio_")}
"""What BERT's code saves beside the weights."""


def weights() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The two connectors, freshly made from one seed, under the names of their runs and as the file has them."""
    torch.manual_seed(5)
    eye = EYE.build(BOTH.source(), BOTH.target()).state_dict()
    ear = EAR.connector.build(EAR.encoder.shape(), BOTH.target()).state_dict()
    ours = {f"connector.{key}": value for key, value in eye.items()}
    ours |= {f"audio.connector.{key}": value for key, value in ear.items()}
    return ours, VIDEO_LLAMA_KEYS.to_official(eye) | VIDEO_LLAMA_AUDIO_KEYS.to_official(ear)


def test_one_file_fills_the_connectors_of_both_branches(tmp_path: Path) -> None:
    ours, state = weights()
    beside = POSITION_IDS | {"audio_encoder.trunk.weight": torch.zeros(2), "llama_model.norm.weight": torch.zeros(2)}
    torch.save({"model": state | beside}, tmp_path / "both.pth")
    done = import_official(tmp_path / "both.pth", tmp_path / "run", BOTH)
    heard = sum(key.startswith("audio_") for key in state)
    assert done.taken == {"connector": len(state) - heard, "arrangement": 0, "audio branch": heard}
    assert {what.split(" of ", 1)[1] for what in done.left} == {"the audio encoder", "the language model"}
    written = done.run.load_model().state_dict()
    assert all(torch.equal(written[key], value) for key, value in ours.items())


def test_files_of_the_two_branches_in_one_folder_are_one_checkpoint(tmp_path: Path) -> None:
    _, state = weights()
    (tmp_path / "files").mkdir()
    for part, own in (("vl", False), ("al", True)):
        half = {key: value for key, value in state.items() if key.startswith("audio_") == own}
        torch.save({"model": half}, tmp_path / "files" / f"{part}.pth")
    assert import_official(tmp_path / "files", tmp_path / "run", BOTH).taken["audio branch"] > 0
    with pytest.raises(ValueError, match=r"no weights of AudioQFormerConfig in the audio branch: .*without the audio"):
        import_official(tmp_path / "files" / "vl.pth", tmp_path / "no", BOTH)
    with pytest.raises(ValueError, match="no weights of VideoQFormerConfig"):
        import_official(tmp_path / "files" / "al.pth", tmp_path / "no", BOTH)
    assert not (tmp_path / "no").exists()


def test_a_branch_is_filled_strictly(tmp_path: Path) -> None:
    _, state = weights()
    for change, said in (
        (
            {"audio_llama_proj.bias": None},
            r"the audio branch\) do not fit AudioQFormer. 1 missing: audio_llama_proj\.bias",
        ),
        ({"audio_position_embedding.weight": torch.zeros(8, 1024)}, r"1 of another shape: audio_position_embedding"),
        ({"audio_Qformer.bert.stranger": torch.zeros(1)}, r"1 unknown: audio_Qformer\.bert\.stranger"),
        ({"audio_stranger": torch.zeros(1)}, r"Video-LLaMA does not have: \['audio_stranger'\]"),
        ({"video_stranger": torch.zeros(1)}, r"Video-LLaMA does not have: \['video_stranger'\]"),
    ):
        changed = {key: value for key, value in (state | change).items() if value is not None}
        torch.save(changed, tmp_path / "wrong.pth")
        with pytest.raises(ValueError, match=said):
            import_official(tmp_path / "wrong.pth", tmp_path / "run", BOTH)
    torch.save(state, tmp_path / "both.pth")
    with pytest.raises(ValueError, match="has no comma, newline for SeparatedLayout"):
        import_official(tmp_path / "both.pth", tmp_path / "run", replace(BOTH, audio=replace(EAR, arrange=Separated())))
    assert not (tmp_path / "run").exists()


def test_a_model_of_one_branch_leaves_the_other_out_and_says_so(tmp_path: Path) -> None:
    _, state = weights()
    torch.save(state, tmp_path / "both.pth")
    heard = sum(key.startswith("audio_") for key in state)
    left = import_official(tmp_path / "both.pth", tmp_path / "run", replace(BOTH, audio=None)).left
    assert left == {f"{heard} tensors of the audio branch": "the model has none"}
    alone = replace(BOTH, encoder=EAR.encoder, connector=EAR.connector, audio=None)
    done = import_official(tmp_path / "both.pth", tmp_path / "alone", alone)
    assert done.left == {f"{len(state) - heard} tensors of the vision branch": "the model has none"}
    assert done.taken["connector"] == heard


def test_a_recipe_with_a_branch_that_nobody_published_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "video-llama/tiny-audio-sounds"
    model = RECIPES[name]().model
    assert isinstance(model.connector, MlpConfig)
    own = model.connector.build(model.source(), model.target()).state_dict()
    torch.save(
        {key.replace("project.", "model.mm_projector."): value for key, value in own.items()}, tmp_path / "m.pth"
    )
    assert main(["import", str(tmp_path / "m.pth"), "--to", str(tmp_path / "run"), "--recipe", name]) == MISTAKE
    said = capsys.readouterr().err
    assert "No published weights of MlpConfig in the audio branch are known here" in said
    assert "Name a recipe without the audio branch" in said
    assert not (tmp_path / "run").exists()
