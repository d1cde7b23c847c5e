"""Vision towers of every family: the same features as transformers, counted and refused as promised."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from oracle_files import oracle, part
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_towers import PROCESSOR, SIZES, TOWERS, make, save
from torch.utils.flop_counter import FlopCounterMode
from transformers.utils import is_timm_available

from isthmus.adapters import Lora
from isthmus.config import from_json, to_json
from isthmus.encoders import TILINGS, VisionEncoder
from isthmus.encoders.tiles import AnyresTiles
from isthmus.encoders.towers import make_tower
from isthmus.features import FeatureShape, Grid
from isthmus.weights import quiet_transformers


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("towers")
    for family in TOWERS:
        save(family, root / family)
    return {family: root / family for family in TOWERS}


def pixels(side: int = 24, views: int = 2) -> torch.Tensor:
    return torch.randn(views, 3, side, side, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("family", list(TOWERS))
def test_features_are_those_of_transformers(family: str, folders: dict[str, Path]) -> None:
    prefix = TOWERS[family][3]
    states = make(family)(pixels(), output_hidden_states=True).hidden_states
    dropped = VisionEncoder(name=str(folders[family]), image_size=24, layers=(-2,)).build()
    kept = VisionEncoder(name=str(folders[family]), image_size=24, layers=(-2,), class_token=True).build()
    with torch.no_grad():
        said, whole = dropped(pixels()), kept(pixels())
    assert said.grid == Grid(1, 3, 3)
    assert (said.prefix, whole.prefix) == (0, prefix)
    torch.testing.assert_close(whole.tokens, states[-2], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(said.tokens, states[-2][:, prefix:], atol=1e-6, rtol=1e-5)
    assert dropped.shape == FeatureShape(width=16, grid=Grid(1, 3, 3))
    assert kept.shape.prefix == prefix


@pytest.mark.parametrize("family", [family for family in TOWERS if family != "clip"])
def test_final_norm_gives_the_last_hidden_state(family: str, folders: dict[str, Path]) -> None:
    last = make(family)(pixels()).last_hidden_state
    encoder = VisionEncoder(name=str(folders[family]), image_size=24, class_token=True, final_norm=True).build()
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels()).tokens, last, atol=1e-6, rtol=1e-5)


def test_clips_final_norm_is_the_one_before_its_pooled_token(folders: dict[str, Path]) -> None:
    pooled = make("clip")(pixels()).pooler_output
    encoder = VisionEncoder(name=str(folders["clip"]), image_size=24, class_token=True, final_norm=True).build()
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels()).tokens[:, 0], pooled, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", list(TOWERS))
def test_parameters_and_flops_are_those_of_what_runs(family: str, folders: dict[str, Path]) -> None:
    for layers in ((-1,), (1,)):
        config = VisionEncoder(name=str(folders[family]), image_size=32, layers=layers)
        encoder = config.build()
        assert sum(weight.numel() for weight in encoder.parameters()) == config.parameters()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            encoder.to("meta")(pixels(32, views=1).to("meta"))  # fused attention on the CPU is not counted
        assert counter.get_total_flops() == config.flops()


def test_blocks_after_the_chosen_layer_are_not_run(folders: dict[str, Path]) -> None:
    last, second = (VisionEncoder(name=str(folders["clip"]), image_size=24, layers=(layer,)) for layer in (-1, -2))
    assert second.flops() * 3 > last.flops() * 2 > second.flops() * 2
    assert second.parameters() < last.parameters()
    states = make("clip")(pixels(), output_hidden_states=True).hidden_states
    embeddings = VisionEncoder(name=str(folders["clip"]), image_size=24, layers=(0,)).build()
    with torch.no_grad():
        torch.testing.assert_close(embeddings(pixels()).tokens, states[0][:, 1:], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", list(TOWERS))
def test_another_image_size_interpolates_the_positions(family: str, folders: dict[str, Path]) -> None:
    public = make(family)
    options = {} if family.startswith("dino") else {"interpolate_pos_encoding": True}
    states = public(pixels(40), output_hidden_states=True, **options).hidden_states
    encoder = VisionEncoder(name=str(folders[family]), image_size=40).build()
    with torch.no_grad():
        said = encoder(pixels(40))
    assert said.grid == Grid(1, 5, 5)
    torch.testing.assert_close(said.tokens, states[-1][:, TOWERS[family][3] :], atol=1e-6, rtol=1e-5)


def test_a_towers_own_size_may_leave_pixels_unseen(tmp_path: Path) -> None:
    """As SigLIP's of 384 px with patches of 14, which OneVision takes: 27 x 27 patches and 6 pixels over."""
    torch.manual_seed(0)
    config = transformers.SiglipVisionConfig(**SIZES | {"image_size": 29})
    public = transformers.SiglipVisionModel(config).eval()
    public.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    seen = VisionEncoder(name=str(tmp_path), image_size=29, layers=(-2,))
    assert seen.shape() == FeatureShape(width=16, grid=Grid(1, 3, 3))
    with torch.no_grad():
        states = public(pixels(29), output_hidden_states=True).hidden_states
        torch.testing.assert_close(seen.build()(pixels(29)).tokens, states[-2], atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match=r"no multiple of the 8 px patch .* Use 32"):
        replace(seen, image_size=30).shape()


