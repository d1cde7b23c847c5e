"""The shape of the package, read from its source: who may import whom, and how large a thing may be."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "isthmus"
SOURCES = sorted(PACKAGE.rglob("*.py"))
CODE = sorted(
    path for folder in ("isthmus", "tests", "backbones", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)

LEVELS: tuple[tuple[str, ...], ...] = (
    ("features", "config"),
    ("weights", "adapters"),
    ("encoders", "connectors", "llms", "data"),
    ("branches",),
    ("model",),
    ("runs",),
    ("measure", "evaluate", "exchange", "curate"),
    ("train",),
    ("compare",),
    ("recipes",),
    ("app",),
    ("cli",),
    ("__main__",),
)
RANK = {room: rank for rank, rooms in enumerate(LEVELS) for room in rooms}
FORBIDDEN_NAMES = {"utils", "util", "common", "core", "helpers", "misc"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Rooms a file imports, at its top or inside a function, with the line."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import at line {node.lineno}"
            names = [str(node.module)]
            if node.module == "isthmus":
                names = [f"isthmus.{alias.name}" for alias in node.names if alias.name in RANK]
        for name in names:
            if name.startswith("isthmus."):
                yield name.split(".")[1], node.lineno


def wrong_imports(room: str, tree: ast.Module) -> list[str]:
    return [
        f"{room} imports {other} at line {line}"
        for other, line in imported_rooms(tree)
        if other != room and not RANK[other] < RANK[room]
    ]


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_left(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "bundled"):
        assert list(imported_rooms(parse(path))) == []
        return
    assert room in RANK, f"{room} is not in the plan of rooms"
    assert wrong_imports(room, parse(path)) == []


def test_the_import_rule_can_fail() -> None:
    assert wrong_imports("encoders", ast.parse("from isthmus.connectors.base import Connector"))
    assert wrong_imports("model", ast.parse("def late():\n    import isthmus.train.loop"))
    assert wrong_imports("data", ast.parse("from isthmus import llms"))
    assert not wrong_imports("train", ast.parse("from isthmus.model import Model\nimport torch"))


def test_tyro_is_imported_in_cli_alone() -> None:
    found = {
        room_of(path)
        for path in SOURCES
        if re.search(r"^\s*(import tyro|from tyro)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == {"cli"}


def test_module_names_say_what_they_hold() -> None:
    wrong = [
        path for path in CODE if FORBIDDEN_NAMES & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}
    ]
    assert wrong == []


def test_files_are_short() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in CODE}
    assert {str(path): count for path, count in lines.items() if count > 400} == {}
    assert median(count for path, count in lines.items() if path.name != "__init__.py") < 150


def test_functions_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in CODE
        for node in functions(parse(path))
        if (node.end_lineno or node.lineno) - node.lineno + 1 > 60
    ]
    assert long == []


def test_constructors_take_few_arguments() -> None:
    wide = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in functions(parse(path))
        if node.name == "__init__" and len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) > 9
    ]
    assert wide == []


def test_public_functions_name_their_arguments() -> None:
    loose = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}(**{node.args.kwarg.arg})"
        for path in SOURCES
        for node in functions(parse(path))
        if node.args.kwarg is not None and not node.name.startswith("_")
    ]
    assert loose == []


def test_nothing_is_left_open_and_no_machine_is_named() -> None:
    open_ends = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    machine = re.compile(r"(^|[^\w.])/(tmp|work|root|home)/")
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()[:80]}"
        for path in CODE
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if open_ends.search(line) or machine.search(line)
    ]
    assert found == []


def test_stage_has_fewer_than_twenty_fields() -> None:
    tree = parse(PACKAGE / "train" / "stage.py")
    stage = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Stage")
    fields = [node for node in stage.body if isinstance(node, ast.AnnAssign)]
    assert 0 < len(fields) < 20
