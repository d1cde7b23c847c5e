"""timm's vision transformers through the wrapper of transformers: the same features as timm's own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from isthmus.encoders import VisionEncoder
from isthmus.features import FeatureShape, Grid

timm = pytest.importorskip("timm", reason="timm is not installed (it needs torchvision)")

SIZES = {"img_size": 24, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.5]


def save(folder: Path, architecture: str, **changes: object) -> Any:
    """A folder as timm's hub repositories have it, with a tiny random model."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    args = {**SIZES, **changes}
    model = timm.create_model(architecture, pretrained=False, num_classes=0, **args).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    folder.mkdir()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    chosen = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "input_size": [3, 24, 24], "num_classes": 0}
    config = {"architecture": architecture, "num_classes": 0, "num_features": 32, "model_args": args}
    config |= {"pretrained_cfg": chosen, "label_names": ["a"], "model_type": "timm_wrapper"}
    (folder / "config.json").write_text(json.dumps(config))
    return model


PIXELS = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(4))


ARCHITECTURES = ("vit_tiny_patch16_224", "eva02_tiny_patch14_224", "vit_base_patch16_siglip_224")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_are_those_of_timm(architecture: str, tmp_path: Path) -> None:
    model = save(tmp_path / "tower", architecture)
    prefix = model.num_prefix_tokens
    config = VisionEncoder(name=str(tmp_path / "tower"), image_size=24, layers=(-2, -1), class_token=True)
    assert config.shape() == FeatureShape(width=32, grid=Grid(1, 3, 3), prefix=prefix, level_widths=(32,))
    tower = config.build()
    with torch.no_grad():
        said = tower(PIXELS)
        wanted = model.forward_intermediates(PIXELS, output_fmt="NLC", intermediates_only=True)
    torch.testing.assert_close(said.patches, wanted[1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(said.levels[0], wanted[2], atol=1e-6, rtol=1e-5)
    assert tower.normalisation.mean == tuple(MEAN)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        skeleton, _ = config.skeleton()
        skeleton(torch.empty(1, 3, 24, 24), output_hidden_states=True)
    assert counter.get_total_flops() == config.flops()


def test_another_image_size_and_the_final_norm(tmp_path: Path) -> None:
    model = save(tmp_path / "tower", "vit_tiny_patch16_224", dynamic_img_size=True)
    encoder = VisionEncoder(name=str(tmp_path / "tower"), image_size=32, class_token=True, final_norm=True)
    pixels = torch.nn.functional.interpolate(PIXELS, size=32)
    with torch.no_grad():
        torch.testing.assert_close(encoder.build()(pixels).tokens, model.forward_features(pixels), atol=1e-6, rtol=1e-5)


def test_what_is_no_plain_transformer_and_embeddings_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tower"
    save(folder, "vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="does not give its embeddings: layer 0 came, use 1 to 3"):
        VisionEncoder(name=str(folder), image_size=24, layers=(0,)).shape()
    other = tmp_path / "resnet"
    other.mkdir()
    config = json.loads((folder / "config.json").read_text()) | {"architecture": "resnet18", "model_args": None}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="'resnet18', which is no plain vision transformer"):
        VisionEncoder(name=str(other), image_size=24).shape()
