"""Any vision tower of `transformers` (CLIP, SigLIP, DINOv2, ViT, EVA as in BLIP-2, ...) as an encoder.

Source: LLaVA-1.5 (arXiv:2310.03744) takes the second-last layer without the class token; BLIP-2 (arXiv:2301.12597)
keeps the class token. Checked against: the `transformers` models themselves, FLOPs against torch's counter.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isthmus.adapters import Lora, add_lora, lora_parameters
from isthmus.config import fingerprint
from isthmus.encoders.base import Encoder, EncoderConfig, Prepared
from isthmus.encoders.pixels import Fit, Normalisation, fit_image, read_normalisation, to_pixels
from isthmus.encoders.tiles import OneView, TilingConfig, make_views
from isthmus.encoders.towers import (
    FAMILIES,
    commit_of,
    ffn_products,
    make_tower,
    native_size,
    patch_size,
    read_config,
)
from isthmus.features import Clip, Features, FeatureShape, Grid, Plan, Sound
from isthmus.weights import folder_hash, resolve_model


@dataclass(frozen=True, kw_only=True)
class VisionEncoder(EncoderConfig):
    """Which tower, which of its layers, and how an image is fitted to it."""

    name: str = "bundled/eye"
    """A bundled model, a folder, or a hub id; of a whole CLIP or SigLIP model the vision part is used."""
    image_size: int = 96
    """Side of the square image in pixels. Other than the tower's own, its position table is interpolated. A tower whose
    own size is no multiple of its patch (SigLIP at 384 px, patches of 14) leaves the last pixels unseen."""
    layers: tuple[int, ...] = (-1,)
    """Hidden states as `transformers` counts them (0: embeddings, -1: last block). The first becomes the tokens, the
    others `levels`. Blocks deeper than the deepest one named are not run."""
    class_token: bool = False
    """Keep class and register tokens before the patches (BLIP-2) or drop them (LLaVA)."""
    final_norm: bool = False
    """Apply the tower's own last LayerNorm to every chosen layer."""
    fit: Fit = "squash"
    """Bring an image to a square: squash both sides, crop the centre, or pad with the mean colour."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the weights and the computation."""
    checkpointing: bool = False
    """Where the tower learns, compute its activations again in the backward pass in place of keeping them."""
    tiles: TilingConfig = field(default_factory=OneView)
    """Which views of an image the tower sees: the whole alone, or tiles of any resolution."""
    tile_several: bool = True
    """Tile every image of a sample that has several; without, each of them is one view (LLaVA-NeXT-Interleave)."""
    views_at_once: int = 16
    """Views go through the tower so many at a time, so that many tiles need no more memory than these."""
    lora: Lora = field(default_factory=Lora)
    """Adapters beside the tower's linear layers; `lora.rank` 0 adds none."""

    def shape(self) -> FeatureShape:
        """Width, grid and prefix tokens, from config.json.

        Raises:
            ValueError: an image size that is neither a multiple of the patch nor the tower's own, a layer that the
                tower does not have, or no view at once.
        """
        if self.views_at_once < 1:
            raise ValueError(f"views_at_once={self.views_at_once} lets no view through: give 1 or more.")
        config = self._config()
        patch = patch_size(config)
        native = self.image_size == native_size(config)
        if (self.image_size % patch and not native) or self.image_size < patch:
            near = max(patch, round(self.image_size / patch) * patch)
            raise ValueError(
                f"image_size={self.image_size} is no multiple of the {patch} px patch of {self.name!r}. Use {near}."
            )
        self.depths(config)
        side = self.image_size // patch
        prefix = FAMILIES[config.model_type].prefix(config) if self.class_token else 0
        return FeatureShape(
            width=config.hidden_size,
            grid=Grid(1, side, side),
            prefix=prefix,
            level_widths=(config.hidden_size,) * (len(self.layers) - 1),
        )

    def build(self) -> "VisionTower":
        """The tower with its pretrained weights, in eval mode."""
        source = resolve_model(self.name)
        return VisionTower(self, self._config(), source, read_normalisation(source))

    def fingerprint(self) -> str:
        """This config, with the content of the model folder (or the hub commit) for its name."""
        source = resolve_model(self.name)
        content = folder_hash(source) if Path(source).is_dir() else f"{source}@{commit_of(source)}"
        return fingerprint(
            dataclasses.replace(
                self, name=content, checkpointing=False, views_at_once=16, tile_several=True, lora=Lora()
            )
        )

    def parameters(self) -> int:
        """Parameters of the blocks that are run and the embeddings before them."""
        return sum(parameter.numel() for parameter in self.skeleton()[0].parameters())

    def adapters(self) -> int:
        """rank (in + out) for each linear layer with an adapter."""
        return sum(lora_parameters(self.skeleton()[0], self.lora).values()) if self.lora.rank else 0

    def skeleton(self) -> tuple[nn.Module, dict[str, bool]]:
        """The tower on the meta device (every shape, no weight), and the options of its call."""
        config = self.trimmed()
        with torch.device("meta"):
            tower = make_tower(config, final_norm=self.final_norm, source=None, dtype=torch.float32)
        return tower, self.options(config)

    @property
    def dtype(self) -> torch.dtype:
        """`precision` as torch names it."""
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.precision]

    def options(self, config: Any) -> dict[str, bool]:
        """Options of the tower's call: positions are interpolated at another size than its own."""
        resized = self.image_size != native_size(config)
        argument = FAMILIES[config.model_type].positions == "argument"
        return {"interpolate_pos_encoding": True} if resized and argument else {}

    def flops(self) -> int:
        """L [2 n (4 d d + FFN) + 4 n n d] + 2 patches channels p p d + 2 n LoRA; n: patches and prefix tokens."""
        config = self.trimmed()
        patches, channels = self.shape().grid.size, int(getattr(config, "num_channels", 3))
        width, patch = int(config.hidden_size), patch_size(config)
        tokens = patches + FAMILIES[config.model_type].prefix(config)
        block = 2 * tokens * (4 * width**2 + ffn_products(config)) + 4 * tokens**2 * width
        blocks = int(config.num_hidden_layers) * block + 2 * tokens * self.adapters()
        return blocks + 2 * patches * channels * patch**2 * width

    def plan(self, size: tuple[int, int], first_view: int = 0) -> Plan:
        """The views that `tiles` cuts from an image of this size."""
        cut = self.tiles.cut(size, self.image_size)
        views = range(first_view, first_view + cut.num_views)
        return Plan(size=size, tiles=cut.grid, views=views, whole=cut.whole)

    def seeing_as(self, other: EncoderConfig) -> EncoderConfig:
        """The same tower at another config's resolution, fit, tiles and number format; positions are interpolated."""
        if isinstance(tower := getattr(other, "tower", None), VisionEncoder) and self.seeing_as(tower) == tower:
            return other  # frame by frame
        if not isinstance(other, VisionEncoder):
            return self
        return dataclasses.replace(
            self, image_size=other.image_size, fit=other.fit, tiles=other.tiles, precision=other.precision
        )

    def view_side(self) -> int:
        """The config's."""
        return self.image_size

    def tiles_several(self) -> bool:
        """As the config says."""
        return self.tile_several

    def most_views(self) -> int:
        """The largest number of views that an image can take."""
        return self.tiles.most_views

    def _config(self) -> Any:
        return read_config(resolve_model(self.name))

    def depths(self, config: Any) -> tuple[int, ...]:
        """Which hidden states are wanted, counted from 0 (the embeddings)."""
        count = int(config.num_hidden_layers)
        if not self.layers:
            raise ValueError("VisionEncoder(layers=()) chooses no layer. Use layers=(-1,) for the last one.")
        for layer in self.layers:
            if not -count - 1 <= layer <= count:
                raise ValueError(
                    f"{self.name!r} has {count} blocks, so layers go from {-count - 1} to {count}, but {layer} came."
                )
            if layer % (count + 1) == 0 and not FAMILIES[config.model_type].embeddings:
                raise ValueError(f"{self.name!r} does not give its embeddings: layer {layer} came, use 1 to {count}.")
        return tuple(layer % (count + 1) for layer in self.layers)

    def trimmed(self) -> Any:
        """The tower's config without the blocks that no chosen layer needs."""
        config = self._config()
        config.num_hidden_layers = max(1, *self.depths(config))
        return config


