"""What a run's own encoder sees of some images, once for all the texts that go with them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from isthmus.data.sample import IMAGE_MARK, ImageRef, Sample, Turn
from isthmus.features import Features, Plan
from isthmus.model import VisionLanguageModel


def device_of(module: nn.Module) -> torch.device:
    """Where the module's weights are."""
    return next(module.parameters()).device


def asked(image: ImageRef, prompt: str, answer: str | None = None) -> Sample:
    """A sample of one image with what the user says of it, and the answer if there is one."""
    turns = (Turn(role="user", text=f"{IMAGE_MARK}\n{prompt}" if prompt else IMAGE_MARK),)
    told = () if answer is None else (Turn(role="assistant", text=answer),)
    return Sample(id=image.key, turns=turns + told, images=(image,))


@torch.inference_mode()
def see(model: VisionLanguageModel, images: Sequence[ImageRef]) -> tuple[Features, tuple[Plan, ...]]:
    """Features on the model's device, and a plan for each image."""
    pixels, plans = model.prepare([asked(image, "") for image in images])
    assert pixels is not None
    assert model.encoder is not None
    features: Features = model.encoder(pixels.to(device_of(model)))
    return features, plans


def repeated(features: Features, plans: Sequence[Plan], owners: Sequence[int]) -> tuple[Features, tuple[Plan, ...]]:
    """Image `owners[i]` at place `i`, as often as it is asked for."""
    views: list[int] = []
    placed: list[Plan] = []
    for owner in owners:
        mine = plans[owner].views
        placed.append(replace(plans[owner], views=range(len(views), len(views) + len(mine))))
        views += mine
    rows = torch.tensor(views, device=features.tokens.device)
    valid = None if features.valid is None else features.valid[rows]
    levels = tuple(level[rows] for level in features.levels)
    return replace(features, tokens=features.tokens[rows], valid=valid, levels=levels), tuple(placed)
