"""What the look at every sample's length before the first step takes, in CPU time of one core.

python -m benchmarks.lengths
"""

import json
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from isthmus.data.mixture import Mixture
from isthmus.data.prompts import ChatTemplate, PromptStyle, Vicuna
from isthmus.data.sources import LlavaFile, Source
from isthmus.encoders import VisionEncoder
from isthmus.llms import CausalLM
from isthmus.model import Model
from isthmus.train.lengths import Fits, unfit

NUM = 20_000
TEMPLATE = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
WORDS = ("what", "is", "the", "colour", "of", "this", "large", "circle", "beside", "two", "small", "green", "squares")


def conversation(draw: random.Random, number: int) -> dict[str, Any]:
    """One to eight exchanges about a picture that is not there: 5 to 30 words asked, 2 to 150 answered."""
    turns = []
    for place in range(draw.randint(1, 8)):
        asked = " ".join(draw.choices(WORDS, k=draw.randint(5, 30)))
        turns.append({"from": "human", "value": asked if place else f"<image>\n{asked}"})
        turns.append({"from": "gpt", "value": " ".join(draw.choices(WORDS, k=draw.choice((2, 10, 40, 150))))})
    return {"id": str(number), "image": f"{number}.jpg", "conversations": turns}


def main() -> None:
    """Print, for two styles of prompt, the CPU time of reading the samples and of reading and counting them."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "conversations.json"
        path.write_text(json.dumps([conversation(draw, number) for number in range(NUM)]))
        sources = (Source(of=LlavaFile(path=str(path), root=folder)),)
        mixture = Mixture(sources, seed=0, accept=lambda sample: None)
        began = time.process_time()
        dataset = sources[0].of.build()
        assert all(dataset[number].turns for number in range(NUM))
        print(f"read: {time.process_time() - began:.1f} s for {NUM:,} conversations")
        plain = Model(encoder=VisionEncoder(), llm=CausalLM(name="bundled/speaker", max_tokens=1_536))
        assert plain.llm is not None
        tokenizer = plain.llm.tokenizer()
        tokenizer.chat_template = TEMPLATE
        styles: tuple[PromptStyle, ...] = (Vicuna(), ChatTemplate())
        for style in styles:
            fits = Fits(replace(plain, prompt=style), tokenizer)
            began = time.process_time()
            assert unfit([(sources, mixture, range(NUM))], fits, lambda done, total: None) == []
            print(f"{type(style).__name__}: {time.process_time() - began:.1f} s for {NUM:,} conversations")


if __name__ == "__main__":
    main()
