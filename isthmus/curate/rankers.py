"""Who judges captions: a dual encoder such as CLIP, a first-stage run, or a run with a language model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModel

from isthmus.curate.captioners import Captioner, FolderCaptioner, RunCaptioner
from isthmus.curate.seeing import asked, device_of, repeated, see
from isthmus.data.captions import captions_of, cleaned
from isthmus.data.sample import ImageRef
from isthmus.features import Captions, Text
from isthmus.llms import Generation
from isthmus.runs import STAGE_FILE, Run
from isthmus.weights import quiet_transformers, read_tokenizer, resolve_model

LEAST = float("-inf")
"""The score of a text that holds nothing to judge."""


@runtime_checkable
class Ranker(Protocol):
    """Scores texts of images; higher is better. `name` says who it is, `meaning` what a score is."""

    name: str
    meaning: str

    def scores(self, images: Sequence[ImageRef], texts: Sequence[str], owners: Sequence[int]) -> list[float]:
        """The score of text `i` for image `owners[i]`. Raises ValueError for a broken image."""
        ...


class DualEncoder:
    """CLIP, SigLIP and their kin, by folder or hub id: the cosine of image and text."""

    meaning = "cosine of image and text"

    def __init__(self, name: str, *, device: str = "cpu") -> None:
        self.name = name
        path = resolve_model(name)
        with quiet_transformers():
            self.model: Any = AutoModel.from_pretrained(path, use_safetensors=True, trust_remote_code=False)
            if not hasattr(self.model, "get_text_features") or not hasattr(self.model, "get_image_features"):
                raise ValueError(f"{name} is no dual encoder of images and texts: it has no text features.")
            self.tokenizer: Any = read_tokenizer(name)
            self.processor: Any = AutoImageProcessor.from_pretrained(path, trust_remote_code=False)
        self.model.to(device).eval()
        self.padding = "max_length" if self.model.config.model_type.startswith("siglip") else True

    @torch.inference_mode()
    def scores(self, images: Sequence[ImageRef], texts: Sequence[str], owners: Sequence[int]) -> list[float]:
        """Each image and each text goes through its tower once."""
        device = device_of(self.model)
        pixels = self.processor([image.load() for image in images], return_tensors="pt")
        told = self.tokenizer(
            list(texts),
            padding=self.padding,
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        seen = _vectors(self.model.get_image_features(pixel_values=pixels["pixel_values"].to(device)))
        read = _vectors(self.model.get_text_features(**{key: value.to(device) for key, value in told.items()}))
        cosines: list[float] = (seen[list(owners)] * read).sum(dim=1).tolist()
        return cosines


class AlignedRun:
    """A first-stage run: the probability that text and image match, or their similarity if it never learnt to judge."""

    def __init__(self, run: Run, *, device: str = "cpu") -> None:
        if not run.model_config.connector.aligns:
            raise ValueError(f"The connector of {run.folder} has no heads to compare images with texts.")
        objectives = run.stage_json["stage"].get("objectives")  # an imported run has none, and every head
        self.judges = objectives is None or "ITM" in [one["type"] for one in objectives]
        self.vectors = run.vectors
        self.meaning = "probability of a match (ITM)" if self.judges else "largest cosine of a query and the text (ITC)"
        self.name = f"{run.name} {run.stage_json['model_fingerprint']} ({run.folder.name})"
        self.model = run.load_model(device)

    @torch.inference_mode()
    def scores(self, images: Sequence[ImageRef], texts: Sequence[str], owners: Sequence[int]) -> list[float]:
        """Each image is looked at once for all its texts."""
        config = self.model.config
        told = [place for place, text in enumerate(texts) if (cleaned(text) if config.captions.clean else text).strip()]
        found = [LEAST] * len(texts)
        if not told:
            return found
        form = config.connector.captions
        assert form != "none", "connectors that align read text"
        samples = [asked(images[owners[place]], "", texts[place]) for place in told]
        captions, _ = captions_of(samples, tokenizer=self.model.tokenizer, style=config.captions, form=form)
        features, _ = see(self.model, images)
        if len(features.tokens) != len(images):
            raise ValueError("A first-stage run ranks images of one view: use an encoder without tiles.")
        reading = self.model.connector.reading(features, None)
        mine, device = [owners[place] for place in told], device_of(self.model)
        if self.judges:
            values = reading.match(_moved(captions.match, device), mine, None).float().softmax(dim=1)[:, 1]
        else:
            read = self.model.connector.reading(None, _all_moved(captions, device)).texts()
            values = torch.einsum("rve,re->rv", reading.images(self.vectors)[mine], read).amax(dim=1).float()
        for place, value in zip(told, values.tolist(), strict=True):
            found[place] = value
        return found


class AnsweringRun:
    """A run with a language model: how much likelier a word of the text is with the image than with a grey one."""

    meaning = "nats a token that the image adds to the text's likelihood"

    def __init__(self, run: Run, *, prompt: str = "", device: str = "cpu") -> None:
        self.name = f"{run.name} {run.stage_json['model_fingerprint']} ({run.folder.name})"
        self.prompt = prompt
        self.model = run.load_model(device)

    @torch.inference_mode()
    def scores(self, images: Sequence[ImageRef], texts: Sequence[str], owners: Sequence[int]) -> list[float]:
        """Every text is read twice, after its image and after a grey one."""
        told = [place for place, text in enumerate(texts) if text.strip()]
        found = [LEAST] * len(texts)
        if not told:
            return found
        features, plans = see(self.model, [*images, Grey()])
        mine = [owners[place] for place in told]
        seen, blind = (self._losses(images, texts, told, repeated(features, plans, rows)) for rows in (
            mine, [len(images)] * len(told)))  # fmt: skip
        for place, value in zip(told, (blind - seen).tolist(), strict=True):
            found[place] = value
        return found

    def _losses(self, images: Sequence[ImageRef], texts: Sequence[str], told: Sequence[int], shown: Any) -> Tensor:
        samples = [asked(images[0], self.prompt, texts[place]) for place in told]
        features, plans = shown
        batch = self.model.config.batch(samples, tokenizer=self.model.tokenizer, plans=plans, features=features)
        output = self.model(batch.to(device_of(self.model)))
        counts = torch.bincount(output.rows, minlength=len(told)).clamp(min=1)
        losses: Tensor = output.row_losses(len(told)).float() / counts
        return losses


class Grey:
    """A picture that shows nothing."""

    key = "grey"

    def load(self) -> Image.Image:
        """Mid-grey."""
        return Image.new("RGB", (96, 96), (127, 127, 127))


def find_captioner(name: str, generation: Generation, *, prompt: str, device: str) -> Captioner:
    """The captioner in a run folder, or else of a model's name."""
    if (Path(name) / STAGE_FILE).is_file():
        return RunCaptioner(Run(name), generation, prompt=prompt, device=device)
    return FolderCaptioner(name, generation, prompt=prompt, device=device)


def find_ranker(name: str, *, prompt: str, device: str) -> Ranker:
    """The ranker in a run folder, first stage or not, or else a dual encoder of that name."""
    if not (Path(name) / STAGE_FILE).is_file():
        return DualEncoder(name, device=device)
    run = Run(name)
    if run.model_config.llm is None:
        return AlignedRun(run, device=device)
    return AnsweringRun(run, prompt=prompt, device=device)


def _vectors(given: Any) -> Tensor:
    """Vectors of length 1 from what a tower gives: a tensor, or an output that holds one pooled."""
    return functional.normalize(given if isinstance(given, Tensor) else given.pooler_output, dim=-1)


def _moved(text: Text, device: torch.device) -> Text:
    return Text(ids=text.ids.to(device), mask=text.mask.to(device))


def _all_moved(captions: Captions, device: torch.device) -> Captions:
    text = _moved(captions.contrast, device)
    return Captions(
        contrast=text,
        match=text,
        write=text,
        targets=text.ids,
        image_ids=captions.image_ids.to(device),
        empty=captions.empty.to(device),
    )
