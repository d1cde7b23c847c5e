"""Time and peak memory of a video as it grows longer, each length in a process of its own.

    python -m benchmarks.video                  # 1, 3 and 10 minutes at 320 x 240, 32 frames through the bundled eye

    python -m benchmarks.video --minutes 10 --frames 128

Prints, for each length, how many frames the file holds, by how much the memory held rises at most while the chosen
frames are found, decoded and encoded, over what the model takes, and the processor time of these three: finding reads
every packet once and decodes none.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

from benchmarks.peaks import forget_peak, peak_mib

MINUTES = (1, 3, 10)
RATE = 10
SIZE = (320, 240)


def write(path: Path, minutes: int) -> None:
    """A moving pattern, so that packets are not empty, with a keyframe every five seconds."""
    import av
    import numpy as np

    wide, high = SIZE
    ramp = (np.arange(wide)[None, :] + np.arange(high)[:, None]).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = wide, high, "yuv420p"
        stream.codec_context.gop_size = 5 * RATE
        for number in range(minutes * 60 * RATE):
            luma = np.full((high * 3 // 2, wide), 128, dtype=np.uint8)
            luma[:high] = np.roll(ramp, 3 * number, axis=1)
            frame = av.VideoFrame.from_ndarray(luma, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def measure(path: Path, frames: int) -> None:
    """Print one row."""
    import torch

    from isthmus.data.frames import UniformFrames
    from isthmus.data.video import FileVideo
    from isthmus.encoders import VideoEncoder, VisionEncoder

    torch.set_num_threads(1)
    config = VideoEncoder(tower=VisionEncoder(views_at_once=8), max_frames=frames)
    eye = config.build()
    first = FileVideo(root=str(path.parent), path=path.name, frames=UniformFrames(num=1), max_side=96)
    with torch.inference_mode():
        eye(eye.prepare(first.load()).pixels)
    before = forget_peak()
    begun = time.process_time()
    first.load()
    found = time.process_time()
    video = FileVideo(root=str(path.parent), path=path.name, frames=UniformFrames(num=frames), max_side=96)
    clip = video.load()
    decoded = time.process_time()
    with torch.inference_mode():
        features = eye(eye.prepare(clip).pixels)
    ended = time.process_time()
    rise = peak_mib() - before
    print(
        f"{clip.times_s[-1] / 60:7.1f} {path.stat().st_size / 2**20:8.1f} {rise:12.1f} {1e3 * (found - begun):10.0f} "
        f"{1e3 * (decoded - found) / frames:14.1f} {1e3 * (ended - decoded) / frames:14.1f} {features.grid.size:8d}",
        flush=True,
    )


def main() -> None:
    """Make each video in a temporary folder and measure it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--minutes", type=int, nargs="+", default=list(MINUTES))
    parser.add_argument("--file", type=Path, default=None)
    asked = parser.parse_args()
    if asked.file is not None:
        measure(asked.file, asked.frames)
        return
    print("minutes  MiB file  rise in MiB  find (ms)  decode ms/frame  encode ms/frame  tokens")
    with tempfile.TemporaryDirectory() as folder:
        for minutes in asked.minutes:
            path = Path(folder) / f"{minutes}.mp4"
            write(path, minutes)
            command = [sys.executable, "-m", "benchmarks.video", "--file", str(path), "--frames", str(asked.frames)]
            subprocess.run(command, check=True)
            path.unlink()


if __name__ == "__main__":
    main()
