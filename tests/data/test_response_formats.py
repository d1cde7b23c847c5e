"""Response-format sentences after and before a question."""

from isthmus.data.response_formats import formatted, with_format
from isthmus.data.sample import Sample, Turn
from isthmus.data.sources import Formatted, WorldChat

SHORT = "Answer the question using a single word or phrase."


class Picture:
    key = "picture"

    def load(self) -> object:
        raise AssertionError("nothing is loaded")


def test_after_and_before() -> None:
    assert formatted("<image>\nWhat is it?", "short") == f"<image>\nWhat is it?\n{SHORT}"
    assert formatted("<image>\nWhat is it?", "short", "before") == f"<image>\n{SHORT} What is it?"
    assert formatted("What?", "letter", "before").startswith("Answer with the option's letter")
    assert (
        formatted("<image>", "caption", "before") == "<image>\nProvide a one-sentence caption for the provided image."
    )


def test_user_turns_alone() -> None:
    turns = (Turn(role="system", text="Be kind."), Turn(role="user", text="What?"), Turn(role="assistant", text="red"))
    asked = with_format(Sample(id="one", turns=turns), "short")
    assert [turn.text for turn in asked.turns] == ["Be kind.", f"What?\n{SHORT}", "red"]


def test_a_source_asks_for_a_form() -> None:
    inner = WorldChat(num_scenes=2, questions=2)
    plain, asked = inner.build(), Formatted(of=inner).build()
    assert len(asked) == 2
    users = [turn.text for turn in asked[1].turns if turn.role == "user"]
    assert users == [f"{turn.text}\n{SHORT}" for turn in plain[1].turns if turn.role == "user"]
