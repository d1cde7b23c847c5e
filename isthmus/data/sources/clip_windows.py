"""Another source whose clips are cut into short windows: a few clips give many samples, and moments to be asked about.

Windows of one part of every clip are trained on, windows of another part are held out: no frame is in both.
"""

from dataclasses import dataclass, replace

from isthmus.data.sample import Sample
from isthmus.data.sources.base import Dataset, SourceConfig, checked
from isthmus.data.video import FileVideo

_CLOSE = 1e-6
"""Seconds by which sums of times may miss a frame's own."""


@dataclass(frozen=True, kw_only=True)
class ClipWindows(SourceConfig):
    """Up to `num` windows of every clip of `of`, evenly spread over one part of it; they overlap where it is short.

    Every clip is opened once when the source is built, so this is for collections of some thousands at most.
    """

    of: SourceConfig
    part: tuple[float, float] = (0.0, 1.0)
    """Where the part begins and ends, as shares of a clip. A frame belongs to the part that it begins, so that parts
    such as (0, 0.6) and (0.6, 1) share none."""
    seconds: float = 1.0
    """How long a window is."""
    num: int = 4
    """Windows of each clip, fewer where so many frames do not begin one."""

    def __post_init__(self) -> None:
        begin, end = self.part
        if not (0.0 <= begin < end <= 1.0 and 0.0 < self.seconds < float("inf") and self.num >= 1):
            raise ValueError(
                f"ClipWindows(part={self.part}, seconds={self.seconds}, num={self.num}): a part lies in order within "
                f"0 and 1, and there is one window at least of more than 0 s."
            )

    def build(self) -> Dataset:
        """The windows.

        Raises:
            ValueError: naming the row: its clip cannot be read, it has no clip or several, or its part is too short.
        """
        samples = self.of.build()
        return _Windows(tuple(window for index in range(len(samples)) for window in self._cut(samples[index])))

    def _cut(self, sample: Sample) -> list[Sample]:
        if len(sample.videos) != 1 or not isinstance(sample.videos[0], FileVideo):
            raise ValueError(f"{sample.id}: ClipWindows cuts samples with one video file, this has other inputs.")
        video = sample.videos[0]
        try:
            windows = self._windows(video.moments())
        except ValueError as error:
            raise ValueError(f"{sample.id}: {error}") from error
        return [
            replace(
                sample,
                id=f"{sample.id}, {start:.3f} s",
                videos=(replace(video, start_s=start, end_s=end),),
                meta={**sample.meta, "clip": sample.id},
            )
            for start, end in windows
        ]

    def _windows(self, moments: list[float]) -> list[tuple[float, float]]:
        """The first and the last frame of every window; none begins as another does."""
        first, length = moments[0], moments[-1] - moments[0]
        begin, end = (first + share * length for share in self.part)
        inside = [one for one in moments if begin <= one and (one < end or self.part[1] == 1.0)]
        starts = [one for one in inside if one + self.seconds <= inside[-1] + _CLOSE]
        if not starts:
            raise ValueError(
                f"the part {self.part} of a clip of {length:.2f} s has no window of {self.seconds} s. Give a longer "
                f"part, or shorter windows."
            )
        places = {number * (len(starts) - 1) // max(1, self.num - 1) for number in range(self.num)}
        chosen = [starts[place] for place in sorted(places)]
        return [(start, max(one for one in inside if one <= start + self.seconds + _CLOSE)) for start in chosen]


class _Windows:
    def __init__(self, samples: tuple[Sample, ...]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[checked(index, len(self))]
