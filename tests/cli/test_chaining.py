"""A chain from the command line: trained, resumed and evaluated on tiny models; shown, checked, priced; mistakes."""

from pathlib import Path

import pytest
from tiny_reader import SIZES, save_reader

from isthmus.cli.main import MISTAKE, main
from isthmus.runs import Run


def small(tiny: list[str], root: Path) -> list[str]:
    """Arguments that put tiny models and a few scenes into all stages."""
    tower, size, llm = tiny[1], tiny[3], tiny[5]
    reader = {
        "start-from": save_reader(root), "width": SIZES["hidden_size"], "layers": SIZES["num_hidden_layers"],
        "heads": SIZES["num_attention_heads"], "ffn-width": SIZES["intermediate_size"], "positions": 64,
        "num-queries": 4,
    }  # fmt: skip
    made = ["--items-per-task", "4", "--asked", "gallery/world", "swaps/exchanged", "world/count"]
    made += ["--stages.2.model.llm.name", llm, "--stages.2.model.llm.max-tokens", tiny[7]]
    made += ["--stages.2.data.0.of.questions", "1", "--stages.2.data.0.of.no-caption"]
    made += ["--stages.2.validation.0.of.questions", "1", "--stages.2.validation.0.of.no-caption"]
    for number in (0, 1):  # scenes alone
        made += [f"--stages.{number}.data.1.weight", "1e-9"]
    for number in (0, 1, 2):
        stage = f"--stages.{number}"
        made += [f"{stage}.model.encoder.name", tower, f"{stage}.model.encoder.image-size", size]
        made += [part for name, value in reader.items() for part in (f"{stage}.model.connector.{name}", str(value))]
        made += [f"{stage}.steps", "1", f"{stage}.batch-size", "2", f"{stage}.data.0.of.num-scenes", "8"]
        made += [f"{stage}.validation.0.of.num-scenes", "2"]
    return made


def test_a_chain_trains_resumes_and_states_its_figures(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "chain"
    fields = small(tiny, tmp_path)
    assert main(["train", "blip2/tiny", "--out", str(folder), *fields]) == 0
    said = capsys.readouterr().out
    assert "Chain blip2/tiny: blip2/tiny-contrast, then blip2/tiny-stage1, then blip2/tiny-stage2." in said
    assert said.index("Finished blip2/tiny-stage1: 1 steps") < said.index("Finished blip2/tiny-stage2: 1 steps")
    contrast, both = said[said.index("tiny-contrast:\n") :].split("tiny-stage1:\n")
    for figure in ("gallery/world: 4 images", "swaps/exchanged: the true one wins, compared"):
        assert figure in contrast
        assert figure in both
    assert "judged" not in contrast  # ITM was not learnt there
    assert "swaps/exchanged: the true one wins, judged" in both
    assert "seeing adds" in both
    first, second = Run(folder / "2-tiny-stage1"), Run(folder / "3-tiny-stage2")
    assert second.stage_json["start"]["folder"] == str(first.folder.resolve())

    assert main(["train", "blip2/tiny", "--out", str(folder), *fields]) == MISTAKE
    assert "already holds a chain" in capsys.readouterr().err
    (second.folder / "finished.json").unlink()
    assert main(["evaluate", str(folder)]) == MISTAKE
    assert "'blip2/tiny-stage2' is not finished" in capsys.readouterr().err
    assert main(["train", "--resume", str(folder), "--steps", "3"]) == MISTAKE
    assert "give no recipe, field" in capsys.readouterr().err
    assert main(["train", "--resume", str(folder)]) == 0
    assert second.finished
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--tasks", "world/count"]) == MISTAKE
    assert "3-tiny-stage2" in capsys.readouterr().err
    assert main(["doctor", str(folder), "--num", "0"]) == 0
    said = capsys.readouterr().out
    for name in ("1-tiny-contrast", "2-tiny-stage1", "3-tiny-stage2"):
        assert f"{folder / name}:\n" in said
        assert (folder / name / "report" / "doctor.json").is_file()
    assert main(["evaluate", str(first.folder), "--tasks", "swaps/replaced", "--num", "3"]) == 0
    assert "swaps/replaced: the true one wins, compared" in capsys.readouterr().out
    assert main(["evaluate", str(second.folder), "--tasks", "swaps/replaced"]) == MISTAKE
    assert "without a language model" in capsys.readouterr().err


def test_a_chain_is_shown_checked_and_priced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "blip2/tiny"]) == 0
    said = capsys.readouterr().out
    assert "stages.1" in said
    assert said.index("BLIP-2's first stage") < said.index("BLIP-2's second stage")
    assert main(["check", "blip2/tiny", "--num", "1", "--scan", "2"]) == 0
    said = capsys.readouterr().out
    assert "blip2/tiny-stage1, data.0: WorldTwins" in said
    assert "[DEC]" in said
    assert "[[ " in said
    assert main(["cost", "blip2/tiny"]) == 0
    said = capsys.readouterr().out
    assert said.index("blip2/tiny-stage1") < said.index("blip2/tiny-stage2")
    assert main(["cost", "blip2/tiny", "--steps", "3"]) == MISTAKE
    assert "set '--steps' on one of its stages" in capsys.readouterr().err


def test_a_field_of_a_chain_is_a_field_of_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "blip2/tiny", "--steps", "3"]) == MISTAKE
    assert "--stages.2.steps" in capsys.readouterr().err
    assert main(["train", "blip2/tiny", "--stages.2.model.connector.num-queries", "8"]) == MISTAKE
    assert "do not fit 'blip2/tiny-stage2'" in capsys.readouterr().err
    assert main(["train", "blip2/tiny", "--asked", "world/counting"]) == MISTAKE
    assert "Did you mean 'world/count'" in capsys.readouterr().err
    assert main(["train", "blip2/tinny"]) == MISTAKE
    assert "Did you mean 'blip2/tiny'" in capsys.readouterr().err
