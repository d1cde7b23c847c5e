"""The page: self-contained, escaped, and with all its parts."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from fake_study import fake_results
from PIL import Image
from rich.console import Console

from isthmus.compare.judge import judge
from isthmus.compare.plots import colours, markers
from isthmus.compare.report import Example, families_table, render, thumbnail, write_report
from isthmus.compare.table import print_table, short_bytes, short_count, short_seconds

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>"


def example(text: str = "Where is it?") -> Example:
    said = (("mlp", text, 1.0), ("q-former", "", 0.0))
    picture = thumbnail(Image.new("RGB", (40, 20), "red"))
    return Example(picture=picture, task=text, question=text, truth=text, said=said, credit=text)


class Addresses(HTMLParser):
    """Every tag, and every address a page names."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def parsed(page: str) -> Addresses:
    parser = Addresses()
    parser.feed(page)
    return parser


def test_the_page_needs_no_other_file() -> None:
    results = fake_results()
    page = render(results, judge(results), examples=[example()], config={"study": 1})
    found = parsed(page)
    assert found.addresses
    assert all(address.startswith("data:image/") for address in found.addresses)
    assert "script" not in found.tags
    assert not re.findall(r"url\((?!data:)|@import|https?://", page)
    assert "default-src 'none'" in page


def test_everything_from_data_is_escaped() -> None:
    results = fake_results(name=HOSTILE)
    results = replace(results, failures=(HOSTILE,), facts={"command": HOSTILE})
    page = render(results, judge(results), examples=[example(HOSTILE)], config={HOSTILE: HOSTILE})
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    found = parsed(page)
    assert "script" not in found.tags
    assert "x" not in found.addresses


def test_the_verdict_comes_before_the_table() -> None:
    results = fake_results()
    verdict = judge(results)
    page = render(results, verdict)
    assert page.index(verdict.lines[0]) < page.index("<table>")
    for part in ("Task by task", "Did training finish?", "Is it the picture?", "Pair by pair", "Caveats"):
        assert part in page


def test_two_reports_of_one_study_are_equal(tmp_path: Path) -> None:
    results = fake_results()
    for name in ("one.html", "two.html"):
        write_report(tmp_path / name, results, judge(results), examples=[example()])
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.html", "two.html"]


def test_a_study_of_one_arm_and_one_seed_can_be_shown() -> None:
    results = fake_results(seeds=(1,))
    results = replace(results, arms=("mlp",), blind_arm=None, costs={})
    assert "one seed" in render(results, judge(results))


def test_the_terminal_table_fits_eighty_columns() -> None:
    results = fake_results()
    console = Console(width=80, record=True, file=io.StringIO())
    print_table(results, judge(results), console)
    text = console.export_text()
    assert "not converged" in text
    assert "pixel-shuffle" in text
    assert "…" not in text


def test_short_numbers() -> None:
    assert [short_count(value) for value in (12, 1_234, 1_900_000, 2.5e9)] == ["12", "1.23k", "1.9M", "2.5G"]
    assert [short_bytes(value) for value in (100, 2_048, 1_377_894)] == ["100 B", "2 KiB", "1.31 MiB"]
    assert [short_seconds(value) for value in (45.0, 190.0, 7_200.0)] == ["45 s", "3.2 min", "2.0 h"]


def test_a_study_without_a_blind_arm_speaks_of_no_dashed_line() -> None:
    results = fake_results()
    assert "dashed line" in render(results, judge(results))
    alone = replace(results, blind_arm=None, jobs=tuple(job for job in results.jobs if job.arm in results.arms))
    assert "dashed line" not in render(alone, judge(alone))


def test_many_arms_are_rows_and_their_pairs_are_folded() -> None:
    few = fake_results()
    names = [f"{arm} {number}" for number in range(3) for arm in few.arms]
    jobs = [replace(job, arm=name) for name in names for job in few.jobs if job.arm == name.split()[0]]
    jobs += [job for job in few.jobs if job.arm == few.blind_arm]
    costs = {name: few.costs[name.split()[0]] for name in names} | {few.blind_arm: few.costs[few.blind_arm]}
    many = replace(few, arms=tuple(names), jobs=tuple(jobs), costs=costs)
    header, lines = families_table(many)
    assert header == ["task", *(task.title for task in many.tasks)]
    assert [line[0] for line in lines[2:-3]] == [*names, few.blind_arm]
    turned, plain = {line[0]: line[1:] for line in lines}, families_table(few)
    for place, arm in enumerate(few.arms):
        assert turned[f"{arm} 2"] == [line[3 + place] for line in plain[1]]
    page = render(many, judge(many))
    assert f"All {len(names) * (len(names) - 1) // 2} pairs" in page
    assert "All 6 pairs" not in render(few, judge(few))
    assert len({(colours(names, None)[name], markers(names)[name]) for name in names}) == len(names)
