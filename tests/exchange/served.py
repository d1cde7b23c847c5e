"""A folder behind `transformers serve`, and one question about one picture over HTTP in the OpenAI form."""

import base64
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of this folder, up to ten minutes after its start: a busy machine is slow."""
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
    until = time.monotonic() + 600
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return address
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text(errors="replace")[-2000:])


def asked(address: str, folder: Path, picture: Path, question: str, *, max_tokens: int) -> str:
    """What the server of this folder answers."""
    url = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    talk = [{"role": "user", "content": content}]
    body = {"model": str(folder), "messages": talk, "max_tokens": max_tokens, "stream": False}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        said: str = json.loads(answer.read())["choices"][0]["message"]["content"]
    return said