def test_more_layers_become_levels_without_prefix(folders: dict[str, Path]) -> None:
    config = VisionEncoder(name=str(folders["clip"]), image_size=24, layers=(-1, 1, 2), class_token=True)
    assert config.shape().level_widths == (16, 16)
    states = make("clip")(pixels(), output_hidden_states=True).hidden_states
    with torch.no_grad():
        said = config.build()(pixels())
    torch.testing.assert_close(said.tokens, states[3], atol=1e-6, rtol=1e-5)
    for level, depth in zip(said.levels, (1, 2), strict=True):
        torch.testing.assert_close(level, states[depth][:, 1:], atol=1e-6, rtol=1e-5)


def test_every_weight_that_is_kept_learns(folders: dict[str, Path]) -> None:
    """Parts that do not run are left out, so training on several processes finds no unused weight."""
    for family in ("clip", "siglip", "vit"):
        encoder = VisionEncoder(name=str(folders[family]), image_size=24, layers=(-2,)).build()
        encoder(pixels()).tokens.square().sum().backward()
        assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == []


def test_the_vision_part_of_a_whole_clip_model_is_used(tmp_path: Path) -> None:
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with quiet_transformers():
        whole = transformers.CLIPModel(
            transformers.CLIPConfig(vision_config=TOWERS["clip"][2], text_config=text | {"vocab_size": 49_408})
        ).eval()
        whole.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    states = whole.vision_model(pixels(), output_hidden_states=True).hidden_states
    with torch.no_grad():
        said = VisionEncoder(name=str(tmp_path), image_size=24).build()(pixels())
    torch.testing.assert_close(said.tokens, states[-1][:, 1:], atol=1e-6, rtol=1e-5)


def test_vit_large_costs_what_the_closed_form_says(tmp_path: Path) -> None:
    """CLIP ViT-L/14 at 336 px: all 24 blocks, and the 23 that the second-last layer needs. No weights are read."""
    transformers.CLIPVisionConfig(
        hidden_size=1_024,
        intermediate_size=4_096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    ).save_pretrained(tmp_path)
    last = VisionEncoder(name=str(tmp_path), image_size=336)
    assert last.flops() == 381_918_216_192
    assert VisionEncoder(name=str(tmp_path), image_size=336, layers=(-2,)).flops() == 366_033_858_560
    assert last.shape().grid == Grid(1, 24, 24)


def test_fingerprint_follows_the_config_and_the_weights(tmp_path: Path) -> None:
    save("clip", tmp_path)
    config = VisionEncoder(name=str(tmp_path), image_size=24)
    before = config.fingerprint()
    assert before == VisionEncoder(name=str(tmp_path), image_size=24).fingerprint()
    assert before != VisionEncoder(name=str(tmp_path), image_size=24, layers=(-2,)).fingerprint()
    moved = shutil.copytree(tmp_path, tmp_path.with_name("moved"))
    assert before == VisionEncoder(name=str(moved), image_size=24).fingerprint()
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert before != config.fingerprint()


def test_plan_is_one_view_of_the_whole_image() -> None:
    plan = VisionEncoder().plan((640, 480), first_view=3)
    assert (plan.size, plan.tiles, plan.views, plan.whole) == ((640, 480), Grid(1, 1, 1), range(3, 4), "none")


