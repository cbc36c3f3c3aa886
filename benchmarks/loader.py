"""How fast clips come from a folder of mp4, cold and kept in memory, beside the rate that training takes them at.

    python benchmarks/loader.py --json benchmarks/results/loader_MACHINE_DATE.json
    python benchmarks/loader.py --quick

Writes a folder of the shapes world as mp4 (240x320, 24 fps, so that every clip is resampled in time and resized),
then reads it as `minisora train --data` does: the scan, a first pass over all clips (decode, resample, resize, keep
as bytes), a second pass from memory. And the generator itself: clips drawn a second, at the toy's size.
"""

import argparse
import tempfile
import time
from pathlib import Path

from interleave import facts, write
from rich.console import Console
from rich.table import Table

from minisora.config import ClipConfig, load
from minisora.data.clips import ClipMemory
from minisora.data.folder.folder_dataset import FolderDataset
from minisora.data.folder.scan import scan_folder
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.data.video.write_video import write_video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="16 files instead of 128")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    arguments = parser.parse_args()
    count = 16 if arguments.quick else 128
    result = facts()
    clip: ClipConfig = load("toy").clip
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = ShapesWorld(count, frames=72, height=240, width=320, fps=24)
        captions = source.captions()
        for number in range(count):
            write_video(Path(folder) / f"{number:04}.mp4", source.clips([number])[0], 24)
            (Path(folder) / f"{number:04}.txt").write_text(captions[number])
        start = time.perf_counter()
        scan = scan_folder(Path(folder), clip, "pad", True)
        seconds["scan the folder"] = time.perf_counter() - start
        dataset = FolderDataset(Path(folder), clip, scan=scan)
        memory = ClipMemory(dataset)
        for name in ("first pass: decode, resample, resize", "second pass: from memory"):
            start = time.perf_counter()
            for first in range(0, len(dataset), 16):
                memory.clips(range(first, min(first + 16, len(dataset))))
            seconds[name] = time.perf_counter() - start
    num_clips = {name: count if "scan" in name else len(dataset) for name in seconds}
    world = ShapesWorld(16 * count, frames=clip.frames, height=clip.height, width=clip.width, fps=clip.fps)
    start = time.perf_counter()
    for first in range(0, len(world), 16):
        world.clips(range(first, first + 16))
    seconds["the generator: shapes drawn"] = time.perf_counter() - start
    num_clips["the generator: shapes drawn"] = len(world)
    table = Table(
        title=f"{count} mp4 of 72 frames, 240x320, 24 fps -> clips of 17x64x64", title_justify="left"
    )
    for head in ("", "files or clips", "seconds", "per second"):
        table.add_column(head, justify="left" if not head else "right")
    rows = []
    for name, took in seconds.items():
        rows.append(
            {"what": name, "count": num_clips[name], "seconds": took, "per_s": num_clips[name] / took}
        )
        table.add_row(name, str(num_clips[name]), f"{took:.2f}", f"{num_clips[name] / took:,.0f}")
    Console(width=100).print(table)
    if arguments.json:
        write(arguments.json, {**result, "files": count, "rows": rows})


if __name__ == "__main__":
    main()
