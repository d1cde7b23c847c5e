"""What can be typed after `isthmus`: one dataclass a command. Read by tyro, and light, so that help answers at once."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

RecipeName = Annotated[Positional[str], tyro.conf.arg(metavar="RECIPE")]
MaybeRecipeName = Annotated[Positional[str | None], tyro.conf.arg(metavar="RECIPE")]
StudyName = Annotated[Positional[str], tyro.conf.arg(metavar="STUDY")]
RunFolder = Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
File = Annotated[Positional[Path], tyro.conf.arg(metavar="FILE")]
Question = Annotated[Positional[str], tyro.conf.arg(metavar="QUESTION")]
BY_PLACE = (RecipeName, MaybeRecipeName, StudyName, RunFolder, File, Question)
"""What is given by its place, without the name of an option."""

Control = Literal["none", "mean-image", "shuffled", "text-only"]
AnswerForm = Literal["free", "short", "letter", "caption", "region", "box", "answerable"]


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train one stage of a recipe, or a chain of them. Any field can follow: --model.connector q-former --steps 500."""

    recipe: MaybeRecipeName = None
    """A recipe or chain of `isthmus list`; `isthmus train NAME --help` shows every field with its value."""
    out: Path | None = None
    """The run folder, or the folder of a chain's runs; by default the next number under runs/RECIPE, in the current
    directory or ISTHMUS_RUNS."""
    resume: Path | None = None
    """In place of a recipe: a run folder to go on with, to the same weights and log as an unbroken run."""
    start: Path | None = None
    """The run folder this stage starts from, in place of the newest finished run of the recipe it names."""
    shard: bool = False
    """Under torchrun: cut the language model's layers over the processes (FSDP2), in place of a copy in each."""
    pack: bool = False
    """Read the rows of a batch one after another in as few rows as hold them: little padding, the same losses."""
    tensorboard: bool = True
    """Write the curves as events into the run folder, for `tensorboard --logdir`, where tensorboard is installed."""


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Train every arm of a study and say which connector is better, by how much, and how sure that is."""

    study: StudyName
    """A study's name from `isthmus list`; `isthmus compare NAME --help` shows every field with its value."""
    out: Path | None = None
    """The study's folder, where finished trainings are not repeated; by default runs/studies/STUDY."""
    workers: int | None = None
    """Single-threaded trainings side by side; by default as many as there are cores."""
    connectors: tuple[str, ...] = ()
    """Names of connectors to compare in place of the study's arms, as mlp,perceiver or one by one; see isthmus list."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Ask a trained run the held-out questions of its tasks; save every prompt, answer and score."""

    run: RunFolder
    """A run folder, or a chain's: each of its runs is then asked what the chain says."""
    tasks: tuple[str, ...] = ()
    """Names of benchmarks; none means all of them but world/grounding, which is for models trained on boxes. A run
    without a language model is asked galleries and swaps; none means a gallery of its validation."""
    num: int = 200
    """Held-out questions for each family."""
    control: Control = "none"
    """What the model is shown in place of the image, to see what it answers blind."""
    blind: bool = False
    """Ask over the mean image too, and say how much seeing adds, with 95% bounds."""
    judge: int = 128
    """Without a language model: how many of the best of each search are judged again together, where ITM was learnt."""
    prompt: str = ""
    """How questions are put, as "Question: {} Short answer:"; by default as the run was trained."""
    num_beams: int = 1
    """Beams of the search for an answer; 1 is greedy."""
    length_penalty: float = 1.0
    """With beams: below 0 short answers are preferred, above 0 long ones."""
    batch_size: int = 32
    """Questions answered at a time."""
    max_tiles: int = 0
    """Cut pictures into up to so many tiles, in place of what the run was trained with (InternVL 1.5: 40 for 12)."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Ask a trained run one question about pictures, videos or sounds, and print the answer."""

    run: RunFolder
    """A run folder."""
    file: File
    """A file: a picture, a video or, for a run with an audio branch, a sound."""
    question: Question
    """The question. Files go in front of it, or each where <image>, <video> or <audio> stands for it."""
    also: tuple[Path, ...] = ()
    """Further files for the same question, after the first."""
    examples: Path | None = None
    """Conversations in LLaVA's format (JSON, with paths relative to it) that stand before the question: few-shot."""
    frames: str = ""
    """Of a video: uniform:8, fps:0.5, fps:0.5:16, keyframes:16; by default evenly spaced, as many as the run takes."""
    mosaic: int = 0
    """Put the frames of a video into one picture, so many side by side, for tiles to cut apart (DeepStack)."""
    max_tiles: int = 0
    """Cut pictures into up to so many tiles, in place of what the run was trained with (InternVL 1.5: 40 for 12)."""
    prompt: str = ""
    """How the question is put, as "Question: {} Short answer:"; by default as the run was trained."""
    max_new_tokens: int = 32
    """Longest answer, in tokens."""
    min_new_tokens: int = 0
    """Shortest answer, in tokens."""
    num_beams: int = 1
    """Beams of the search; 1 is greedy."""
    length_penalty: float = 1.0
    """With beams: below 0 short answers are preferred, above 0 long ones."""
    answer: AnswerForm = "free"
    """Ask for a form of answer, in LLaVA-1.5's words: short is a single word or phrase."""
    draw: Path | None = None
    """Save the picture here with the boxes of question and answer drawn on it, <box>(x1,y1),(x2,y2)</box>."""


