"""Clips of many sizes in one training step: how much of it is padding, packed, padded, or one size a step.

    python benchmarks/packing.py --json benchmarks/results/packing_MACHINE_DATE.json
    python benchmarks/packing.py --quick

Batches of the sizes of configs/modes.yaml, in its shares.

waste        tokens that only pad, of all tokens that are computed
padded       every clip of a batch padded to the longest
packed       common rows of tokens (minisora.models.packed), at several capacities
a size       one size a step, as configs/modes.yaml trains: no padding, but a step sees one size only

Seconds are of forward and backward of that DiT, interleaved; a packed row attends to all of itself under a
mask, so long rows pay for products between clips that the mask then hides.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from interleave import Work, autocast, compare, facts, write
from rich.console import Console
from rich.table import Table
from torch import Tensor

from minisora.config import load
from minisora.models.build import build_dit, latent_grid
from minisora.models.clip_grid import token_grid
from minisora.models.dit import VideoDiT
from minisora.models.packed import pack, packed_velocities
from minisora.models.precision import choose_precision

TEXT_TOKENS, TEXT_WIDTH = 24, 128
CAPACITIES = (256, 512, 1024)


def passes(model: VideoDiT, clips: list[Tensor], capacity: int, precision: str) -> dict[str, Work]:
    """A forward and backward pass of the same clips, packed and a size at a time."""
    sigmas = [torch.rand(1) for _ in clips]
    text = torch.randn(len(clips), TEXT_TOKENS, TEXT_WIDTH)
    mask = torch.ones(len(clips), TEXT_TOKENS, dtype=torch.bool)
    groups: dict[torch.Size, list[int]] = {}
    for i, clip in enumerate(clips):
        groups.setdefault(clip.shape, []).append(i)

    def packed() -> None:
        with autocast(precision):
            velocities = packed_velocities(model, clips, sigmas, capacity, text, mask, text.mean(1))
            loss = sum(clip.float().square().mean() for clip in velocities)
        torch.as_tensor(loss).backward()
        model.zero_grad()

    def by_size() -> None:
        for rows in groups.values():
            some = torch.stack([clips[i] for i in rows])
            level = torch.cat([sigmas[i] for i in rows])
            with autocast(precision):
                velocity = model(some, level, text[rows], mask[rows], text[rows].mean(1))
                loss = velocity.float().square().mean()
            loss.backward()
        model.zero_grad()

    return {"a size at a time": Work(by_size, 0), "packed": Work(packed, 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small batch, one round")
    parser.add_argument("--batches", type=int, default=500, help="for the waste (default 500)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    arguments = parser.parse_args()
    result, config = facts(), load("modes")
    sizes = [config.clip, *config.data.buckets]
    shares = np.array([1.0, *(bucket.share for bucket in config.data.buckets)])
    grids = [latent_grid(config, size) for size in sizes]
    tokens = [math.prod(token_grid(grid, config.dit.patch)) for grid in grids]
    generator = np.random.default_rng(0)
    rows = []
    for batch in (16, 32, 64):
        drawn = [
            [tokens[i] for i in generator.choice(len(tokens), batch, p=shares / shares.sum())]
            for _ in range(10 if arguments.quick else arguments.batches)
        ]
        real, padded = sum(map(sum, drawn)), sum(batch * max(lengths) for lengths in drawn)
        rows.append({"batch": batch, "how": "padded", "waste": 1 - real / padded})
        for capacity in CAPACITIES:
            laid = [pack(lengths, capacity) for lengths in drawn]
            computed = sum(len(row.clips) * row.length for row in laid)
            rows.append({"batch": batch, "how": f"packed to {capacity}", "waste": 1 - real / computed})
    table = Table(title="padding, of all tokens computed", title_justify="left")
    for head in ("clips a batch", "how", "waste"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(str(row["batch"]), str(row["how"]), f"{row['waste']:.2%}")
    console = Console(width=110)
    console.print(table)

    torch.manual_seed(0)
    model = build_dit(config, TEXT_WIDTH)
    precision = choose_precision("auto", torch.device("cpu"), config.dit.width)[0]
    count = 4 if arguments.quick else 32
    chosen = generator.choice(len(tokens), count, p=shares / shares.sum())
    clips = [torch.randn(config.vae.latent_channels, *grids[i]) for i in chosen]
    timed = Table(title=f"{count} clips, forward and backward, {precision}", title_justify="left")
    for head in ("capacity", "how", "median ms", "over a size at a time"):
        timed.add_column(head, justify="right")
    times = []
    for capacity in CAPACITIES:
        works = passes(model, clips, capacity, precision)
        for row in compare("step", works, precision, 1 if arguments.quick else 9, warmup=1):
            kept = {key: row[key] for key in ("model", "median_s", "min_s", "max_s", "rounds", "times_ours")}
            times.append({"capacity": capacity, **kept})
            timed.add_row(
                str(capacity), row["model"], f"{1e3 * row['median_s']:,.0f}", f"{row['times_ours']:.2f}"
            )
    console.print(timed)
    if arguments.json:
        write(
            arguments.json,
            {**result, "tokens": tokens, "shares": shares.tolist(), "rows": rows, "times": times},
        )


if __name__ == "__main__":
    main()
