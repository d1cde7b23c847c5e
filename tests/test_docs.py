"""What the pages say can be typed, opened and run: commands parse, links and files are there, examples work."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from isthmus.cli import commands as cli_commands
from isthmus.cli.commands import Compare, Cost, Evaluate, Export, Train
from isthmus.cli.costing import read_size
from isthmus.cli.evaluating import check_tasks
from isthmus.cli.fields import option_names, with_fields
from isthmus.cli.main import WITH_FIELDS, parse
from isthmus.exchange.outgoing import GOALS
from isthmus.measure import read_bytes
from isthmus.recipes import CHAINS, RECIPES, STUDIES
from isthmus.recipes.shelf import with_connectors

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = sorted(ROOT.glob("isthmus/**/README.md"))
TEXT = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in (*PAGES, *NAMED)}
STANDS_FOR = {"RECIPE": "quickstart", "CHAIN": "blip2/tiny", "STUDY": "quickstart", "CLASS": "llava"}
"""Words in capitals that a reader replaces; any other such word is a path."""
OF_A_RUN = {"ask": ["RUN", "photo.jpg", "What?"], "chat": ["RUN"], "evaluate": ["RUN"], "doctor": ["RUN"]}
"""What stands before the options where a page names a command with an option alone, `isthmus ask --answer short`."""
MEANT_WRONG = ("isthmus train quickstrat", "isthmus compare quickstart --connectors mlp,row-pool")
"""An example of a mistake, and a connector that the reader has yet to write."""
UNFOLLOWED = {
    "docs/data.md": "captions.jsonl",
    "docs/recipes.md": "on_bundled",
    "docs/connectors.md": "row_pool",
}
"""Examples that need a file of the reader's, or train, or are a file of their own: those parts are compiled alone."""


def fenced(text: str) -> list[tuple[str, str]]:
    """Every code block with its language."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Every command line of isthmus in blocks and between backticks, without its comment."""
    lines = [line for _, code in fenced(text) for line in code.replace("\\\n", " ").splitlines()]
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", plain)]
    found = []
    for line in lines:
        start = re.match(r"\$? ?(?:[A-Z_]+=\S+ )*(?:time )?(?:torchrun .*?-m |python -m )?(isthmus\s.+)", line.strip())
        if start is not None and len(start[1].split("#")[0].split()) > 2 and "..." not in start[1]:
            found.append(start[1])
    return found


COMMANDS = {line: page for page, text in TEXT.items() for line in commands(text)}
"""Each command with one page that has it. Two words alone are the name of a command, not a call of it."""


def follow(line: str) -> None:
    """Parse a command as the command line does, and look every name in it up. Raises ValueError or SystemExit."""
    words = shlex.split(line, comments=True)[1:]
    words = [STANDS_FOR.get(word, word) for word in words]
    name = words[0]
    if words[1].startswith("--") and words[1] != "--help":
        words[1:1] = OF_A_RUN.get(name, [])
    command, rest = parse(words)
    if name in WITH_FIELDS:
        named = vars(command).get("recipe") or vars(command).get("study")
        tables = STUDIES if name == "compare" else {**STUDIES, **RECIPES, **CHAINS}
        if named in tables:
            with_fields(tables[named](), rest, command=name)
        elif rest:
            with_fields(RECIPES["llava15/stage1"](), rest, command=name)
        elif named is not None and not isinstance(command, Cost):
            raise ValueError(f"Unknown recipe {named!r}.")
    match command:
        case Evaluate(tasks=tasks):
            check_tasks(tasks)
        case Export(to=to):
            assert to in GOALS, to
        case Compare(connectors=(_, *_) as some):
            with_connectors(STUDIES["quickstart"](), [name for one in some for name in one.split(",")])
        case Cost(image=sizes, fit=fit):
            assert all(read_size(size) for size in sizes)
            assert fit is None or read_bytes(fit)
        case Train(recipe=None, resume=None):
            pytest.fail("it trains nothing")
        case _:
            pass


def test_the_pages_name_many_commands() -> None:
    assert len(COMMANDS) > 60
    assert {line.split()[1] for line in COMMANDS} >= {"train", "compare", "ask", "curate", "export", "doctor"}


@pytest.mark.parametrize("page", TEXT)
def test_every_command_that_is_named_is_one(page: str) -> None:
    assert set(re.findall(r"`(?:python -m )?isthmus ([a-z]\w*)", TEXT[page])) <= set(cli_commands.COMMANDS)


