"""What a user sees: help without waiting, one clear message for a mistake, exit codes."""

import subprocess
import sys

import pytest

from isthmus.cli.commands import COMMANDS, own_options
from isthmus.cli.main import INTERRUPTED, MISTAKE, main, parse

HELP = """
import sys
from isthmus.cli.main import main
for arguments in {calls!r}:
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 0, end.code
heavy = [name for name in ("torch", "transformers", "PIL", "matplotlib", "numpy") if name in sys.modules]
assert not heavy, heavy
"""


def test_help_imports_nothing_heavy() -> None:
    calls = [[], ["--help"], *([name, "--help"] for name in COMMANDS)]
    done = subprocess.run([sys.executable, "-c", HELP.format(calls=calls)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("command", "named"),
    [("ask", "RUN FILE QUESTION"), ("compare", "STUDY"), ("check", "RECIPE"), ("doctor", "RUN"), ("atlas", "RUN FILE")],
)
def test_help_names_what_is_given_by_place(command: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([command, "--help"])
    usage = capsys.readouterr().out.splitlines()[0].replace(" [-h]", "")
    assert f"{usage} ".startswith(f"usage: isthmus {command} {named} ") or usage.endswith(f" {named}")


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "isthmus", "trian"], capture_output=True, text=True)
    assert done.returncode == MISTAKE
    assert done.stderr.startswith("isthmus: Unknown command 'trian'. Did you mean 'train'?")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cost", "quickstar"], "Unknown recipe 'quickstar'. Did you mean 'quickstart'?"),
        (["compare", "reedme"], "Unknown study 'reedme'. Did you mean 'readme'?"),
        (["cost", "llava15/stage1", "--model.conector", "mlp"], "'--model.conector'. Did you mean '--model.connector'"),
        (["cost", "llava15/stage1", "--model.connector", "mpl"], "'mpl' is unknown. Did you mean 'mlp'"),
        (["cost", "llava15/stage1", "--model.connector"], "--model.connector needs a name: identity, linear"),
        (["cost", "llava15/stage1", "--image", "0x5"], "'0x5' is no size of a picture"),
        (["cost"], "Name a recipe, a run folder, a model folder or a hub id"),
        (["cost", "llava15/stag1"], "Unknown recipe 'llava15/stag1'. Did you mean 'llava15/stage1'"),
        (["cost", "llava15/stage1", "--fit", "24"], "such as 24GiB"),
        (["train"], "Name a recipe"),
        (["train", "quickstart", "--resume", "there"], "give no recipe"),
        (["train", "--resume", "no-such-folder"], "no-such-folder is not a run folder"),
        (["evaluate", "no-such-folder"], "no-such-folder is not a run folder"),
        (["compare", "quickstart", "--workers", "0"], "workers=0 trains nothing"),
        (["check", "quickstart", "--num", "-1"], "give 0 or more"),
        (["cost", "quickstart", "--text-tokens", "-4"], "--text-tokens -4 is the length of a text in tokens: give 0"),
        (["import", "no-such-folder", "--to", "run"], "no model folder 'no-such-folder'"),
        (["import", __file__, "--to", "run"], "test_main.py' is a file, not a model folder. Give a folder"),
        (["import", __file__, "--to", "run", "--recipe", "quickstart"], "test_main.py' is no weights file"),
        (["train", "quickstart", "--out", __file__, "--steps", "1"], "is a file: a run needs a folder of its own"),
        (["evaluate", "somewhere", "--tasks", "world/atribute"], "Did you mean 'world/attribute'"),
        (["evaluate", "somewhere", "--taks", "x"], "`isthmus evaluate` does not know '--taks'. Did you mean '--tasks'"),
        (["cost", "--shelff"], "`isthmus cost` does not know '--shelff'. Did you mean '--shelf'? Fields are those"),
        (["cost", "--fitt", "24GiB", "quickstart"], "`isthmus cost` does not know '--fitt'. Did you mean '--fit'"),
        (["cost", "--shelf", "--form"], "No field '--form'. Did you mean '--formulas'"),
        (["cost", "quickstart", "--fitt", "24GiB"], "No field '--fitt'. Did you mean '--fit' or"),
        (["train", "--resum", "there"], "`isthmus train` does not know '--resum'. Did you mean '--resume'"),
        (
            ["train", "--resume", "there", "--shrad"],
            "no recipe, field or --out, '--shrad' came. Did you mean '--shard'",
        ),
        (["import", "there", "--to", "run", "--recip", "x"], "give --recipe. Did you mean '--recipe'"),
        (["check", "quickstart", "--scna", "5"], "No field '--scna'. Did you mean '--scan'"),
        (["evaluate", "somewhere", "--num", "0"], "--num 0 asks nothing: give 1 or more"),
        (["evaluate", "somewhere", "--batch-size", "0"], "--batch-size 0 asks nothing"),
        (["ask", "somewhere", "no-such.jpg", "What?"], "No file 'no-such.jpg'"),
        (["atlas", "somewhere", __file__, "--out", "a.txt"], "name a picture to write"),
        (["atlas", "somewhere", __file__, "--out", "a.png", "--num", "0"], "--num 0 draws nothing"),
        (["atlas", "somewhere", __file__, "--out", "a.png", "--question", "<image>?"], "Leave <image> out"),
        (["ask", "somewhere", __file__, "What?"], "test_main.py"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == MISTAKE
    error = capsys.readouterr().err
    assert error.startswith("isthmus: ")
    assert said in error
    assert "Traceback" not in error


def test_an_interrupt_is_clean(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(command: object, rest: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isthmus.cli.actions.act", interrupted)
    assert main(["list"]) == INTERRUPTED
    assert "--resume" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(command: object, rest: list[str]) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr("isthmus.cli.actions.act", broken)
    with pytest.raises(AssertionError, match="ours"):
        main(["list"])


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_TRACEBACK", "1")
    with pytest.raises(ValueError, match="quickstar"):
        main(["cost", "quickstar"])


def test_help_after_a_recipe_is_left_for_its_fields() -> None:
    command, rest = parse(["train", "quickstart", "--help"])
    assert type(command).__name__ == "Train"
    assert rest == ["--help"]


def test_several_processes_need_a_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "quickstart"]) == MISTAKE
    assert "--out FOLDER" in capsys.readouterr().err


def test_own_options_and_fields_are_told_apart() -> None:
    command, rest = parse(["cost", "quickstart", "--text-tokens", "7", "--model.encoder.image-size", "96"])
    assert vars(command)["text_tokens"] == 7
    assert rest == ["--model.encoder.image-size", "96"]


def test_fields_may_follow_a_shelf_without_a_recipe() -> None:
    command, rest = parse(["cost", "--shelf", "--model.encoder.image-size", "96"])
    assert vars(command)["recipe"] is None
    assert rest == ["--model.encoder.image-size", "96"]


def test_every_command_knows_its_own_options() -> None:
    assert own_options("import") == ["--to", "--recipe"]
    assert own_options("cost")[:2] == ["--image", "--images"]
    assert all(one.startswith("--") for name in COMMANDS for one in own_options(name))
