"""Sora's framing claim in miniature: native sizes against square crops of the same clips.

    python benchmarks/composition.py --json benchmarks/results/composition_MACHINE_DATE.json    # about 15 minutes
    python benchmarks/composition.py --quick

Two DiTs learn from the same wide (48x80) and tall (80x48) clips, one from the whole frames, one from their middle
squares (48x48), for as many steps of as many clips; the VAE is the shipped toy's. Both then sample the 72 prompts.

whole        share of the frames that show the whole object; no clip of the data lets its object touch the edge
all whole    share of the videos that do so in every frame
all right    share of the videos with the prompt's colour, shape and motion

OpenAI's report on Sora (2024) says that a model trained on square crops cuts subjects off, and one trained on native
sizes frames them.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleave import facts, write
from rich.console import Console
from rich.table import Table
from torch import Tensor

from minisora.config import Config, load
from minisora.data.clips import ClipDataset
from minisora.data.dataset import bucket_configs, open_dataset
from minisora.data.shapes_world.grammar import parse
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.data.video.write_video import write_contact_sheet
from minisora.evaluate.judge.follow import observe
from minisora.evaluate.judge.shapes import reach_of
from minisora.evaluate.judge.verdict import judge_all
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.sample_and_judge import evaluate_pipeline
from minisora.evaluate.score import Score
from minisora.models.vae import VideoVAE
from minisora.pipelines.model_folder import load_pipeline
from minisora.training.latents import build_latents
from minisora.training.stages import train_dit, train_dit_on

WIDE, TALL, SQUARE = (17, 48, 80), (17, 80, 48), (17, 48, 48)
# Which prompt's video is shown.
EXAMPLE = 5
# Pixels that a fitted edge may lie outside: after a VAE at 30 dB it is off by half of one.
TOLERANCE = 1.0
NATIVE = [
    "clip.height=48",
    "clip.width=80",
    "data.buckets=[{frames: 17, height: 80, width: 48, share: 1.0}]",
    "dit.width=128",
    "dit.heads=4",
    "flow.known_share=0",
    "flow.image_share=0",
]


class MiddleSquares:
    """A `ClipDataset` of the middle squares of two others' clips, by turns."""

    def __init__(self, first: ClipDataset, second: ClipDataset):
        self.sets = (first, second)

    def __len__(self) -> int:
        return 2 * min(len(each) for each in self.sets)

    def clips(self, indices: Sequence[int]) -> Tensor:
        return torch.cat([middle(self.sets[index % 2].clips([index // 2])) for index in indices])

    def captions(self) -> list[str]:
        pairs = zip(*(each.captions() for each in self.sets), strict=False)
        return [caption for pair in pairs for caption in pair]

    def fingerprint(self) -> str:
        return "-".join(["middle-squares", *(each.fingerprint() for each in self.sets)])


def middle(videos: Tensor) -> Tensor:
    """The middle square of videos, ... H W."""
    side = min(videos.shape[-2:])
    top, left = ((length - side) // 2 for length in videos.shape[-2:])
    return videos[..., top : top + side, left : left + side]


def train_on_squares(config: Config, vae: VideoVAE, run: Path, quiet: Console) -> None:
    """The same DiT on the middle squares of the native clips."""
    (tall,) = bucket_configs(config)
    sources = [
        build_latents(config, vae, dataset, run / "cache", quiet, "square")
        for dataset in (
            MiddleSquares(open_dataset(config, split), open_dataset(tall, split))
            for split in ("train", "validation")
        )
    ]
    square = config.replace(**{"data.buckets": (), "clip.width": 48})
    train_dit_on(square, vae, sources[0], sources[1], run, quiet)


def whole_share(video: Tensor) -> float:
    """The share of a video's frames, 0 to 1, that show its object whole; frames without one show none.

    Walls hide objects too, which says nothing of the frame: judge videos of prompts without one.

    Args:
        video: `3 T H W` in [-1, 1].

    Raises:
        UserError: the tensor is no such clip.
    """
    tracked = observe(video).object
    if tracked is None:
        return 0.0
    up, down, aside = reach_of(tracked.shape) * tracked.fit.radius
    low = np.array([up, aside]) - 0.5 - TOLERANCE  # (y, x): where a centre may be
    high = np.array(video.shape[2:]) - 0.5 - np.array([down, aside]) + TOLERANCE
    # T 2; NaN is not inside.
    inside = (tracked.centers >= low) & (tracked.centers <= high)
    return float(inside.all(axis=1).mean())


def judged(name: str, size: tuple[int, int, int], videos: Tensor, score: Score) -> dict[str, Any]:
    """A row of the table."""
    shares = [whole_share(video) for video in videos]
    return {
        "trained_on": name,
        "size": list(size),
        "whole": sum(shares) / len(shares),
        "all_whole": sum(share == 1 for share in shares),
        "all_right": score.all_right.right,
        "videos": len(shares),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=1600, help="of each DiT (default 1600)")
    parser.add_argument("--clips", type=int, default=4000, help="in all, wide and tall (default 4000)")
    parser.add_argument("--quick", action="store_true", help="20 steps on 64 clips: only that it runs")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    parser.add_argument("--sheet", type=Path, metavar="OUT", help="a picture of each: the same prompt")
    arguments = parser.parse_args()
    result, quiet = facts(), Console(quiet=True)
    steps, clips = (20, 64) if arguments.quick else (arguments.steps, arguments.clips)
    often = {f"train_dit.{key}": steps for key in ("steps", "validate_every", "save_every")}
    counts = {"data.num_clips": clips // 2, "data.num_validation_clips": 16, "train_dit.sample_every": 0}
    config = load("modes", NATIVE).replace(**often, **counts)
    prompts, vae = prompt_set("72"), load_pipeline("toy").vae
    wanted = [parse(prompt) for prompt in prompts]
    rows, shown, captions = [], [], []

    def sampled(name: str, model: Path, sizes: Sequence[tuple[int, int, int]]) -> None:
        pipeline = load_pipeline(model)
        for size in sizes:
            videos, _, score = evaluate_pipeline(pipeline, prompts, seed=0, batch_size=24, size=size)
            rows.append(judged(name, size, videos, score))
            shown.append(videos[EXAMPLE])
            captions.append(f"{name}, {size[1]}x{size[2]}: {prompts[EXAMPLE]}")

    for size in (WIDE, TALL):
        world = ShapesWorld(1, frames=size[0], height=size[1], width=size[2])
        real = world.render(wanted, seed=0)
        for name, of, videos in (("(the data)", size, real), ("(its squares)", SQUARE, middle(real))):
            rows.append(judged(name, of, videos, Score.of(judge_all(videos), wanted)))
    with tempfile.TemporaryDirectory(prefix="composition-") as folder:
        native, squares = Path(folder) / "native", Path(folder) / "squares"
        for run in (native, squares):
            vae.save_pretrained(run / "vae" / "model")
        train_dit(config, native, quiet)
        sampled("native", native / "model", (WIDE, TALL))
        train_on_squares(config, vae, squares, quiet)
        sampled("squares", squares / "model", (SQUARE, WIDE, TALL))

    table = Table(title=f"DiTs of {steps} steps of {config.train_dit.batch_size} clips", title_justify="left")
    for head in ("trained on", "height x width", "whole", "all whole", "all right"):
        table.add_column(head, justify="left" if head == "trained on" else "right")
    for row in rows:
        counted = (f"{row[key]}/{row['videos']}" for key in ("all_whole", "all_right"))
        table.add_row(row["trained_on"], "{1}x{2}".format(*row["size"]), f"{row['whole']:.1%}", *counted)
    Console(width=100).print(table)
    if arguments.json:
        write(arguments.json, {**result, "steps": steps, "clips": clips, "rows": rows})
    if arguments.sheet:
        write_contact_sheet(arguments.sheet, shown, captions)


if __name__ == "__main__":
    main()
