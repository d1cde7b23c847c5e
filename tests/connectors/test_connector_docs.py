"""The page on connectors names every one, and its example of a new connector works as it says."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import isthmus
from isthmus.connectors import CONNECTORS

PAGE = (Path(__file__).parents[2] / "docs" / "connectors.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


@pytest.mark.parametrize("name", list(CONNECTORS))
def test_every_connector_has_its_row_with_its_paper(name: str) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    assert CONNECTORS[name].__name__ in row
    told = inspect.getdoc(sys.modules[CONNECTORS[name].__module__]) or ""
    paper = re.search(r"arXiv:(\d{4}\.\d{5})", told)
    assert paper is not None
    assert f"arxiv.org/abs/{paper[1]}" in row


def test_the_first_example_prints_the_published_costs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[0], "connectors.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[0] == "576 20979712 24159191040"


def follow_the_page(root: Path) -> None:
    """The package as links, with a copy of the connectors to which the page's file and two lines are added."""
    package = Path(isthmus.__file__).parent
    (root / "isthmus").mkdir()
    for path in package.iterdir():
        if path.name != "connectors":
            (root / "isthmus" / path.name).symlink_to(path)
    shutil.copytree(
        package / "connectors", root / "isthmus" / "connectors", ignore=shutil.ignore_patterns("__pycache__")
    )
    section = PAGE[PAGE.index("## A connector of your own: one file and two lines") :]
    file = re.search(r"Say `(isthmus/connectors/\w+\.py)`", section)
    code = re.search(r"```python\n(.*?)```", section, flags=re.S)
    lines = re.search(r"```text\n(from .*)\n(    \".*)\n```", section)
    assert file is not None
    assert code is not None
    assert lines is not None
    (root / file[1]).write_text(code[1], encoding="utf-8")
    listed = root / "isthmus" / "connectors" / "__init__.py"
    text = listed.read_text(encoding="utf-8").replace("\nfrom ", f"\n{lines[1]}\nfrom ", 1)
    listed.write_text(text.replace("\n}\n", f"\n{lines[2]}\n}}\n"), encoding="utf-8")


NAMED = """
from isthmus.cli.fields import with_fields
from isthmus.recipes.quickstart import stage
from isthmus.recipes.shelf import with_connectors
from isthmus.recipes.studies import quickstart


def test_it_goes_by_its_name_row_pool() -> None:
    chosen = with_fields(stage(), ["--model.connector", "row-pool", "--model.connector.no-bias"], command="train")
    assert type(chosen.model.connector).__name__ == "RowPoolConfig"
    assert chosen.model.num_visual_tokens
    study = with_connectors(quickstart(), ["mlp", "row-pool"])
    assert study.stages()["row-pool"].model.connector == type(chosen.model.connector)()
"""


@pytest.mark.long
def test_a_new_connector_is_one_file_and_two_lines(tmp_path: Path) -> None:
    """The page, to the letter, in a copy; then every promise on the new connector, in a process of its own."""
    tests = Path(__file__).parents[1]
    follow_the_page(tmp_path)
    (tmp_path / "tests").mkdir()
    shutil.copy(tests.parent / "pyproject.toml", tmp_path)
    shutil.copy(tests / "connectors" / "test_every_connector.py", tmp_path / "tests")
    for name in ("conftest.py", "oracle_files.py"):
        shutil.copy(tests / name, tmp_path / "tests")
    (tmp_path / "tests" / "test_named.py").write_text(NAMED, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "tests", "-k", "row-pool or row_pool"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) >= 18, run.stdout