@pytest.mark.parametrize(("line", "page"), COMMANDS.items())
def test_every_command_can_be_typed(line: str, page: str) -> None:
    if line in MEANT_WRONG:
        with pytest.raises(ValueError, match="Unknown"):
            follow(line)
        return
    if line.split()[-1] in ("-h", "--help"):
        with pytest.raises(SystemExit) as end:
            follow(line)
        assert end.value.code == 0
        return
    follow(line)


@pytest.mark.parametrize(
    "line",
    [
        "isthmus trian quickstart",
        "isthmus train quickstart --model.conector mlp",
        "isthmus evaluate RUN --tasks world/atribute",
        "isthmus compare quickstart --connectors mpl",
        "isthmus doctor RUN --number 3",
        "isthmus cost quickstart --fit 24",
    ],
)
def test_a_command_that_is_wrong_is_found(line: str) -> None:
    with pytest.raises(ValueError, match=r"Unknown|No field|does not know|unknown|24GiB|mpl"):
        follow(line)


def slugs(text: str) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXT)
def test_links_lead_somewhere(page: str) -> None:
    plain = re.sub(r"^```.*?^```", "", TEXT[page], flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", plain):
        if link.startswith(("http://", "https://")):
            continue
        path, _, place = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert not place or place in slugs(target.read_text(encoding="utf-8")), f"{page}: {link}"


@pytest.mark.parametrize("page", TEXT)
def test_files_modules_and_tests_that_are_named_are_there(page: str) -> None:
    text = TEXT[page]
    for name in re.findall(
        r"\b((?:isthmus|tests|benchmarks|backbones|docs)/[\w/.-]+\.(?:py|md|jsonl?|svg|png))\b", text
    ):
        if "row_pool" not in name and "row-pool" not in name:
            assert (ROOT / name).is_file(), f"{page}: {name}"
    for name in re.findall(r"python -m ((?:isthmus|benchmarks|backbones)[\w.]*)", text):
        assert importlib.util.find_spec(name.rstrip(".")) is not None, f"{page}: {name}"
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+_\w+_\w+)`", text):
        assert f"def {name}(" in tests or any((ROOT / "tests").rglob(f"{name}.py")), f"{page}: {name}"


@pytest.mark.parametrize("page", [page for page, text in TEXT.items() if "```python\n" in text])
def test_examples_run(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path))
    names: dict[str, object] = {"__name__": "example"}
    followed = 0
    for language, code in fenced(TEXT[page]):
        if language == "python":
            made = compile(code, page, "exec")
            if UNFOLLOWED.get(page, "nothing") not in code.replace("RowPool", "row_pool"):
                exec(made, names)
                assert made_names(code) <= set(names), page
                followed += 1
    assert followed > 0, f"nothing of {page} was run"


def made_names(code: str) -> set[str]:
    """What a block leaves behind under a name: what it imports, defines and assigns."""
    found: set[str] = set()
    for node in ast.parse(code).body:
        match node:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {one.asname or one.name.split(".")[0] for one in names}
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
            case _:
                pass
    return found


def test_what_any_block_imports_is_there() -> None:
    """Those too that need a run of the reader's and are not run here."""
    lines = {line for text in TEXT.values() for _, code in fenced(text) for line in code.splitlines()}
    found = sorted(line for line in lines if re.match(r"from isthmus[\w.]* import [\w, ]+$", line))
    assert len(found) > 20
    for line in found:
        if "row_pool" not in line:
            exec(line, {})


@pytest.mark.parametrize(
    ("page", "span"),
    [
        (page, re.sub(r"\s+", " ", span))
        for page, text in TEXT.items()
        for span in re.findall(r"`(--(?:model|data|optimizer|schedule|stages|steps|epochs)[^`]*)`", text)
        if "..." not in span and "row-pool" not in span
    ],
)
def test_options_that_are_named_alone_are_fields(page: str, span: str) -> None:
    """`--model.llm.checkpointing True` sets a field of a published recipe; without a value it is the name of one."""
    words = shlex.split(span)
    config = (CHAINS["blip2/tiny"] if words[0].startswith("--stages") else RECIPES["llava15/stage1"])()
    if len(words) > 1:
        assert with_fields(config, words, command="train") != config, f"{page}: {span}"
    else:
        assert words[0].replace(".no-", ".") in option_names(config), f"{page}: {span}"
