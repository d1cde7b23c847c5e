"""The chat command: a run's model and a terminal around it."""

import contextlib
import sys

from isthmus.app.conversation import Conversation
from isthmus.app.files import Videos, frames_of, kind_of, read_examples
from isthmus.app.terminal import HELP, Terminal, attach_file
from isthmus.cli.asking import asked_model
from isthmus.cli.commands import Chat
from isthmus.data.question_forms import put_as, refuse_dropped
from isthmus.llms import Generation
from isthmus.runs import Run


def talk(command: Chat) -> None:
    """Talk with a run until /quit or the end of input.

    Raises:
        ValueError: no run, a stage without a language model, one that would read no question, a file that cannot be
            read, frames that are no choice, a temperature below 0, or tiles that the run does not take.
    """
    run = Run(command.run)
    if run.model_config.llm is None:
        raise ValueError(f"{command.run} was trained without a language model (llm=None), so it says nothing.")
    style = put_as(run.model_config.prompt, command.prompt) if command.prompt else run.model_config.prompt
    refuse_dropped(style, command.run, f"ask for a caption alone: isthmus ask {command.run} PICTURE ''")
    if command.temperature < 0.0:
        raise ValueError(f"--temperature {command.temperature}: give 0 for greedy answers, or more for drawn ones.")
    options = Generation(
        max_new_tokens=command.max_new_tokens,
        do_sample=command.temperature > 0.0,
        temperature=command.temperature if command.temperature > 0.0 else 1.0,
        top_p=command.top_p,
    )
    videos = Videos(frames=command.frames, mosaic=command.mosaic)
    frames_of(videos, run.model_config)
    kinds = [kind_of(path) for path in command.also]
    examples = [] if command.examples is None else read_examples(command.examples, run.model_config, videos)
    model = asked_model(run, style, command.max_tiles)
    conversation = Conversation(model, options, examples=examples, seed=command.seed)
    for path in command.image:
        attach_file(conversation, "image", path)
    for path, kind in zip(command.also, kinds, strict=True):
        attach_file(conversation, kind, path, videos)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (line editing at the prompt)
    terminal = Terminal(conversation, input, _write, form=command.answer, videos=videos)
    if sys.stdin.isatty():
        _write(f"{run.name} ({command.run})\n{HELP}\n")
    terminal.run()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
