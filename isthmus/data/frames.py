"""Which frames of a video are looked at, from the times at which its frames are shown and nothing else.

Source: LLaVA-NeXT-Interleave (arXiv:2407.07895) and Video-LLaMA (arXiv:2306.02858) take a fixed number, evenly spaced.
"""

import contextlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FrameSampling:
    """A choice of frames. Times are seconds, in order; frames need not be equally long (variable frame rate)."""

    @property
    def most(self) -> int:
        """The largest number of frames that is chosen."""
        raise AssertionError(f"{type(self).__name__} does not define most")

    def choose(self, times: Sequence[float], keys: Sequence[int]) -> list[int]:
        """The numbers of the frames, in order, each of those at `times` (one at least); `keys` are its keyframes."""
        raise AssertionError(f"{type(self).__name__} does not define choose")


@dataclass(frozen=True, kw_only=True)
class UniformFrames(FrameSampling):
    """Exactly `num` frames, evenly spaced in time from the first to the last; short videos repeat frames.

    At a constant frame rate these are the frames of LLaVA-NeXT: `linspace(0, frames - 1, num)`, rounded down.
    """

    num: int = 8

    def __post_init__(self) -> None:
        _check(self, "num", self.num)

    @property
    def most(self) -> int:
        """`num`."""
        return self.num

    def choose(self, times: Sequence[float], keys: Sequence[int]) -> list[int]:
        """The frame shown at each of `num` moments; a single moment is the first."""
        return _spread(times, self.num)


@dataclass(frozen=True, kw_only=True)
class FramesPerSecond(FrameSampling):
    """The frame shown every 1 / `rate` seconds; when that is more than `max_frames`, those evenly spaced."""

    rate: float = 1.0
    max_frames: int = 32

    def __post_init__(self) -> None:
        _check(self, "max_frames", self.max_frames)
        if not 0.0 < self.rate < float("inf"):
            raise ValueError(f"FramesPerSecond(rate={self.rate}) must be above zero.")

    @property
    def most(self) -> int:
        """`max_frames`."""
        return self.max_frames

    def choose(self, times: Sequence[float], keys: Sequence[int]) -> list[int]:
        """One frame at least."""
        count = int((times[-1] - times[0]) * self.rate + 1e-6) + 1
        if count > self.max_frames:
            return _spread(times, self.max_frames)
        return [_shown(times, times[0] + number / self.rate) for number in range(count)]


@dataclass(frozen=True, kw_only=True)
class Keyframes(FrameSampling):
    """The frames that are stored whole (often where a scene begins); of more than `max_frames`, evenly spaced ones."""

    max_frames: int = 32

    def __post_init__(self) -> None:
        _check(self, "max_frames", self.max_frames)

    @property
    def most(self) -> int:
        """`max_frames`."""
        return self.max_frames

    def choose(self, times: Sequence[float], keys: Sequence[int]) -> list[int]:
        """The keyframes; the first frame when the file marks none."""
        if len(keys) <= self.max_frames:
            return list(keys) or [0]
        if self.max_frames == 1:
            return [keys[0]]
        return [keys[number * (len(keys) - 1) // (self.max_frames - 1)] for number in range(self.max_frames)]


SAMPLINGS: dict[str, type[FrameSampling]] = {
    "uniform": UniformFrames,
    "fps": FramesPerSecond,
    "keyframes": Keyframes,
}
"""Every way to choose frames, by name."""


def read_frames(text: str, *, most: int) -> FrameSampling:
    """The choice that a text names: `uniform:8`, `fps:0.5` or `fps:0.5:16`, `keyframes` or `keyframes:16`.

    `most` is how many frames there are at most where the text does not say.

    Raises:
        ValueError: no such choice.
    """
    name, *numbers = text.strip().split(":")
    with contextlib.suppress(ValueError):
        parts = [float(number) for number in numbers]
        counts = [int(number) for number in numbers[name == "fps" :]] or [most]
        if min(counts) > 0:
            match name, len(parts):
                case "uniform", 0 | 1:
                    return UniformFrames(num=counts[0])
                case "fps", 1 | 2:
                    return FramesPerSecond(rate=parts[0], max_frames=counts[0])
                case "keyframes", 0 | 1:
                    return Keyframes(max_frames=counts[0])
    raise ValueError(
        f"{text!r} chooses no frames. Write uniform:8 for so many, evenly spaced; fps:0.5 for one every two seconds "
        f"(fps:0.5:16 for 16 at most); keyframes or keyframes:16 for those that are stored whole."
    )


def _shown(times: Sequence[float], moment: float) -> int:
    """The frame on the screen at a moment."""
    return max(0, bisect_right(times, moment + 1e-6) - 1)


def _spread(times: Sequence[float], num: int) -> list[int]:
    length = times[-1] - times[0]
    return [_shown(times, times[0] + length * number / max(1, num - 1)) for number in range(num)]


def _check(config: FrameSampling, name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{type(config).__name__}({name}={value}) must be 1 or more.")
