"""The README's Python runs, and the commands and files that it names are there."""

import re
from pathlib import Path

import pytest

from isthmus.connectors import CONNECTORS
from isthmus.recipes import CHAINS, RECIPES, STUDIES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = re.findall(r"^isthmus (\w+) ([\w/.-]+)", README, flags=re.MULTILINE)


@pytest.mark.parametrize("code", PYTHON)
def test_python_examples_run(code: str) -> None:
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert len(names) > 1


@pytest.mark.parametrize(("command", "name"), [pair for pair in COMMANDS if pair[1] != "RUN"])
def test_commands_name_recipes_that_exist(command: str, name: str) -> None:
    assert name in (STUDIES if command == "compare" else {**RECIPES, **CHAINS})


def test_every_connector_is_in_the_table() -> None:
    section = README.split("## Connectors\n")[1].split("\n## ")[0]
    table = re.findall(r"^\| `([\w-]+)` \|", section, flags=re.MULTILINE)
    assert table == list(CONNECTORS)


def test_the_file_map_and_the_links_are_true() -> None:
    tree = README.split("## File map\n```\n")[1].split("```")[0]
    inside = re.findall(r"^  ([\w.]+)/? ", tree, flags=re.MULTILINE)
    outside = re.findall(r"^(\w+)/ ", tree, flags=re.MULTILINE)
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert len(inside) > 10
    assert len(links) > 3
    for name in [f"isthmus/{one}" for one in inside] + outside + links:
        path, _, place = name.partition("#")
        assert (ROOT / path).exists(), name
        headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), flags=re.MULTILINE) if place else []
        assert not place or place in [heading.lower().replace(" ", "-") for heading in headings], name
