"""The folder of oracle files itself: every file is of a known form, whole, and every form has its test."""

import json
from pathlib import Path

import blip2_stage1
import oracle_files
import pytest
import torch
from oracle_files import FORMS, Oracle, form_of, oracle_names, same_row, strays, summary
from safetensors.torch import save_file


def test_every_file_of_the_folder_is_tested() -> None:
    """A file that no test would open fails here, rather than pass unseen."""
    assert not strays()


def test_every_form_has_its_test() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert [form for form in FORMS if f'oracles("{form}")' not in code and f'names("{form}")' not in code] == []


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("open_flamingo_perceiver_video_3", "open_flamingo_perceiver"),
        ("deepstack_forward_anyres_seed7", "deepstack_forward_anyres"),
        ("llava_projector_mlp3x_gelu", "llava_projector_mlp2x_gelu"),
        ("llava_projector_mlp12x_gelu_wide", "llava_projector_mlp2x_gelu"),
        ("mobilevlm_ldpv2_b", "mobilevlm_ldpv2"),
        ("mobilevlm_ldpv3", None),
        ("a_new_connector", None),
    ],
)
def test_a_suffix_does_not_hide_a_form(name: str, form: str | None) -> None:
    assert form_of(name) == form


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one file of two outputs, in place of the repository's."""
    (tmp_path / "deco_avgpool_b.json").write_text('{"config": {}}', encoding="utf-8")
    save_file({"outputs/y": torch.ones(2), "outputs/z": torch.ones(2)}, tmp_path / "deco_avgpool_b.safetensors")
    monkeypatch.setattr(oracle_files, "FOLDER", tmp_path)
    monkeypatch.setattr(oracle_files, "TALLY", {})
    return tmp_path


def test_strays_are_named(folder: Path) -> None:
    assert strays() == []
    (folder / "README.md").write_text("", encoding="utf-8")
    (folder / "a_new_connector.json").write_text("{}", encoding="utf-8")
    save_file({"outputs/y": torch.ones(1)}, folder / "mobilevlm_ldp_b.safetensors")
    assert strays() == [
        "a_new_connector.json: no test knows its form",
        "mobilevlm_ldp_b.safetensors: its .json is missing",
    ]


@pytest.mark.usefixtures("folder")
def test_a_form_without_a_file_has_none() -> None:
    assert oracle_names("deco_avgpool") == ["deco_avgpool_b"]
    assert oracle_names("tokenpacker") == []


def test_the_summary_says_what_was_not_compared(folder: Path) -> None:
    (folder / "mobilevlm_ldp_b.json").write_text("{}", encoding="utf-8")
    with Oracle("deco_avgpool_b") as oracle:
        oracle.check("outputs/y", torch.ones(2))
        oracle.exempt("outputs/z", "nobody knows it")
    assert summary() == [
        "oracles: 1 of 2 files, 1 tensors or cases compared, 1 exempt",
        "  not compared in this run: mobilevlm_ldp_b",
        "  exempt: deco_avgpool_b, outputs/z: nobody knows it",
    ]


def test_no_file_waits_for_a_mark() -> None:
    """One command compares the whole folder, the files of several processes too."""
    code = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert "mark." + "long" not in code


def test_what_is_behind_the_point_is_not_cut_off(folder: Path) -> None:
    save_file({"outputs/y": torch.tensor([1, 2])}, folder / "deco_avgpool_b.safetensors")
    with pytest.raises(AssertionError, match="outputs/y"), Oracle("deco_avgpool_b") as oracle:
        oracle.check("outputs/y", torch.tensor([1.4, 2.0]))
    with Oracle("deco_avgpool_b") as oracle:
        oracle.check("outputs/y", torch.tensor([1.0, 2.0]))


def test_weights_of_another_file_are_found_by_seed_and_ending(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder itself, and where it lacks that file in the repository's copy, of the same seed alone."""
    own = folder / "own"
    own.mkdir()
    monkeypatch.setattr(blip2_stage1, "OWN", own)
    sizes = {"hidden": 1, "layers": 1, "queries": 1, "vocab": 1}

    def put(name: str, seed: int, value: float | None, where: Path = folder) -> None:
        (where / f"{name}.json").write_text(json.dumps({"seed": seed, "config": sizes}), encoding="utf-8")
        tensors = {"outputs/y": torch.ones(1)} if value is None else {"weights/a": torch.tensor(value)}
        save_file(tensors, where / f"{name}.safetensors")

    put("blip2_stage1_image_id_b", 7, None)
    with pytest.raises(AssertionError, match="names no weights"):
        blip2_stage1.weights_of(Oracle("blip2_stage1_image_id_b"))
    put("blip2_stage1", 6, 1.0, own)
    with pytest.raises(AssertionError, match="names no weights"):
        blip2_stage1.weights_of(Oracle("blip2_stage1_image_id_b"))
    put("blip2_stage1", 7, 2.0, own)
    assert float(blip2_stage1.weights_of(Oracle("blip2_stage1_image_id_b"))["a"]) == 2.0
    put("blip2_stage1_c", 7, 3.0)
    assert float(blip2_stage1.weights_of(Oracle("blip2_stage1_image_id_b"))["a"]) == 3.0
    put("blip2_stage1_b", 8, 4.0)
    assert float(blip2_stage1.weights_of(Oracle("blip2_stage1_image_id_b"))["a"]) == 4.0


@pytest.mark.usefixtures("folder")
def test_a_wrong_value_and_a_tensor_that_nobody_compared_fail() -> None:
    with pytest.raises(AssertionError, match=r"deco_avgpool_b, outputs/y"), Oracle("deco_avgpool_b") as oracle:
        oracle.check("outputs/y", torch.tensor([1.0, 1.1]))
    with pytest.raises(AssertionError, match=r"not compared: outputs/z"), Oracle("deco_avgpool_b") as oracle:
        oracle.check("outputs/y", torch.ones(2))


def test_a_column_of_a_table_that_nobody_compared_fails() -> None:
    same_row({"rows": 2, "columns": 3}, {"width": 9, "rows": 2}, given={"width"})
    with pytest.raises(AssertionError, match="not compared: tokens"):
        same_row({"rows": 2}, {"width": 9, "rows": 2, "tokens": 7}, given={"width"})
    with pytest.raises(AssertionError):
        same_row({"rows": 3}, {"width": 9, "rows": 2}, given={"width"})
