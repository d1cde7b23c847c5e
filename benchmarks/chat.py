"""How much sooner a second question on a picture is answered than the first, with what a conversation keeps.

The bundled eye at 192 px gives 576 patches, which an MLP turns into 576 visual tokens before the bundled speaker. Only
times are measured, so the connector is fresh. The picture's file is read anew by each conversation, and the first
question's time holds reading, encoding, connecting and reading 576 visual tokens.

    python -m benchmarks.chat --repeats 9
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from isthmus.app.conversation import Conversation
from isthmus.connectors import MlpConfig
from isthmus.data.images import FileImage
from isthmus.encoders import VisionEncoder
from isthmus.llms import CausalLM, Generation
from isthmus.model import Model, VisionLanguageModel

FIRST, SECOND = "What is in the picture?", "What colour is the circle on the left?"
SHORT = Generation(max_new_tokens=8)


def build() -> VisionLanguageModel:
    """The bundled backbones, 576 visual tokens a picture."""
    torch.manual_seed(0)
    config = Model(
        encoder=VisionEncoder(name="bundled/eye", image_size=192),
        connector=MlpConfig(depth=2),
        llm=CausalLM(name="bundled/speaker", max_tokens=1024),
    )
    return VisionLanguageModel(config).eval()


def first_token_s(chat: Conversation, words: str) -> tuple[float, str]:
    """Seconds from the question to the first piece of its answer, and the whole answer."""
    start = time.perf_counter()
    pieces = chat.ask(words)
    said = next(pieces, "")
    spent = time.perf_counter() - start
    return spent, said + "".join(pieces)


def measure(model: VisionLanguageModel, picture: Path, *, keep: bool) -> tuple[float, float, list[str]]:
    """First and second question of a fresh conversation: seconds to the first token of each, and the answers."""
    chat = Conversation(model, SHORT, keep=keep)
    chat.attach("image", FileImage(root=str(picture.parent), path=picture.name))
    first, said = first_token_s(chat, FIRST)
    second, again = first_token_s(chat, SECOND)
    assert chat.num_visual_tokens == 576
    return first, second, [said, again]


def main() -> None:
    """Print the medians, their ratio, and whether the answers are the same without anything kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    model = build()
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.linear_gradient("L").convert("RGB").resize((640, 480)).save(picture)
        measure(model, picture, keep=True)
        kept = [measure(model, picture, keep=True) for _ in range(repeats)]
        bare = [measure(model, picture, keep=False) for _ in range(max(1, repeats // 3))]
    first, second = statistics.median(one[0] for one in kept), statistics.median(one[1] for one in kept)
    again = statistics.median(one[1] for one in bare)
    ratios = sorted(one[0] / one[1] for one in kept)
    print(f"first question: {1000 * first:.1f} ms to its first token; second: {1000 * second:.1f} ms")
    print(f"ratio: {first / second:.1f} (single conversations {ratios[0]:.1f} to {ratios[-1]:.1f}, {repeats} of them)")
    print(f"second question with nothing kept: {1000 * again:.1f} ms")
    print(f"same answers with nothing kept: {all(one[2] == kept[0][2] for one in (*kept, *bare))}")
    print(f"threads: {torch.get_num_threads()}")


if __name__ == "__main__":
    main()
