"""The ear's own forward pass, and what is drawn on a spectrogram."""

import torch

from backbones.ear import COLUMNS, PATCH, ROWS, STEP, hear, new_tower
from backbones.ear_sounds import BINS, FRAMES, HEARD, Recordings, choose_patches, draw, heard_plainly, normalised


def recordings(count: int = 4, frames: int = 150) -> Recordings:
    torch.manual_seed(0)
    lengths = torch.tensor([40, 60, 150, 20])[:count]
    bins = torch.randn(count, frames, BINS) - 6.0
    bins[torch.arange(frames)[None] >= lengths[:, None]] = 0.0
    return Recordings(bins=bins, lengths=lengths, labels=torch.arange(count), groups=("a", "b", "a", "b")[:count])


def test_hearing_all_patches_equals_the_towers_own_forward() -> None:
    torch.manual_seed(0)
    tower, bins = new_tower().eval(), torch.randn(2, FRAMES, BINS)
    with torch.no_grad():
        own = tower(bins).last_hidden_state
        torch.testing.assert_close(hear(tower, bins, None), own, atol=1e-5, rtol=1e-4)
        everything = torch.arange(ROWS * COLUMNS).expand(2, -1)
        torch.testing.assert_close(hear(tower, bins, everything), own, atol=1e-5, rtol=1e-4)


def test_without_strength_a_recording_stays_as_it_is() -> None:
    sounds = recordings()
    made, shown = draw(sounds, torch.tensor([0, 3]), sounds.of(sounds.lengths > 110), warp=0.2, strength=0.0)
    torch.testing.assert_close(made[:, :20], heard_plainly(sounds)[[0, 3], :20], atol=1e-3, rtol=1e-3)
    assert (made[0, 41:] == normalised(torch.zeros(()))).all()
    assert [int((row >= 0).sum()) for row in shown] == [40, 20]


def test_an_altered_recording_is_finite_and_fits_the_window() -> None:
    sounds = recordings()
    made, shown = draw(sounds, torch.tensor([0, 1, 2, 3] * 8), sounds.of(sounds.lengths > 110), warp=0.2, strength=1.0)
    assert made.shape == (32, FRAMES, BINS)
    assert made.isfinite().all()
    assert (made[:, HEARD:] == normalised(torch.zeros(()))).float().mean() > 0.5
    assert shown.max() <= 1.0


def test_patches_of_padding_are_kept_last() -> None:
    bins = heard_plainly(recordings())[3:]  # 20 frames sound: the first three columns
    kept = choose_patches(bins, side=PATCH, step=STEP, rows=ROWS, kept=9)
    assert sorted((kept[0] % COLUMNS).tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
