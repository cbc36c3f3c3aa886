"""Videos as other programs write them: by PyAV directly, not by minisora."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

CODECS = {
    ".mp4": "libx264",
    ".mov": "libx264",
    ".mkv": "mpeg4",
    ".avi": "mpeg4",
    ".webm": "libvpx",
    ".gif": "gif",
}


def write_ramp(
    path: Path, frames: int, fps: float, height: int = 48, width: int = 64, **options: str
) -> Path:
    """A grey video whose brightness is 100 units per second, from 20: brightness tells the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # How many frames from one key frame to the next is the encoder's business, the others are the file's.
    gop = int(options.pop("g", 250))
    with av.open(str(path), "w", options=options) as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream(CODECS[path.suffix], rate=rate)
        stream.height, stream.width = height, width
        stream.pix_fmt = "rgb8" if path.suffix == ".gif" else "yuv420p"
        stream.bit_rate = 2_000_000
        stream.gop_size = gop
        for index in range(frames):
            grey = np.full((height, width, 3), min(255, round(20 + 100 * index / fps)), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def ramp():
    return write_ramp


@pytest.fixture
def mixed_folder(tmp_path):
    """Ten videos of different kinds, sizes, rates and lengths, one of them cut off, all with a caption."""
    folder = tmp_path / "clips"
    write_ramp(folder / "a.mp4", 60, 30, 64, 96)
    write_ramp(folder / "b_portrait.mp4", 60, 25, 96, 54)
    write_ramp(folder / "c_three_frames.mp4", 3, 8)
    write_ramp(folder / "d.mov", 40, 12)
    write_ramp(folder / "sub" / "e.avi", 60, 24)
    write_ramp(folder / "sub" / "f.webm", 60, 24)
    write_ramp(folder / "g.gif", 20, 10)
    write_ramp(folder / "h.mkv", 50, 25, 32, 32)
    write_ramp(folder / "i_long.mp4", 150, 25)
    cut = write_ramp(folder / "j_truncated.mp4", 60, 25)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    rows = "".join(f'{name},"grey, clip {name[:1]}"\n' for name in names)
    (folder / "metadata.csv").write_text("file_name,text\n" + rows)
    return folder