@dataclass(frozen=True, kw_only=True)
class Chat:
    """Talk with a trained run in the terminal: pictures, videos and sounds by path, answers word by word, history."""

    run: RunFolder
    """A run folder."""
    image: tuple[Path, ...] = ()
    """Pictures for the first question; /image PATH attaches more at any time."""
    also: tuple[Path, ...] = ()
    """Further files for the first question: videos and sounds too."""
    examples: Path | None = None
    """Conversations in LLaVA's format (JSON, with paths relative to it) that stand before the chat: few-shot."""
    frames: str = ""
    """Of videos: uniform:8, fps:0.5, fps:0.5:16, keyframes:16; by default evenly spaced, as many as the run takes."""
    mosaic: int = 0
    """Put the frames of a video into one picture, so many side by side, for tiles to cut apart (DeepStack)."""
    max_tiles: int = 0
    """Cut pictures into up to so many tiles, in place of what the run was trained with (InternVL 1.5: 40 for 12)."""
    prompt: str = ""
    """How questions are put, as "Question: {} Short answer:"; by default as the run was trained."""
    max_new_tokens: int = 256
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0 is greedy; above it answers are drawn."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together have this probability."""
    seed: int = 0
    """Of the draws."""
    answer: AnswerForm = "free"
    """Ask every question for a form of answer, in LLaVA-1.5's words: short is a single word or phrase."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say whether a run learns: the signs beside what they should be, known failures by name, and what to do."""

    run: RunFolder
    """A run folder, finished, going on or broken off; or a chain's: each of its runs is then looked at."""
    num: int = 64
    """Held-out samples for one more look at the weights; 0 reads the log alone."""


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """Draw where each visual token of a picture was read: the attention of queries, or else the gradient."""

    run: RunFolder
    """A run folder."""
    file: File
    """A picture."""
    out: Path
    """The picture to write, such as atlas.png."""
    question: str = "What is in the picture?"
    """What a connector that reads the question reads."""
    num: int = 64
    """Tokens drawn, evenly chosen where there are more."""


