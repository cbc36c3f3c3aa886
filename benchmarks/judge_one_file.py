"""What scripts/one_file.py learns, judged from the moving picture that it writes.

    python benchmarks/judge_one_file.py --json benchmarks/results/onefile_MACHINE_DATE.json    # five minutes of a core
    python benchmarks/judge_one_file.py --work 2 64 2                                          # only that it runs

All 48 captions are filmed: the twelve that the script shows by default first, then the rest.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleave import facts, write
from PIL import Image, ImageSequence
from rich.console import Console
from rich.table import Table
from torch import Tensor

from minisora.data.shapes_world.grammar import parse
from minisora.evaluate.judge.verdict import judge_all
from minisora.evaluate.score import Score

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import one_file

# Of the moving picture: videos a row, and pixels: a video's side, a caption's height.
COLUMNS, TILE, LABEL = 4, 192, 16
PARTS = ("color", "shape", "motion")


def read_gif(path: Path, count: int) -> Tensor:
    """The first `count` videos of a moving picture, B 3 T H W in [-1, 1], at the size that they were sampled at."""
    with Image.open(path) as image:
        pages = np.stack([np.asarray(page.convert("RGB")) for page in ImageSequence.Iterator(image)])
    zoom = TILE // one_file.SIDE
    corners = [(number // COLUMNS * (TILE + LABEL), number % COLUMNS * TILE) for number in range(count)]
    tiles = [pages[:, y : y + TILE : zoom, x : x + TILE : zoom] for y, x in corners]  # T H W 3 each
    return torch.from_numpy(np.stack(tiles)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def judged(videos: Tensor, captions: Sequence[str]) -> dict[str, Any]:
    """What is right of each caption, and how many are: of those that the script shows, and of all."""
    verdicts, prompts = judge_all(videos), [parse(caption) for caption in captions]
    rows = []
    for caption, verdict, prompt in zip(captions, verdicts, prompts, strict=True):
        right = {name: verdict.matches(prompt)[name] for name in PARTS}
        rows.append({"caption": caption, **right, "all_right": all(right.values())})
    shown = len(one_file.SHOWN)
    scores = {
        "shown": Score.of(verdicts[:shown], prompts[:shown]).to_dict(),
        "all": Score.of(verdicts, prompts).to_dict(),
    }
    names = (*PARTS, "all_right")
    return {
        "scores": {name: {part: score[part] for part in names} for name, score in scores.items()},
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", nargs=3, default=["450", "8192", "1600"], help="as of scripts/one_file.py")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    parser.add_argument("--gif", type=Path, metavar="OUT", help="keep the moving picture there")
    arguments = parser.parse_args()
    result = facts()
    captions = one_file.SHOWN + [caption for caption in one_file.CAPTIONS if caption not in one_file.SHOWN]
    with tempfile.TemporaryDirectory(prefix="one-file-") as folder:
        gif = arguments.gif or Path(folder) / "one_file.gif"
        start = time.process_time()
        one_file.main(["--out", str(gif), "--work", *arguments.work, "--captions", *captions])
        seconds = time.process_time() - start
        result |= judged(read_gif(gif, len(captions)), captions)
    table = Table(title=f"scripts/one_file.py: {seconds:.0f} s of CPU", title_justify="left")
    for head in ("captions", *PARTS, "all right"):
        table.add_column(head, justify="left" if head == "captions" else "right")
    for name, score in result["scores"].items():
        table.add_row(
            name, *(f"{score[part]['right']}/{score[part]['total']}" for part in (*PARTS, "all_right"))
        )
    Console(width=100).print(table)
    if arguments.json:
        work = dict(zip(("autoencoder_steps", "clips", "dit_steps"), map(int, arguments.work), strict=True))
        lines = len(Path(one_file.__file__).read_text().splitlines())
        write(arguments.json, {**result, "work": work, "cpu_seconds": seconds, "lines": lines})


if __name__ == "__main__":
    main()
