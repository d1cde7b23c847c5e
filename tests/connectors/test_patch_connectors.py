"""Linear, MLP, average pool and pixel shuffle: the numbers of the public code, and literal small cases."""

import pytest
import torch
from oracle_files import oracle, part
from torch import Tensor, nn

from isthmus.connectors import (
    AveragePoolConfig,
    Connector,
    IdentityConfig,
    LinearConfig,
    MlpConfig,
    PixelShuffleConfig,
)
from isthmus.features import Features, FeatureShape, Grid, LLMShape
from isthmus.weights import load_strict


def shapes(width: int, grid: Grid, out: int) -> tuple[FeatureShape, LLMShape]:
    return FeatureShape(width=width, grid=grid), LLMShape(embedding_width=out, hidden_width=out, num_layers=1)


def load(connector: Connector, weights: dict[str, Tensor]) -> Connector:
    load_strict(connector, {f"project.{key}": value for key, value in weights.items()}, "the oracle")
    return connector.eval()


@pytest.mark.parametrize(("kind", "config"), [("linear", LinearConfig()), ("mlp2x_gelu", MlpConfig(depth=2))])
def test_projectors_give_llavas_numbers(kind: str, config: LinearConfig | MlpConfig) -> None:
    tensors, _ = oracle(f"llava_projector_{kind}")
    grid = Grid(1, 1, 5)
    connector = load(config.build(*shapes(20, grid, 28)), part(tensors, "weights/"))
    given = connector(Features(tokens=tensors["inputs/x"], grid=grid)).tokens
    torch.testing.assert_close(given, tensors["outputs/y"], atol=1e-5, rtol=1e-4)


def test_mlp_depth_is_the_number_of_linear_layers() -> None:
    connector = MlpConfig(depth=3).build(*shapes(4, Grid(1, 2, 2), 6))
    assert [module.in_features for module in connector.modules() if isinstance(module, nn.Linear)] == [4, 6, 6]
    with pytest.raises(ValueError, match=r"MlpConfig\(depth=0\) has no layer"):
        MlpConfig(depth=0)


@pytest.mark.parametrize("name", ["deco_avgpool", "deco_avgpool_uneven"])
def test_average_pool_gives_decos_numbers(name: str) -> None:
    tensors, config = oracle(name)
    side, pooled = round(config["num_input_tokens"] ** 0.5), round(config["query_num"] ** 0.5)
    grid = Grid(1, side, side)
    connector = AveragePoolConfig(side=pooled).build(*shapes(config["mm_hidden_size"], grid, config["llm_hidden_size"]))
    load(connector, part(tensors, "weights/mlp_projector."))
    given = connector(Features(tokens=tensors["inputs/x"], grid=grid)).tokens
    torch.testing.assert_close(given, tensors["outputs/y"], atol=1e-5, rtol=1e-4)
    given.square().mean().backward()
    grad = connector.get_parameter("project.0.weight").grad
    torch.testing.assert_close(grad, tensors["grads/mlp_projector.0.weight"], atol=1e-5, rtol=1e-3)


def _pooled(config: AveragePoolConfig, grid: Grid, values: Tensor) -> list[float]:
    connector = config.build(*shapes(1, grid, 1))
    connector.project = nn.Sequential(nn.Identity())
    return connector(Features(tokens=values.reshape(1, -1, 1), grid=grid)).tokens.flatten().tolist()


def test_average_pool_of_each_frame_and_of_a_wide_grid() -> None:
    values = torch.arange(16.0)
    assert _pooled(AveragePoolConfig(side=(1, 2), depth=1), Grid(2, 2, 4), values) == [2.5, 4.5, 10.5, 12.5]


def test_uneven_bins_overlap_and_weigh_patches_unequally() -> None:
    values = torch.tensor([0.0, 0.0, 12.0, 0.0])
    pooled = _pooled(AveragePoolConfig(side=(1, 3), depth=1), Grid(1, 1, 4), values)
    assert pooled == [0.0, 6.0, 6.0]  # bins [0, 2), [1, 3), [2, 4)
    assert sum(pooled) / 3 != float(values.mean())


def test_average_pool_refuses_to_make_more_tokens_than_patches() -> None:
    with pytest.raises(ValueError, match=r"4 x 6 patch grid to 5 x 5: pooling only makes it smaller. Use side=4"):
        AveragePoolConfig(side=5).build(*shapes(4, Grid(1, 4, 6), 8))
    with pytest.raises(ValueError, match="leaves no token"):
        AveragePoolConfig(side=0)