@dataclass(frozen=True, kw_only=True)
class Curate:
    """Caption images with one model, rank the captions with another, and keep the best: CapFilt."""

    images: File
    """A folder of images, or JSON lines of {"image": ..., "text": ...}, whose texts compete with the new ones."""
    out: Path
    """The folder to write; a curation that was stopped goes on there."""
    captioner: str
    """A run folder with a language model, or a folder or hub id of a captioner in the format of transformers."""
    ranker: str
    """A first-stage run folder, a folder or hub id of a dual encoder such as CLIP, or a run with a language model."""
    root: Path | None = None
    """What the image paths of JSON lines are relative to; by default the file's own folder."""
    prompt: str = ""
    """What the captioner is asked beside the image."""
    candidates: int = 5
    """Captions drawn for each image."""
    keep: int = 1
    """Captions kept of each image, at most."""
    least: float | None = None
    """The score below which nothing is kept."""
    max_new_tokens: int = 32
    """Longest caption, in tokens."""
    top_p: float = 0.9
    """Draw from the likeliest tokens that make up this share."""
    temperature: float = 1.0
    """Of the draw; lower is tamer."""
    shard: int = 256
    """Images in a file of results; what a stop can lose."""
    seed: int = 0
    """Of the draws."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Tokens, parameters, FLOPs, KV bytes and training memory of a model, before any weight is loaded."""

    recipe: MaybeRecipeName = None
    """A name from `isthmus list`, a run folder, a model folder or a hub id; any field of the stage can follow, as for
    `train`: --model.encoder.tiles dynamic. With --shelf it may be left out."""
    image: tuple[str, ...] = ()
    """Sizes of the picture in pixels, as 1344x896; by default a square of the encoder's own size."""
    images: int = 1
    """Pictures in the prompt, all of that size."""
    frames: tuple[int, ...] = ()
    """Videos in the prompt, by their frames: 8 is one of 8 frames, 8 4 are two."""
    sounds: int = 0
    """Sounds in the prompt, as long as the model hears."""
    text_tokens: int = 64
    """Length of the prompt's text, in tokens."""
    formulas: bool = False
    """Print the formula behind every number."""
    shelf: bool = False
    """Print every connector side by side, between this encoder and this language model."""
    fit: str | None = None
    """Memory of one device, as 24GiB: print which micro-batch, precision and checkpointing fit."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """Print samples of a recipe as the model reads them, with supervised tokens marked; refuse empty label masks."""

    recipe: RecipeName
    """A name from `isthmus list`; any field of the stage can follow, as for `train`."""
    num: int = 3
    """Samples to print from each source."""
    scan: int = 100
    """Samples to check from each source, the printed ones among them."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """Make a run of a checkpoint of others: a native folder of transformers, or published connector weights."""

    path: File
    """A folder in the format of transformers, or weights that a repository published (safetensors, .bin, .pth)."""
    to: Path
    """The run folder to write."""
    recipe: str | None = None
    """For connector weights: the recipe whose model they fit; any field of its stage can follow, as for `train`."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run as a native folder of transformers, if the class says on real images what the run says."""

    run: RunFolder
    """A run folder."""
    to: str
    """llava, vipllava (for a tower with its last norm), llava-next, blip2, instructblip, internvl or idefics2."""
    out: Path
    """The folder to write."""
    images: tuple[Path, ...] = ()
    """Pictures to compare on; none means six that come with the package."""
    which: Literal["last", "best"] = "last"
    """The run's last weights, or those of its best validation."""


@dataclass(frozen=True, kw_only=True)
class List:
    """Everything that has a name: recipes, studies, connectors, encoders, language models, prompts, data, tasks."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """Print a recipe's resolved stage, each value with where it comes from."""

    recipe: RecipeName
    """A name from `isthmus list`; any field of the stage can follow, as for `train`."""
    json: bool = False
    """Print the stage as the JSON that a run folder holds."""


COMMANDS: dict[str, type] = {
    "train": Train,
    "compare": Compare,
    "evaluate": Evaluate,
    "ask": Ask,
    "chat": Chat,
    "doctor": Doctor,
    "atlas": Atlas,
    "curate": Curate,
    "cost": Cost,
    "check": Check,
    "import": Import,
    "export": Export,
    "list": List,
    "show": Show,
}


def own_options(name: str) -> list[str]:
    """The options of a command itself, as typed; fields of a recipe are not among them."""
    return [f"--{one.name.replace('_', '-')}" for one in fields(COMMANDS[name]) if one.type not in BY_PLACE]


Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Ask, tyro.conf.subcommand("ask")]
    | Annotated[Chat, tyro.conf.subcommand("chat")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Atlas, tyro.conf.subcommand("atlas")]
    | Annotated[Curate, tyro.conf.subcommand("curate")]
    | Annotated[Cost, tyro.conf.subcommand("cost")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Show, tyro.conf.subcommand("show")]
)
