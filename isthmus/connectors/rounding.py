"""What several matrix products read, rounded once for all of them."""

import torch
from torch import Tensor


def rounded(values: Tensor) -> Tensor:
    """`values` in autocast's format where it is on, which would else round them for every product; or as they came."""
    if values.is_meta or not torch.is_autocast_enabled(values.device.type):
        return values
    return values.to(torch.get_autocast_dtype(values.device.type))
