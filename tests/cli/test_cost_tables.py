"""What `isthmus cost` prints at every width: no cell is cut, and a pipe gets every digit."""

import re

import pytest
from rich.console import Console

from isthmus.cli.cost_tables import CountTable, facts_table
from isthmus.cli.main import main
from isthmus.connectors import CONNECTORS


def table() -> CountTable:
    made = CountTable("Parts", ("part", "parameters", "FLOPs, to the first token", "KV cache"))
    made.add_row("encoder", 290_909_184, 366_033_858_560, "")
    made.add_section()
    made.add_row("all of them", 7_050_304_512, 999, "320.00 MiB")
    return made


def drawn(width: int, one: object) -> list[str]:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(one)
    lines = captured.get().splitlines()
    assert all(len(line) <= width for line in lines)
    assert "…" not in captured.get()
    return lines


def test_a_heading_stands_on_one_line_where_there_is_room() -> None:
    lines = drawn(79, table())
    assert lines[2].split("┃")[1:-1] == [
        " part        ",
        "    parameters ",
        " FLOPs, to the first token ",
        "   KV cache ",
    ]
    assert "│ encoder     │   290,909,184 │           366,033,858,560 │            │" in lines
    assert not any("rounded" in line for line in lines)


def test_then_headings_take_several_lines_and_the_frame_goes() -> None:
    lines = drawn(58, table())
    assert "all of them │ 7,050,304,512 │             999 │ 320.00 MiB" in lines
    assert "            ┃               ┃   FLOPs, to the ┃           " in lines


def test_then_counts_are_short_and_it_says_so() -> None:
    lines = drawn(57, table())
    assert "all of them │     7.05 G │    999 │ 320.00 MiB" in [line.strip() for line in lines]
    assert any("rounded to fit" in line for line in lines)


def test_then_columns_stand_below_each_other_with_their_names() -> None:
    lines = [line.strip() for line in drawn(30, table())]
    assert "encoder     │    290.9 M" in lines
    assert "encoder     │  366 G" in lines
    assert "all of them │ 320.00 MiB" in lines


def test_long_names_are_folded_and_values_stay() -> None:
    lines = drawn(24, facts_table({"  activations, estimated": "139.50 GiB"}))
    assert any("139.50 GiB" in line for line in lines)


@pytest.mark.parametrize("width", ["80", "120", None])
def test_the_shelf_at_every_width(
    width: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe gets every digit, and each remark on a line; a terminal of 80 columns the short form, whole."""
    if width is None:
        monkeypatch.delenv("COLUMNS")
    else:
        monkeypatch.setenv("COLUMNS", width)
    assert main(["cost", "--shelf"]) == 0
    text = capsys.readouterr().out
    assert "…" not in text
    split = [re.split(r"\s*│\s*", line.strip(" │")) for line in text.splitlines()]
    rows = {cells[0]: cells[1:] for cells in split if len(cells) > 5}
    assert set(rows) == set(CONNECTORS) - {"identity"}
    exact = ["144", "94,607,360", "36,297,768,960", "3.119 T", "104.00 MiB"]
    assert rows["windowed-streams"] == (["144", "94.61 M", "36.3 G", *exact[3:]] if width == "80" else exact)
    said = " ".join(text.split())
    assert "identity does not fit: IdentityConfig hands features on as they are, but the encoder's are 1024" in said
    assert "or pad=True, which fills 3072 channels with zeros." in said
    assert "windowed-streams is arranged by Levels(layers=(1, 2, 3, 4), " in said
    assert width is not None or "zeros.\n windowed-streams" in text


@pytest.mark.parametrize(
    "asked",
    [
        ("internvl15/stage1",),
        ("llava15/stage2", "--fit", "80GiB"),
        ("video-llama/audio/stage1", "--images", "0", "--frames", "8", "--sounds", "1"),
        ("blip2/stage1", "--formulas"),
    ],
)
@pytest.mark.filterwarnings("ignore:At least one mel filter")  # of the published AST extractor itself
def test_no_table_is_cut_in_eighty_columns(
    asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["cost", *asked]) == 0
    text = capsys.readouterr().out
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    if asked[0] == "internvl15/stage1":
        assert "11,944,693,516,800" in text