@pytest.mark.parametrize("name", ["internvl_pixel_shuffle", "internvl_pixel_shuffle_rect"])
@pytest.mark.parametrize("order", ["v1", "v2"])
def test_pixel_shuffle_gives_internvls_numbers(name: str, order: str) -> None:
    tensors, config = oracle(name)
    grid = Grid(1, config["h"], config["w"])
    connector = PixelShuffleConfig(factor=2, order=order).build(*shapes(config["c"], grid, config["llm_hidden"]))
    load(connector, part(tensors, "weights_internvl/mlp1."))
    tokens = tensors["inputs/x"].flatten(1, 2)
    given = connector(Features(tokens=tokens, grid=grid)).tokens
    torch.testing.assert_close(given, tensors[f"outputs/mlp1_of_{order}"], atol=1e-5, rtol=1e-4)
    connector.project = nn.Sequential(nn.Identity())
    folded = connector(Features(tokens=tokens, grid=grid)).tokens
    assert torch.equal(folded, tensors[f"outputs/pixel_shuffle_{order}"].flatten(1, 2))


def test_pixel_shuffle_keeps_every_number_and_its_order() -> None:
    grid = Grid(1, 2, 4)
    connector = PixelShuffleConfig(factor=2).build(*shapes(1, grid, 1))
    connector.project = nn.Sequential(nn.Identity())
    folded = connector(Features(tokens=torch.arange(8.0).reshape(1, 8, 1), grid=grid)).tokens
    assert folded.tolist() == [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]


def test_pixel_shuffle_folds_neighbouring_frames_into_one_token() -> None:
    """A token holds its square in the first frame, then the same square in the next."""
    grid = Grid(4, 2, 2)
    config = PixelShuffleConfig(factor=2, frames=2)
    connector = config.build(*shapes(1, grid, 1))
    connector.project = nn.Sequential(nn.Identity())
    folded = connector(Features(tokens=torch.arange(16.0).reshape(1, 16, 1), grid=grid)).tokens
    assert folded.tolist() == [[list(range(8)), list(range(8, 16))]]
    assert (config.num_tokens(grid), config.token_grid(grid)) == (2, Grid(2, 1, 1))
    with pytest.raises(ValueError, match=r"frames=3\) cannot fold 4 frames.*max_frames, or use frames=1"):
        PixelShuffleConfig(frames=3).build(*shapes(1, grid, 1))
    with pytest.raises(ValueError, match="frames must be 1 or more"):
        PixelShuffleConfig(frames=0)


def test_pixel_shuffle_of_frames_costs_what_its_weights_say() -> None:
    config, (source, target) = PixelShuffleConfig(factor=2, frames=4), shapes(3, Grid(4, 2, 4), 5)
    weights = config.build(source, target).parameters()
    assert config.parameters(source, target) == sum(one.numel() for one in weights)
    assert config.flops(source, target) == 2 * 2 * (48 * 5 + 5 * 5)


def test_pixel_shuffle_refuses_a_grid_that_does_not_fold() -> None:
    with pytest.raises(ValueError, match=r"factor=2\) cannot fold a 3 x 4 patch grid.*multiples of 2.*AveragePool"):
        PixelShuffleConfig(factor=2).build(*shapes(4, Grid(1, 3, 4), 8))
    connector = PixelShuffleConfig(factor=2).build(*shapes(4, Grid(1, 2, 4), 8))
    with pytest.raises(ValueError, match="cannot fold a 1 x 3 patch grid"):
        connector(Features(tokens=torch.zeros(1, 3, 4), grid=Grid(1, 1, 3)))
    with pytest.raises(ValueError, match="factor must be 1 or more"):
        PixelShuffleConfig(factor=0)


def test_identity_fills_up_with_zeros_when_asked_to() -> None:
    source = FeatureShape(width=3, grid=Grid(1, 1, 2))
    wide = LLMShape(embedding_width=5, hidden_width=5, num_layers=1)
    given = IdentityConfig(pad=True).build(source, wide)(Features(tokens=torch.ones(1, 2, 3), grid=source.grid))
    assert given.tokens.tolist() == [[[1.0, 1.0, 1.0, 0.0, 0.0]] * 2]
    with pytest.raises(ValueError, match=r"or pad=True, which fills 2 channels with zeros"):
        IdentityConfig().build(source, wide)
    narrow = LLMShape(embedding_width=2, hidden_width=2, num_layers=1)
    with pytest.raises(ValueError, match=r"3 wide and the language model reads 2\. Use LinearConfig"):
        IdentityConfig(pad=True).build(source, narrow)
