"""Who writes captions: a run of ours, or any captioner in the format of `transformers`."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from isthmus.curate.seeing import asked, device_of, repeated, see
from isthmus.data.sample import ImageRef
from isthmus.llms import Generation
from isthmus.runs import Run
from isthmus.weights import quiet_transformers, resolve_model


@runtime_checkable
class Captioner(Protocol):
    """Draws captions. `name` says who it is, for the provenance of every line."""

    name: str

    def caption(self, images: Sequence[ImageRef], num: int) -> list[list[str]]:
        """`num` captions of each image, drawn from torch's random state. Raises ValueError for a broken image."""
        ...


class RunCaptioner:
    """A run with a language model, asked `prompt` beside the image."""

    def __init__(self, run: Run, generation: Generation, *, prompt: str = "", device: str = "cpu") -> None:
        if run.model_config.llm is None:
            raise ValueError(f"{run.folder} has no language model to write captions. Use it as the ranker.")
        self.name = f"{run.name} {run.stage_json['model_fingerprint']} ({run.folder.name})"
        self.model = run.load_model(device)
        self.generation, self.prompt = generation, prompt

    def caption(self, images: Sequence[ImageRef], num: int) -> list[list[str]]:
        """All captions of all images in one batch; each image is encoded once."""
        owners = [row for row in range(len(images)) for _ in range(num)]
        features, plans = repeated(*see(self.model, images), owners)
        batch = self.model.config.batch(
            [asked(images[owner], self.prompt) for owner in owners],
            tokenizer=self.model.tokenizer,
            plans=plans,
            features=features,
            for_generation=True,
        )
        written = self.model.generate(batch.to(device_of(self.model)), self.generation)
        return [written[first : first + num] for first in range(0, len(owners), num)]


class FolderCaptioner:
    """An image-text model of `transformers` (BLIP, BLIP-2, LLaVA, ...), by folder or hub id, one image at a time."""

    def __init__(self, name: str, generation: Generation, *, prompt: str = "", device: str = "cpu") -> None:
        self.name, self.generation, self.prompt = name, generation, prompt
        path = resolve_model(name)
        with quiet_transformers():
            self.processor: Any = AutoProcessor.from_pretrained(path, trust_remote_code=False)
            model = AutoModelForImageTextToText.from_pretrained(path, use_safetensors=True, trust_remote_code=False)
        self.model = model.to(device).eval()

    def caption(self, images: Sequence[ImageRef], num: int) -> list[list[str]]:
        """Captions of one image after another."""
        return [self._one(image, num) for image in images]

    @torch.no_grad()
    def _one(self, image: ImageRef, num: int) -> list[str]:
        given: dict[str, Any] = {"images": image.load(), "return_tensors": "pt"}
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": self.prompt}]
            turns = [{"role": "user", "content": content}]
            given["text"] = self.processor.apply_chat_template(turns, add_generation_prompt=True)
        elif self.prompt:
            given["text"] = self.prompt
        inputs = self.processor(**given).to(device_of(self.model))
        written = self.model.generate(**inputs, **self.generation.settings(), num_return_sequences=num)
        prompt = inputs.get("input_ids")
        if prompt is not None and torch.equal(written[:, : prompt.shape[1]], prompt.expand(num, -1)):
            written = written[:, prompt.shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(written, skip_special_tokens=True)]
