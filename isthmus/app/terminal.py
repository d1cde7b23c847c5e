"""The chat in a terminal: words are asked, lines that begin with a slash are commands."""

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from isthmus.app.conversation import Conversation
from isthmus.app.files import SAID, SINGLY, Videos, file_input, kind_of
from isthmus.config import did_you_mean
from isthmus.data.response_formats import ResponseFormat, formatted
from isthmus.features import BranchName

HELP = """/image PATH   attach a picture to the next question; several are allowed
/video PATH   attach a video
/audio PATH   attach a sound
/drop         leave out what is attached and was not asked about yet
/history      the conversation so far
/clear        forget it, pictures included, but for the examples it began with
/help         this list
/quit         leave (so does the end of input)
Anything else is asked, with what is attached in front, or each where <image>, <video> or <audio> stands for it.
Ctrl-C ends an answer early."""
PROMPT = "> "

Read = Callable[[str], str]
Write = Callable[[str], None]
"""Writes a piece of text; line ends are in it."""


class Terminal:
    """Reads lines and writes answers until the end of input or /quit."""

    def __init__(
        self,
        conversation: Conversation,
        read: Read,
        write: Write,
        *,
        form: ResponseFormat | Literal["free"] = "free",
        videos: Videos = SINGLY,
    ) -> None:
        self.conversation, self.read, self.write = conversation, read, write
        self.form, self.videos = form, videos
        self.commands: dict[str, Callable[[str], None]] = {
            "/image": partial(self.attach, "image"),
            "/video": partial(self.attach, "video"),
            "/audio": partial(self.attach, "audio"),
            "/drop": self.drop,
            "/history": self.history,
            "/clear": self.clear,
            "/help": lambda _: self.write(f"{HELP}\n"),
        }

    def run(self) -> None:
        """Until the end of input or /quit; a mistake is said and the conversation goes on."""
        while True:
            try:
                line = self.read(PROMPT).strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                self.write("\n(/quit leaves)\n")
                continue
            if line.split()[:1] in (["/quit"], ["/exit"]):
                return
            if not line:
                continue
            try:
                self.take(line)
            except KeyboardInterrupt:
                self.write("\n(ended early)\n")
            except (ValueError, OSError) as error:
                self.write(f"{error}\n")

    def take(self, line: str) -> None:
        """One line: a command, or a question.

        Raises:
            ValueError: an unknown command, a picture that cannot be read, or a conversation that is too long.
        """
        if not line.startswith("/"):
            self.answer(line)
            return
        name, _, rest = line.partition(" ")
        if name not in self.commands:
            known = (*self.commands, "/quit")
            raise ValueError(f"Unknown command {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}.")
        self.commands[name](rest.strip())

    def answer(self, words: str) -> None:
        """Ask, and write the answer as it comes."""
        pieces = self.conversation.ask(words if self.form == "free" else formatted(words, self.form))
        try:
            for piece in pieces:
                self.write(piece)
        except ValueError as error:
            if not self.conversation.attached:
                raise
            raise ValueError(
                f"{error} What is attached stays so until it is asked about; /drop leaves it out."
            ) from None
        finally:
            pieces.close()
        self.write("\n")

    def attach(self, kind: BranchName, path: str) -> None:
        """Attach a file by its path, quoted where it holds spaces.

        Raises:
            ValueError: no such file, or one that cannot be read as that kind; what it is, where that is known.
        """
        file = Path(unquoted(path)).expanduser()
        try:
            attach_file(self.conversation, kind, file, self.videos)
        except ValueError as error:
            found = _kind(file)
            if found is None or found == kind:
                raise
            raise ValueError(f"{error} The file is {SAID[found]}: /{found} {path} attaches it.") from error
        waiting = len(self.conversation.attached)
        self.write(f"({waiting} {'file goes' if waiting == 1 else 'files go'} with the next question)\n")

    def drop(self, _: str) -> None:
        """Forget what is attached to the next question."""
        self.conversation.attached.clear()
        self.write("(nothing goes with the next question)\n")

    def history(self, _: str) -> None:
        """Write the turns so far."""
        for turn in self.conversation.turns:
            self.write(f"{'you' if turn.role == 'user' else 'model'}: {' '.join(turn.text.split())}\n")
        self.write(f"(attached: {len(self.conversation.inputs)}, tokens: {self.conversation.num_visual_tokens})\n")

    def clear(self, _: str) -> None:
        """Forget everything."""
        self.conversation.clear()
        self.write("(forgotten)\n")


def attach_file(conversation: Conversation, kind: BranchName, path: Path, videos: Videos = SINGLY) -> None:
    """Put a file before the next question, shown as `videos` says where it is one.

    Raises:
        ValueError: no such file, or none that can be read as what it should be.
    """
    conversation.attached.append(file_input(path.expanduser(), kind, conversation.model.config, videos))


def _kind(path: Path) -> BranchName | None:
    """What the file holds, None where that cannot be told."""
    try:
        return kind_of(path)
    except ValueError:
        return None


def unquoted(path: str) -> str:
    """A path as typed, without quotes around it or backslashes before its spaces.

    Raises:
        ValueError: no path.
    """
    try:
        parts = shlex.split(path)
    except ValueError:
        parts = [path]
    if not parts:
        raise ValueError("Name the file, as in /image PATH.")
    return parts[0] if len(parts) == 1 else path
