"""A conversation keeps what it saw and read, and says the same as a model that keeps nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_ears import save_ear
from tiny_models import VOCABULARY, byte_tokenizer, save_byte_reader, save_model
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from isthmus.app.conversation import Conversation
from isthmus.app.terminal import Terminal, attach_file
from isthmus.branches import Branch
from isthmus.connectors import (
    GatedCrossAttentionConfig,
    InstructQFormerConfig,
    MlpConfig,
    PerceiverConfig,
    QFormerConfig,
    VideoQFormerConfig,
)
from isthmus.connectors.arrange import DeepStack
from isthmus.connectors.base import QuestionTurn
from isthmus.data.frames import UniformFrames
from isthmus.data.images import FileImage
from isthmus.data.interleave import few_shot
from isthmus.data.prompts import ChatTemplate, Plain, Vicuna
from isthmus.data.sample import Sample, Turn
from isthmus.data.sound import FileSound
from isthmus.data.video import FileVideo
from isthmus.encoders import AudioEncoder, VideoEncoder, VisionEncoder
from isthmus.encoders.tiles.anyres import AnyresTiles
from isthmus.features import Text
from isthmus.llms import CausalLM, EncoderDecoderLM, Generation
from isthmus.llms.causal import CausalLanguageModel
from isthmus.model import Model, VisionLanguageModel
from isthmus.weights import quiet_transformers

MEDIA = Path(__file__).parent.parent / "data" / "media"
SHORT = Generation(max_new_tokens=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chat")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with quiet_transformers():
        CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(root / "tower")
    CLIPImageProcessor().save_pretrained(root / "tower")
    for name, colour in (("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (40, 30), colour).save(root / name)
    return root


def tower(root: Path) -> VisionEncoder:
    return VisionEncoder(name=str(root / "tower"), image_size=32)


def config(root: Path, family: str = "llama") -> Model:
    kind = EncoderDecoderLM if family == "t5" else CausalLM
    return Model(encoder=tower(root), connector=MlpConfig(), llm=kind(name=save_model(family, root), max_tokens=128))


def build(chosen: Model) -> VisionLanguageModel:
    torch.manual_seed(3)
    return VisionLanguageModel(chosen).eval()


def picture(root: Path, name: str) -> FileImage:
    return FileImage(root=str(root), path=name)


class Counted:
    """Counts the views that the encoder sees, and the positions that the language model reads."""

    def __init__(self, model: VisionLanguageModel) -> None:
        self.views = self.positions = 0
        assert model.encoder is not None
        model.encoder.register_forward_hook(self._see)
        model.llm.model.register_forward_pre_hook(self._read, with_kwargs=True)

    def _see(self, module: Any, args: Any, output: Any) -> None:
        self.views += len(args[0])

    def _read(self, module: Any, args: Any, kwargs: Any) -> None:
        self.positions += kwargs["inputs_embeds"].shape[1]


def talk(root: Path, model: VisionLanguageModel, *, keep: bool) -> list[str]:
    chat = Conversation(model, SHORT, keep=keep)
    chat.attach("image", picture(root, "red.png"))
    said = [chat.say("a?"), chat.say("b?")]
    chat.attach("image", picture(root, "blue.png"))
    return [*said, chat.say("c?")]


GATED = GatedCrossAttentionConfig(
    resampler=PerceiverConfig(num_latents=3, layers=1, heads=2, head_width=8, project=False), heads=2, head_width=8
)
QUERIES = QFormerConfig(num_queries=4, width=16, layers=2, heads=2, ffn_width=24)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"prompt": Vicuna(system="")}),
        ("llama", {"placement": "before-bos", "connector": QUERIES}),
        ("llama", {"arrange": DeepStack(groups=2, start_layer=0), "encoder": "tiles"}),
        ("gpt2", {"connector": GATED}),
        ("opt", {}),
        ("gpt2", {"prompt": Plain()}),
        ("gemma2", {}),
        ("t5", {}),
    ],
    ids=lambda one: one if isinstance(one, str) else " ".join(one),
)
def test_answers_equal_those_of_a_model_that_keeps_nothing(family: str, changes: dict[str, Any], root: Path) -> None:
    chosen = config(root, family)
    if "encoder" in changes:
        tiles = AnyresTiles(grids=((1, 2), (2, 1)), pad=False)
        changes = {**changes, "encoder": replace(tower(root), tiles=tiles)}
    model = build(replace(chosen, **changes))
    for name, weight in model.connector.named_parameters():
        if name.endswith("gate"):  # closed at first
            torch.nn.init.constant_(weight, 1.5)
    kept = talk(root, model, keep=True)
    assert kept == talk(root, model, keep=False)
    chat = Conversation(model, SHORT)
    chat.attach("image", picture(root, "red.png"))
    said = chat.say("a?")
    sample = chat.sample()
    assert said == kept[0] == model.answer([replace(sample, turns=sample.turns[:1])], SHORT)[0]


def question_reader(root: Path, reads: QuestionTurn) -> InstructQFormerConfig:
    text = {"text": True, "text_model": save_byte_reader(root), "vocabulary": VOCABULARY + 3, "positions": 32}
    return InstructQFormerConfig(qformer=replace(QUERIES, **text), reads=reads, max_text_tokens=32)


@pytest.mark.parametrize(("reads", "read"), [("last-question", ["a?", "what?"]), ("first-question", ["a?"])])
def test_a_connector_looks_again_where_it_reads_another_question(
    reads: QuestionTurn, read: list[str], root: Path
) -> None:
    model = build(replace(config(root), connector=question_reader(root, reads)))
    for weight in model.connector.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    looked: list[Text] = []
    views: list[int] = []
    assert model.encoder is not None
    model.encoder.register_forward_hook(lambda module, args, output: views.append(len(args[0])))
    model.connector.register_forward_pre_hook(lambda module, args: looked.append(args[1]))
    chat = Conversation(model, SHORT)
    chat.attach("image", picture(root, "red.png"))
    said = [chat.say("a?"), chat.say("what?")]
    tokenizer = model.config.connector.tokenizer()
    assert [tokenizer.decode(text.ids[0][1:-1]) for text in looked] == read
    assert views == [1]
    asked = chat.sample().turns
    for turns, answer in ((asked[:1], said[0]), (asked[:3], said[1])):
        assert answer == model.answer([replace(chat.sample(), turns=turns)], SHORT)[0]
    forgetful = Conversation(model, SHORT, keep=False)
    forgetful.attach("image", picture(root, "red.png"))
    assert [forgetful.say("a?"), forgetful.say("what?")] == said


def test_a_second_question_reads_its_own_words_alone(root: Path) -> None:
    model = build(config(root))
    counted = Counted(model)
    chat = Conversation(model, SHORT)
    chat.attach("image", picture(root, "red.png"))
    said = chat.say("a?")
    assert counted.views == 1
    first = counted.positions
    assert first > 16
    chat.say("b?")
    assert counted.views == 1
    read = len(f" {said}$Question: b? Answer:".encode())
    assert counted.positions - first <= read + SHORT.max_new_tokens
    assert chat.num_visual_tokens == 16


def test_streams_in_pieces_and_keeps_what_was_said(root: Path) -> None:
    chat = Conversation(build(config(root)), Generation(max_new_tokens=8))
    pieces = list(chat.ask("why?"))
    assert [turn.text for turn in chat.turns] == ["why?", "".join(pieces)]
    chat.clear()
    assert chat.turns == []
    assert "".join(chat.ask("why?")) == "".join(pieces)


def test_what_is_too_long_leaves_the_conversation_as_it_was(root: Path) -> None:
    chat = Conversation(build(config(root)), SHORT)
    chat.attach("image", picture(root, "red.png"))
    with pytest.raises(ValueError, match="max_tokens=128"):
        chat.say("x" * 200)
    assert chat.turns == []
    assert len(chat.attached) == 1
    with pytest.raises(ValueError, match=r"holds <image> <image>, and the files are <image>\. Write one mark"):
        chat.say("<image> or <image>?")
    with pytest.raises(ValueError, match="one beam"):
        Conversation(chat.model, Generation(num_beams=2))


def test_attached_pictures_stand_where_their_marks_do(root: Path) -> None:
    chat = Conversation(build(config(root)), SHORT)
    for name in ("red.png", "blue.png"):
        chat.attach("image", picture(root, name))
    said = chat.say("is <image> like <image>?")
    assert chat.turns[0].text == "is <image> like <image>?"
    assert said == chat.model.answer([replace(chat.sample(), turns=tuple(chat.turns[:1]))], SHORT)[0]
    with pytest.raises(ValueError, match=r"holds <image>, and no file came with it"):
        chat.say("and <image>?")


def test_examples_stand_before_the_chat_and_stay(root: Path) -> None:
    model = build(config(root))
    turns = (Turn(role="user", text="<image>\na?"), Turn(role="assistant", text="b"))
    example = Sample(id="0", turns=turns, images=(picture(root, "red.png"),))
    chat = Conversation(model, SHORT, examples=[example])
    chat.attach("image", picture(root, "blue.png"))
    said = chat.say("a?")
    asked = Sample(id="1", turns=turns[:1], images=(picture(root, "blue.png"),))
    assert said == model.answer([few_shot([example], asked)], SHORT)[0]
    assert chat.num_visual_tokens == 2 * 16
    chat.clear()
    assert tuple(chat.turns) == turns
    chat.attach("image", picture(root, "blue.png"))
    assert chat.say("a?") == said
    with pytest.raises(ValueError, match="'1' ends without an answer"):
        Conversation(model, SHORT, examples=[asked])


def test_sampling_repeats_by_its_seed(root: Path) -> None:
    model = build(config(root))
    options = Generation(max_new_tokens=6, do_sample=True, temperature=2.0, top_p=0.9, repetition_penalty=1.2)
    drawn = [Conversation(model, options, seed=seed).say("a?") for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_penalties_equal_those_of_generate(root: Path) -> None:
    model = build(config(root))
    options = Generation(max_new_tokens=6, repetition_penalty=1.5)
    chat = Conversation(model, options)
    said = chat.say("aaa?")
    assert said == model.answer([replace(chat.sample(), turns=tuple(chat.turns[:1]))], options)[0]


def test_a_chat_template_of_the_tokenizer(root: Path) -> None:
    template = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    template += "{% if add_generation_prompt %}<s>assistant: {% endif %}"
    model = build(replace(config(root), prompt=ChatTemplate()))
    model.llm.tokenizer = byte_tokenizer(template=template)
    assert isinstance(model.llm, CausalLanguageModel)
    assert talk(root, model, keep=True) == talk(root, model, keep=False)


def run(model: VisionLanguageModel, *lines: str) -> str:
    """What a terminal writes for these lines."""
    waiting = list(lines)
    written: list[str] = []

    def read(prompt: str) -> str:
        if not waiting:
            raise EOFError
        return waiting.pop(0)

    Terminal(Conversation(model, SHORT), read, written.append).run()
    return "".join(written)


def test_the_terminal(root: Path) -> None:
    model = build(config(root))
    written = run(
        model, "", "/help", f"/image {root / 'red.png'}", "what?", "/history", "/clear", "/history", "/quit", "never"
    )
    assert "(1 file goes with the next question)" in written
    assert "you: <image> what?" in written
    assert "(attached: 1, tokens: 16)" in written
    assert "(forgotten)" in written
    assert "(attached: 0, tokens: 0)" in written
    assert "never" not in written


def test_the_terminal_stays_after_ctrl_c_at_the_prompt_and_leaves_by_quit(root: Path) -> None:
    model = build(config(root))
    waiting = [KeyboardInterrupt(), "what?", "/quit now", "never"]
    written: list[str] = []

    def read(prompt: str) -> str:
        line = waiting.pop(0)
        if isinstance(line, KeyboardInterrupt):
            raise line
        return str(line)

    terminal = Terminal(Conversation(model, SHORT), read, written.append)
    terminal.run()
    assert written[0] == "\n(/quit leaves)\n"
    assert [turn.text for turn in terminal.conversation.turns][:1] == ["what?"]
    assert waiting == ["never"]


def test_what_is_too_long_to_read_can_be_dropped(root: Path) -> None:
    movie = MEDIA / "classroom.mp4"
    written = run(build(config(root)), "what?", f"/video {movie}", "who?", "/drop", "who?", "/history")
    lines = written.splitlines()
    (refused,) = (line for line in lines if "/drop" in line)
    assert refused.startswith("Sample 'classroom.mp4' needs 130 tokens (128 of them visual) for its first exchange, ")
    assert refused.endswith(" What is attached stays so until it is asked about; /drop leaves it out.")
    assert "(nothing goes with the next question)" in lines
    assert [line for line in lines if line.startswith("you:")] == ["you: what?", "you: who?"]
    assert lines[-1] == "(attached: 0, tokens: 0)"


def test_a_file_of_another_kind_is_named(root: Path) -> None:
    red, movie = root / "red.png", MEDIA / "classroom.mp4"
    lines = run(build(config(root)), f"/image {movie}", f"/audio {red}", f"/video {red}").splitlines()
    assert lines[0].endswith(f"The file is a video: /video {movie} attaches it.")
    assert lines[1].startswith("'red.png' is given as a sound, and this model has no audio branch")
    assert all(line.endswith(f"The file is a picture: /image {red} attaches it.") for line in lines[1:])


def test_the_terminal_says_mistakes_and_goes_on(root: Path, tmp_path: Path) -> None:
    (tmp_path / "not a picture.png").write_text("words")
    written = run(
        build(config(root)), "/imag x", "/image", "/image nowhere.png", f"/image '{tmp_path}/not a picture.png'"
    )
    lines = written.splitlines()
    assert lines[0].startswith("Unknown command '/imag'. Did you mean '/image'?")
    assert lines[1] == "Name the file, as in /image PATH."
    assert lines[2].startswith("No file 'nowhere.png'.")
    assert "not a readable" in lines[3]


def test_clips_and_sounds_through_branches_of_their_own_are_kept(root: Path) -> None:
    save_ear("ast", root / "ear")
    ear = AudioEncoder(name=str(root / "ear"), window_s=0.2, max_windows=2, window_views=True, pool="mean")
    clips = Branch(encoder=VideoEncoder(tower=tower(root), max_frames=2), connector=VideoQFormerConfig(image=QUERIES))
    model = build(replace(config(root), video=clips, audio=Branch(encoder=ear, connector=MlpConfig())))
    looked: list[str] = []
    for name, parts in model.branches.items():
        parts.built_encoder().register_forward_hook(
            lambda module, args, output, name=name: looked.extend([name] * len(args[0]))
        )

    def said(keep: bool) -> list[Turn]:
        waiting = [f"/video {MEDIA / 'classroom.mp4'}", "a?", f"/audio {MEDIA / 'seven.wav'}"]
        waiting += [f"/image {root / 'red.png'}", "<audio> <image>?", "b?"]
        chat = Conversation(model, SHORT, keep=keep)
        Terminal(chat, lambda prompt: waiting.pop(0) if waiting else "/quit", lambda text: None).run()
        assert [kind for kind, _ in chat.inputs] == ["video", "audio", "image"]
        return chat.turns

    kept = said(True)
    assert looked == ["video", "audio", "audio"]
    assert kept == said(False)
    assert looked.count("video") == 1 + 3
    chat = Conversation(model, SHORT)
    attach_file(chat, "video", MEDIA / "classroom.mp4")
    first = chat.sample(kept[0])
    chat.turns, chat.inputs, chat.attached = kept[:2], chat.attached, []
    attach_file(chat, "audio", MEDIA / "seven.wav")
    attach_file(chat, "image", root / "red.png")
    assert model.answer([first, chat.sample(kept[2])], SHORT) == [kept[1].text, kept[3].text]


def test_a_video_is_kept_like_a_picture(root: Path) -> None:
    clip = FileVideo(root=str(MEDIA), path="classroom.mp4", frames=UniformFrames(num=2))
    model = build(config(root))
    counted = Counted(model)

    def talk(keep: bool) -> list[str]:
        chat = Conversation(model, Generation(max_new_tokens=2), keep=keep)
        chat.attach("video", clip)
        said = [chat.say("a?"), chat.say("b?")]
        assert chat.num_visual_tokens == 2 * 16
        return said

    assert talk(True) == talk(False)
    assert counted.views >= 2 + 2 * 2
    with pytest.raises(ValueError, match="no audio branch"):
        Conversation(model).attach("audio", FileSound(root=str(MEDIA), path="dog.ogg"))
