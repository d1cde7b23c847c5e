"""An exported folder answers over HTTP in the OpenAI form, through `transformers serve` and no code of ours."""

import base64
import io
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_natives as tiny
from PIL import Image

from isthmus.data.images import FileImage
from isthmus.data.prompts import Bounded, QuestionAnswer, Vicuna
from isthmus.data.sample import Sample, Turn
from isthmus.exchange import export, import_native
from isthmus.llms import Generation

pytest.importorskip("fastapi", reason="transformers[serving] is not installed")

CASES: dict[str, tuple[str, Any, Any]] = {
    "llava": ("LlavaForConditionalGeneration", tiny.llava(tiny.clip(), tiny.llama()), Vicuna(system="Answer.")),
    "llava-next": ("LlavaNextForConditionalGeneration", tiny.llava_next(), Vicuna(system="Answer.")),
    "idefics2": (
        "Idefics2ForConditionalGeneration",
        tiny.idefics2(),
        Bounded(style=QuestionAnswer(), before="<unk>", after="<unk>"),
    ),
}
NEW_TOKENS = 6


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of this folder, up to three minutes after its start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).parent / "transformers"
    command = [str(program), "serve", str(folder), "--port", str(port), "--host", "127.0.0.1", "--device", "cpu"]
    log = folder.parent / "serve.log"
    with log.open("wb") as written, subprocess.Popen(command, stdout=written, stderr=written) as process:
        try:
            yield _awaited(f"http://127.0.0.1:{port}", process, log)
        finally:
            process.terminate()


def _awaited(address: str, process: "subprocess.Popen[bytes]", log: Path) -> str:
    for _ in range(180):
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return address
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text(errors="replace")[-2000:])


@pytest.mark.long
@pytest.mark.parametrize("to", list(CASES))
def test_a_served_export_says_what_the_run_says(to: str, tmp_path: Path) -> None:
    name, config, prompt = CASES[to]
    values = np.random.default_rng(4).integers(0, 255, (30, 44, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = FileImage(root=str(tmp_path), path="a.png")
    tiny.make(name, config, tmp_path / "native")
    run = import_native(tmp_path / "native", tmp_path / "run", prompt=prompt).run
    export(run, to, tmp_path / "out", images=[image])
    sample = Sample(id="a", turns=(Turn(role="user", text="<image>\nWhat is it?"),), images=(image,))
    mine = run.load_model().answer([sample], Generation(max_new_tokens=NEW_TOKENS))[0]
    content = io.BytesIO((tmp_path / "a.png").read_bytes())
    url = "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
    talk = [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}],
        }
    ]
    body = {"model": str(tmp_path / "out"), "messages": talk, "max_tokens": NEW_TOKENS, "stream": False}
    with served(tmp_path / "out") as address:
        request = urllib.request.Request(
            f"{address}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            said = json.loads(answer.read())["choices"][0]["message"]["content"]
    assert said.strip() == mine
    assert mine