def test_prepare_then_forward(folders: dict[str, Path]) -> None:
    encoder = VisionEncoder(name=str(folders["clip"]), image_size=24).build()
    prepared = encoder.prepare(Image.new("RGB", (50, 30), (128, 0, 255)))
    assert prepared.size == (50, 30)
    assert prepared.pixels.shape == (1, 3, 24, 24)
    torch.testing.assert_close(prepared.pixels[0, :, 0, 0], torch.tensor([(128 / 255 - 0.5) / 0.25, -2.0, 1.4]))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(precision: str, folders: dict[str, Path]) -> None:
    full = VisionEncoder(name=str(folders["clip"]), image_size=24).build()
    half = VisionEncoder(name=str(folders["clip"]), image_size=24, precision=precision).build()
    with torch.no_grad():
        said, exact = half(pixels()).tokens, full(pixels()).tokens
    assert said.dtype == getattr(torch, precision)
    torch.testing.assert_close(said.float(), exact, atol=0.1, rtol=0.1)


def test_the_config_reads_back_from_json() -> None:
    config = VisionEncoder(name="openai/clip-vit-large-patch14-336", image_size=336, layers=(-2, 5), fit="pad")
    types = {"VisionEncoder": VisionEncoder, "Lora": Lora, **{made.__name__: made for made in TILINGS.values()}}
    assert from_json(to_json(config), types) == config
    tiled = replace(config, tiles=AnyresTiles(grids=((1, 2), (2, 1))))
    assert from_json(to_json(tiled), types) == tiled


def test_misfits_say_the_way_out(folders: dict[str, Path], tmp_path: Path) -> None:
    clip = str(folders["clip"])
    save("clip", tmp_path / "bare", processor=None)
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    refused = [
        (lambda: VisionEncoder(name=clip, image_size=30).shape(), r"no multiple of the 8 px patch .* Use 32"),
        (lambda: VisionEncoder(name=clip, image_size=24, layers=(4,)).shape(), r"layers go from -4 to 3, but 4 came"),
        (lambda: VisionEncoder(name=clip, image_size=24, layers=()).shape(), r"layers=\(\)\) chooses no layer"),
        (lambda: VisionEncoder(name=clip, image_size=24).build()(pixels(32)), r"24 x 24 px but \(32, 32\) came"),
        (lambda: VisionEncoder(name=str(tmp_path / "bare"), image_size=24).build(), r"without a processor file.*Put"),
        (lambda: VisionEncoder(name=str(tmp_path / "bert")).shape(), r"'bert' model, not a vision tower .*clip_vision"),
        (lambda: VisionEncoder(name="nobody/nothing").shape(), r"Cannot read the config of 'nobody/nothing'"),
    ]
    for attempt, message in refused:
        with pytest.raises(ValueError, match=message):
            attempt()


def test_weights_that_lack_a_part_are_refused(tmp_path: Path) -> None:
    save("vit", tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    lost = next(key for key in state if "layers.1" in key or "layer.1." in key)
    del state[lost]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="missing"):
        VisionEncoder(name=str(tmp_path), image_size=24).build()


def test_counting_makes_no_weights(folders: dict[str, Path]) -> None:
    with torch.device("meta"):
        config = VisionEncoder(name=str(folders["vit"]), image_size=24)
        tower = make_tower(config.trimmed(), final_norm=False, source=None, dtype=torch.float32)
    assert all(weight.is_meta for weight in tower.parameters())


@pytest.mark.parametrize("layer", [-1, -2, 0, 1])
@pytest.mark.parametrize("class_token", [True, False])
def test_layer_and_class_token_give_llavas_numbers(layer: int, class_token: bool, tmp_path: Path) -> None:
    tensors, sizes = oracle("llava_feature_select")
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    save_file(part(tensors, "weights/"), tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = VisionEncoder(name=str(tmp_path), image_size=12, layers=(layer,), class_token=class_token)
    with torch.no_grad():
        said = config.build()(tensors["inputs/pixel_values"]).tokens
    expected = tensors[f"outputs/select_{layer}_{'cls_patch' if class_token else 'patch'}"]
    torch.testing.assert_close(said, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(is_timm_available(), reason="timm is installed")
@pytest.mark.parametrize("labels", [{}, {"label_names": ["a"]}])
def test_a_timm_tower_without_timm_says_what_to_install(labels: dict[str, object], tmp_path: Path) -> None:
    config = {"model_type": "timm_wrapper", "architecture": "vit_tiny_patch16_224", "num_classes": 1, **labels}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="timm library, which is not installed"):
        VisionEncoder(name=str(tmp_path)).shape()
