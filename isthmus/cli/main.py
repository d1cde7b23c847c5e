"""Parse the command line, call the command, and turn a user's mistake into one clear message."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import tyro

from isthmus.cli.commands import COMMANDS, Command, own_options
from isthmus.config import did_you_mean

DESCRIPTION = """Build, train, measure and compare the connectors that join vision encoders to language models.

Start with `isthmus compare quickstart`, or `isthmus list` for all names."""
WITH_FIELDS = ("train", "compare", "cost", "check", "show", "import")
EMPTY_PLACE = "[]"
"""What tyro puts in the place of a recipe that was not named when it does not know an argument behind it."""
MISTAKE = 2
INTERRUPTED = 130


def parse(argv: Sequence[str]) -> tuple[object, list[str]]:
    """The command with its own options, and the arguments left over, which set fields of the recipe.

    `isthmus train NAME --help` leaves `--help` over: it asks for the fields of that recipe.

    Raises:
        ValueError: an unknown command, or arguments left over where there is no recipe whose fields they could set.
    """
    name = argv[0] if argv else "--help"
    if not name.startswith("-") and name not in COMMANDS:
        raise ValueError(f"Unknown command {name!r}.{did_you_mean(name, COMMANDS)} There are: {', '.join(COMMANDS)}.")
    own, later = list(argv) or ["--help"], list[str]()
    if name in WITH_FIELDS and len(own) > 1 and not own[1].startswith("-"):
        later = [one for one in own if one in ("-h", "--help")][:1]
        own = [one for one in own if one not in ("-h", "--help")]
    command, rest = tyro.cli(
        cast(Any, Command), prog="isthmus", description=DESCRIPTION, args=own, return_unknown_args=True
    )
    unnamed = getattr(command, "recipe", None) == EMPTY_PLACE
    if unnamed:
        command = replace(cast(Any, command), recipe=None)
    alone = not getattr(command, "shelf", False) and getattr(command, "resume", None) is None
    if rest and (name not in WITH_FIELDS or (unnamed and alone)):
        way = " Fields are those of a recipe: its name comes first." if unnamed else ""
        raise ValueError(
            f"`isthmus {name}` does not know {rest[0]!r}.{did_you_mean(rest[0], own_options(name))}{way} "
            f"See `isthmus {name} --help`."
        )
    return command, [*rest, *later]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 2 a mistake in what was asked, 130 interrupted.

    Set ISTHMUS_TRACEBACK=1 to see where in the library an error was raised.
    """
    try:
        command, rest = parse(sys.argv[1:] if argv is None else argv)
        from isthmus.cli.actions import act

        act(command, rest)
    except KeyboardInterrupt:
        print("\nStopped. A training goes on where it was last saved with --resume.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        if os.environ.get("ISTHMUS_TRACEBACK"):
            raise
        print(f"isthmus: {error}", file=sys.stderr)
        return MISTAKE
    return 0