class VisionTower(Encoder):
    """[views, 3, side, side] -> `Features` of [views, prefix + patches, width]."""

    def __init__(self, config: VisionEncoder, tower: Any, source: str, normalisation: Normalisation) -> None:
        super().__init__()
        self.shape = config.shape()
        self.config = config
        self.normalisation = normalisation
        self.dtype = config.dtype
        self.depths = config.depths(tower)
        family = FAMILIES[tower.model_type]
        self.skipped = 0 if config.class_token else family.prefix(tower)
        self.options = config.options(tower)
        self.states = family.states
        self.norm_name = family.norm if config.final_norm else ""
        tower = make_tower(config.trimmed(), final_norm=config.final_norm, source=source, dtype=self.dtype)
        self.tower = add_lora(tower, config.lora)

    def prepare(self, image: Image.Image | Clip | Sound) -> Prepared:
        """The square views that the config's tiling cuts, in the order of the plan; of a clip, each frame is a view."""
        config = self.config
        if isinstance(image, Clip):
            frames = [fit_image(one, config.image_size, config.fit, self.normalisation) for one in image.frames]
            pixels = torch.stack([to_pixels(one, self.normalisation) for one in frames])
            return Prepared(pixels=pixels, size=image.frames[0].size, tiles=Grid(len(frames), 1, 1))
        if isinstance(image, Sound):
            raise ValueError("VisionEncoder sees images and clips, and got a sound. Sounds need an AudioEncoder.")
        views, cut = make_views(image, config.tiles, config.image_size, config.fit, self.normalisation)
        pixels = torch.stack([to_pixels(view, self.normalisation) for view in views])
        return Prepared(pixels=pixels, size=image.size, tiles=cut.grid, whole=cut.whole)

    def forward(self, pixels: Float[Tensor, "views 3 height width"]) -> Features:
        """The chosen layers of the tower.

        Raises:
            ValueError: pixels of another size than the config's.
        """
        side = self.config.image_size
        if pixels.shape[2:] != (side, side):
            raise ValueError(
                f"{self.config.name!r} was built for {side} x {side} px but {tuple(pixels.shape[2:])} came. Use "
                f"prepare(image), or set image_size."
            )
        parts = [self._run(chunk) for chunk in torch.split(pixels.to(self.dtype), self.config.views_at_once)]
        tokens, *levels = [torch.cat(part) if len(part) > 1 else part[0] for part in zip(*parts, strict=True)]
        return Features(tokens=tokens, grid=self.shape.grid, prefix=self.shape.prefix, levels=tuple(levels))

    def _run(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The chosen layers of a few views; computed again in the backward pass where the config says so."""
        if self.config.checkpointing and torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
            again: tuple[Tensor, ...] = checkpoint(self._layers, pixels, use_reentrant=False)
            return again
        return self._layers(pixels)

    def _layers(self, pixels: Tensor) -> tuple[Tensor, ...]:
        states = self.states(self.tower, pixels, self.options)
        chosen = [states[depth] for depth in self.depths]
        if self.norm_name:
            chosen = [self.tower.get_submodule(self.norm_name)(state) for state in chosen]
        levels = (state[:, self.skipped + self.shape.prefix :] for state in chosen[1:])
        return chosen[0][:, self.skipped :], *levels
