"""A table of learned positions at another resolution: the patch part is interpolated, class tokens stay.

Source: DeiT (arXiv:2012.12877), section 6; used by BLIP-2 (364 and 490 px), MM1 (arXiv:2403.09611, 378 to 672 px) and
Qwen-VL (arXiv:2308.12966, 224 to 448 px). Checked against: salesforce/LAVIS `interpolate_pos_embed` and the embeddings
of `transformers` CLIP, ViT and SigLIP (oracle `pos_embed_interpolation`). Those do so themselves at each call of a run,
in the table's own number format; a tower that is exported gets the table of its new size for good.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, cat
from torch.nn import functional

from isthmus.features import Grid


def interpolate_positions(
    table: Float[Tensor, "positions width"], old: Grid, new: Grid, *, prefix: int = 0
) -> Float[Tensor, "new_positions width"]:
    """The table for another patch grid: bicubic, corners not aligned, without smoothing.

    Raises:
        ValueError: the table does not hold `prefix` tokens and the old grid.
    """
    if len(table) != prefix + old.size or old.frames != new.frames:
        raise ValueError(
            f"A table of {len(table)} positions does not hold {prefix} prefix tokens and a grid of {tuple(old)}, to be "
            f"changed to {tuple(new)}. Give the grid that the table was made for."
        )
    if old == new:
        return table
    patches = rearrange(table[prefix:], "(t h w) c -> t c h w", t=old.frames, h=old.rows, w=old.columns)
    resized = functional.interpolate(patches, size=(new.rows, new.columns), mode="bicubic", align_corners=False)
    return cat([table[:prefix], rearrange(resized, "t c h w -> (t h w) c")])
