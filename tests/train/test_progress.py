"""The display: a bar in a terminal, plain lines elsewhere, and a call for whoever watches."""

import io

from rich.console import Console

from isthmus.train.progress import Progress, ProgressDisplay, format_seconds


def at(done: int) -> Progress:
    return Progress(
        name="tiny",
        phase="train",
        done=done,
        total=9,
        loss=1.5,
        samples_per_s=32.04,
        tokens_per_s=1234.6,
        seconds_left=125.0,
    )


def test_one_line_says_loss_rate_and_time_left() -> None:
    assert str(at(3)) == "tiny train 3/9  loss 1.5000  32.0 samples/s  1235 tokens/s  2:05 left"
    assert str(Progress(name="tiny", phase="features", done=1, total=2)) == "tiny features 1/2"


def test_times_are_short() -> None:
    assert [format_seconds(seconds) for seconds in (0.4, 59.9, 60.0, 3599.0, 3600.0, 7384.0)] == [
        "0:00",
        "0:59",
        "1:00",
        "59:59",
        "1:00:00",
        "2:03:04",
    ]


def test_without_a_terminal_the_first_and_the_last_are_plain_lines() -> None:
    written, told = io.StringIO(), []
    with ProgressDisplay(show=True, call=told.append, console=Console(file=written, force_terminal=False)) as display:
        for done in range(1, 10):
            display.update(at(done))
    assert [line.split("  ")[0] for line in written.getvalue().splitlines()] == ["tiny train 1/9", "tiny train 9/9"]
    assert [one.done for one in told] == [1, 9]


def test_in_a_terminal_there_is_a_bar() -> None:
    written = io.StringIO()
    with ProgressDisplay(
        show=True, call=None, console=Console(file=written, force_terminal=True, width=120)
    ) as display:
        display.update(at(9))
    assert "tiny train 9/9" in written.getvalue()


def test_nothing_is_shown_when_it_is_off() -> None:
    written = io.StringIO()
    with ProgressDisplay(show=False, call=None, console=Console(file=written, force_terminal=True)) as display:
        display.update(at(9))
    assert written.getvalue() == ""


def test_what_is_told_is_printed_as_it_is() -> None:
    written = io.StringIO()
    with ProgressDisplay(show=True, call=None, console=Console(file=written, force_terminal=False)) as display:
        display.tell(["connector   9 parameters [9 learn]", "llm"])
    assert written.getvalue().splitlines() == ["connector   9 parameters [9 learn]", "llm"]
