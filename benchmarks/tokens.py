"""What a pass of VideoDiT costs as the clip grows: measured seconds beside counted FLOPs, both attentions.

    python benchmarks/tokens.py --json benchmarks/results/tokens_MACHINE_DATE.json
    python benchmarks/tokens.py --quick

Clips of growing length at one size, and of growing size at one length, one clip a batch, forward and train
step, in the format that minisora trains this width in. FLOPs of factorised attention grow as tokens x (tokens of
a frame + frames), near-linear in frames; those of full attention gain a square. The last column is the exponent
of the cost between a row and the one before: log(cost ratio) / log(token ratio), for FLOPs and for seconds.
"""

import argparse
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from dit_peers import CHANNELS, DEPTH, HEADS, TEXT_TOKENS, TEXT_WIDTH, WIDTH
from interleave import Work, autocast, compare, facts, write
from rich.console import Console
from rich.table import Table

from minisora.flops.count_torch import count_step
from minisora.models.dit import VideoDiT
from minisora.models.precision import choose_precision

BY_FRAMES = [(frames, 16, 16) for frames in (1, 5, 9, 17, 33)]  # latent T H W
BY_SIZE = [(5, side, side) for side in (8, 16, 24, 32)]


def works(model: VideoDiT, size: tuple[int, int, int], precision: str) -> dict[str, Work]:
    """A forward pass and a train step (without optimizer) of one clip."""
    latents = torch.randn(1, CHANNELS, *size)
    sigma, text = torch.rand(1), torch.randn(1, TEXT_TOKENS, TEXT_WIDTH)
    mask = torch.ones(1, TEXT_TOKENS, dtype=torch.bool)

    def loss() -> torch.Tensor:
        with autocast(precision):
            return model(latents, sigma, text, mask, text.mean(1)).float().square().mean()

    def forward() -> None:
        with torch.no_grad():
            loss()

    def step() -> None:
        loss().backward()
        model.zero_grad()

    count = count_step(loss)
    model.zero_grad()
    return {"forward": Work(forward, count.forward_flops), "train step": Work(step, count.model_flops)}


def growth(rows: list[dict]) -> None:
    """Add to each row the exponent since the row before."""
    for before, row in pairwise(rows):
        tokens = math.log(row["tokens"] / before["tokens"])
        row["flops_exponent"] = math.log(row["flops"] / before["flops"]) / tokens
        row["seconds_exponent"] = math.log(row["median_s"] / before["median_s"]) / tokens


def show(title: str, rows: list[dict]) -> None:
    table = Table(title=title, title_justify="left")
    heads = ("latents", "tokens", "GFLOPs", "median ms", "GFLOP/s", "FLOPs exponent", "seconds exponent")
    for head in heads:
        table.add_column(head, justify="right")
    told: Callable[[dict, str], str] = lambda row, key: f"{row[key]:.2f}" if key in row else "-"  # noqa: E731
    for row in rows:
        table.add_row(
            "x".join(map(str, row["latents"])),
            str(row["tokens"]),
            f"{row['flops'] / 1e9:,.2f}",
            f"{1e3 * row['median_s']:,.1f}",
            f"{row['flops_per_s'] / 1e9:,.0f}",
            told(row, "flops_exponent"),
            told(row, "seconds_exponent"),
        )
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds, and only the smaller sizes")
    parser.add_argument("--rounds", type=int, help="timed rounds (default 9; quick 3)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (3 if arguments.quick else 9)
    result = facts()
    precision = choose_precision("auto", torch.device("cpu"), WIDTH)[0]
    rows = []
    for axis, sizes in (("frames", BY_FRAMES), ("size", BY_SIZE)):
        sizes = sizes[:3] if arguments.quick else sizes
        by_work: dict[tuple[str, str], list[dict]] = {}
        for attention in ("factorised", "full"):
            torch.manual_seed(0)
            model = VideoDiT(
                CHANNELS, (1, 2, 2), WIDTH, DEPTH, HEADS, attention=attention, text_width=TEXT_WIDTH
            )
            for size in sizes:
                for what, work in works(model, size, precision).items():
                    row = compare(what, {attention: work}, precision, rounds, warmup=1)[0]
                    tokens = size[0] * (size[1] // 2) * (size[2] // 2)
                    row |= {"axis": axis, "attention": attention, "latents": list(size), "tokens": tokens}
                    by_work.setdefault((attention, what), []).append(row)
        for (attention, what), group in by_work.items():
            growth(group)
            show(f"{attention}, {what}, growing {axis}, {precision}", group)
            rows += group
    if arguments.json:
        settings = {"width": WIDTH, "blocks": DEPTH, "heads": HEADS, "precision": precision, "rounds": rounds}
        write(arguments.json, {**result, "settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
