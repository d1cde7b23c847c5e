"""What a linear probe reads off the frozen ear: kinds of sounds by ESC-10's own folds, beside an untrained ear.

`python -m backbones.probe_ear --data DATA`, where DATA holds `audio_esc10`. Fitted on the folds that the ear was
trained on, tried on those that it never heard. A clip's feature is the mean over its five windows of a second.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.ear import new_tower
from backbones.linear_probe import probe
from isthmus.data.sound import FileSound
from isthmus.data.sources.esc10 import HEARD, KINDS, UNHEARD, clips_of
from isthmus.encoders import AudioEncoder
from isthmus.encoders.audio import AudioTower

EAR = AudioEncoder(name="bundled/ear", window_s=1.0, max_windows=5, window_views=True, pool="mean")


@torch.no_grad()
def features(tower: AudioTower, windows: list[Float[Tensor, "windows ..."]]) -> Float[Tensor, "clips width"]:
    """The mean over a clip's windows, and over each window's patches."""
    return torch.stack([tower(one).tokens.mean(dim=(0, 1)) for one in windows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with audio_esc10")
    args = parser.parse_args()
    torch.manual_seed(1)
    folder = str(args.data / "audio_esc10")
    clips = clips_of(folder)
    ear = EAR.build()
    heard = [ear.prepare(FileSound(root=folder, path=clip.path).load()).pixels for clip in clips]
    labels = torch.tensor([KINDS.index(clip.kind) for clip in clips])
    known = torch.tensor([clip.fold in HEARD for clip in clips])
    tried = torch.tensor([clip.fold in UNHEARD for clip in clips])
    print(f"{int(known.sum())} clips of folds {HEARD} fitted, {int(tried.sum())} of folds {UNHEARD} tried")
    untrained: nn.Module = new_tower().eval()
    for name, tower in (("ear", ear.tower), ("untrained", untrained)):
        ear.tower = tower
        found = features(ear, heard)
        for decay in (1e-3, 1e-2, 1e-1):
            right = probe(found[known], labels[known], found[tried], len(KINDS), decay=decay) == labels[tried]
            print(f"{name}, decay {decay}: {float(right.float().mean()):.3f}")
            kinds = labels[tried]
            each = {kind: round(float(right[kinds == place].float().mean()), 2) for place, kind in enumerate(KINDS)}
            print(f"  {each}")


if __name__ == "__main__":
    main()
