"""Every command from end to end, on tiny random models."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from isthmus.cli.main import MISTAKE, main
from isthmus.cli.stages import TYPES, saved_stage
from isthmus.cli.tables import gib, provenance_table, short
from isthmus.config import from_json
from isthmus.recipes import RECIPES
from isthmus.recipes.provenance import provenance

SMALL = ["--steps", "2", "--batch-size", "2", "--data.0.of.num-scenes", "8", "--data.0.of.questions", "2"]
SMALL += ["--validation.0.of.num-scenes", "4", "--data.1.weight", "1e-9", "--data.2.weight", "1e-9"]


def test_train_evaluate_and_ask(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["train", "quickstart", "--out", str(folder), *tiny, *SMALL]) == 0
    assert "Finished quickstart: 2 steps, validation loss " in capsys.readouterr().out
    assert saved_stage(folder).steps == 2

    assert main(["train", "quickstart", "--out", str(folder), *tiny, *SMALL]) == MISTAKE
    assert "already holds a run" in capsys.readouterr().err
    assert main(["train", "--resume", str(folder)]) == 0

    assert main(["evaluate", str(folder), "--tasks", "world/count", "--num", "6"]) == 0
    assert "world/count" in capsys.readouterr().out
    answers = (folder / "report" / "answers-none.jsonl").read_text().splitlines()
    assert len(answers) == 6
    lines = [json.loads(line) for line in answers]
    assert {"prompt", "prediction", "answers", "score"} <= set(lines[0])
    assert all(line["score"] == float(line["compared"] in line["compared_with"]) for line in lines)

    picture = tmp_path / "picture.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    capsys.readouterr()
    assert main(["ask", str(folder), str(picture), "What colour is it?", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.endswith("\n")


def test_a_run_of_another_version_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {
        "isthmus": "0.0.9",
        "commit": "abc123",
        "stage": {"type": "Stage", "name": "old", "model": {}, "mix": "batches"},
    }
    (tmp_path / "stage.json").write_text(json.dumps(told))
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    assert main(["doctor", str(tmp_path)]) == MISTAKE
    said = capsys.readouterr().err
    assert (
        "saved by isthmus 0.0.9, commit abc123, and this one does not read its stage: Stage has no field 'mix'" in said
    )
    assert "Open it with that version" in said


def test_runs_are_numbered_below_the_runs_folder(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in ("001", "002"):
        assert main(["train", "quickstart", *tiny, *SMALL]) == 0
        assert (tmp_path / "runs" / "quickstart" / number / "finished.json").is_file()


def test_check_marks_what_is_supervised(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data.0.of.num-scenes", "4", "--data.0.of.questions", "2", "--model.llm.max-tokens", "1024"]
    models = tiny[: tiny.index("--model.llm.max-tokens")]
    assert main(["check", "quickstart", *models, *arguments, "--num", "1", "--scan", "3"]) == 0
    text = capsys.readouterr().out
    assert "data.0: WorldChat, weight 0.7, 4 samples; 3 checked" in text
    assert "<image x 16>" in text
    assert "[[ " in text


def test_check_counts_clips_and_sounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "clips", "--num", "1", "--scan", "1"]) == 0
    text = capsys.readouterr().out
    assert text.count("<image x 9>") == 2
    assert "<image x 1>" in text


def test_check_refuses_a_mask_without_tokens(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "quickstart", *tiny, "--model.llm.max-tokens", "20"]) == MISTAKE
    assert "world" in capsys.readouterr().err


def test_cost_needs_no_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "llava15/stage1", "--text-tokens", "0"]) == 0
    text = capsys.readouterr().out
    assert "20,979,712" in text
    assert "24,159,191,040" in text
    assert "7,634,304,368,640" in text
    assert "288.00 MiB" in text


def test_list_names_what_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in (*RECIPES, "readme", "q-former", "concatenate", "encoder-decoder", "LlavaFile", "world/attribute"):
        assert name in text


def test_show_gives_values_with_sources_and_marks_what_was_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "llava15/stage1", "--batch-size", "64"]) == 0
    text = capsys.readouterr().out
    rate = next(line for line in text.splitlines() if "optimizer.peak_lr" in line)
    assert "0.001" in rate
    assert "--learning_rate 1e-3" in rate
    batch = next(line for line in text.splitlines() if " batch_size" in line)
    assert "64" in batch
    assert "set by you" in batch


def test_show_marks_and_counts_what_could_not_be_verified(capsys: pytest.CaptureFixture[str]) -> None:
    stage, docstring = RECIPES["internvl12/sft"](), RECIPES["internvl12/sft"].make.__doc__ or ""
    table = provenance_table(stage, docstring, stage)
    doubted = [one.path for one in provenance(stage, docstring) if "unverified" in one.source]
    paths = list(table.columns[0].cells)
    assert [path for path, row in zip(paths, table.rows, strict=True) if row.style == "yellow"] == doubted
    assert {"epochs", "optimizer.weight_decay"} < set(doubted)
    assert main(["show", "internvl12/sft"]) == 0
    assert f"values not verified: {len(doubted)}\n" in re.sub(" +\n", "\n", capsys.readouterr().out)
    assert main(["show", "llava15/stage1"]) == 0
    assert "not verified" not in capsys.readouterr().out


def test_show_json_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "llava15/stage2", "--json"]) == 0
    assert from_json(json.loads(capsys.readouterr().out), TYPES) == RECIPES["llava15/stage2"]()


def test_numbers_for_people() -> None:
    assert [short(number) for number in (0, 999, 24_159_191_040, 7_634_304_368_640)] == [
        "0",
        "999",
        "24.16 G",
        "7.634 T",
    ]
    assert [gib(number) for number in (2**29, 3 * 2**30)] == ["512.00 MiB", "3.00 GiB"]
