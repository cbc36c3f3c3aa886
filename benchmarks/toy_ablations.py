"""What makes the toy's objects right and whole: one change at a time, several seeds each, by the judge.

    python benchmarks/toy_ablations.py --out runs/ablations --json benchmarks/results/toy-ablations_MACHINE_DATE.json
    python benchmarks/toy_ablations.py --only base "no scale equivariance" --seeds 0 --out runs/ablations --json FILE

A variant is trained by both stages of `configs/toy.yaml` for equal steps and judged on the 72 prompts, twice each. Runs
that are there are not trained again, and one that was stopped goes on. Minutes are of both stages with encoding, by the
clock; of a run that was stopped none are told.

right, whole    shares of samples of all seeds, with the 95 % interval of the samples (Wilson)
overlap         with the ideal shape, mean; `by_seed` holds each seed's figures
copies whole    of rendered clips after the variant's own VAE: what the DiT could reach
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from interleave import facts, write
from rich.console import Console
from rich.table import Table

from minisora.config import load
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.sample_and_judge import evaluate_model
from minisora.evaluate.score import Rate
from minisora.files import read_json, write_json
from minisora.pipelines.model_folder import load_pipeline
from minisora.training.stages import train_dit, train_vae

VARIANTS: dict[str, list[str]] = {
    "base": [],
    "no scale equivariance": ["train_vae.scale_equivariance=0"],
    "scale equivariance 1": ["train_vae.scale_equivariance=1"],
    "patches of one cell, 12 clips a step": ["dit.patch=[1,1,1]", "train_dit.batch_size=12"],
    "4 latent channels": ["vae.latent_channels=4"],
    "16 latent channels": ["vae.latent_channels=16"],
    "noise on the latents": ["train_vae.latent_noise=0.3", "train_vae.kl_weight=1e-3"],
    "moving pixels count 10 times": ["train_vae.moving_weight=10", "train_vae.moving_crops=0.5"],
    "flow.shift 3": ["flow.shift=3"],
    "1,000 steps of the VAE": ["train_vae.steps=1000"],
}
# Samples of each prompt.
_TIMES = 2


def run(name: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Train a variant under a seed, unless it is there, and judge it."""
    changes: dict[str, Any] = {"seed": seed, "train_dit.steps": steps}
    changes |= {f"train_dit.{key}_every": max(1, steps // 4) for key in ("validate", "save")}
    config = load("toy", VARIANTS[name], changes)
    quiet, taken = Console(quiet=True), folder / "seconds.json"
    if not taken.is_file():
        whole, start = not folder.exists(), time.perf_counter()
        train_vae(config, folder, quiet)
        train_dit(config, folder, quiet)
        write_json(taken, time.perf_counter() - start if whole else None)
    found = evaluate_model(
        load_pipeline(folder / "model", "cpu"), prompt_set("72"), samples_per_prompt=_TIMES, num_checks=72
    )
    score, copies = found.score, found.reconstructed
    assert copies is not None
    return {
        "seed": seed,
        "seconds": read_json(taken),
        "right": score.all_right.right,
        "whole": score.whole.right,
        "clips": score.all_right.total,
        "overlap": score.quality["overlap"],
        "second": score.quality["second"],
        "copies_whole": copies.whole.share,
    }


def row_of(name: str, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all seeds together."""
    clips = sum(each["clips"] for each in seeds)
    seconds = [each["seconds"] for each in seeds if each["seconds"] is not None]
    rates = {key: Rate(sum(each[key] for each in seeds), clips) for key in ("right", "whole")}
    return {
        "variant": name,
        "overrides": VARIANTS[name],
        "seeds": len(seeds),
        **{key: rate.to_dict() for key, rate in rates.items()},
        **{
            key: statistics.mean(each[key] for each in seeds) for key in ("overlap", "second", "copies_whole")
        },
        "minutes": statistics.mean(seconds) / 60 if seconds else None,
        "by_seed": seeds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=1100, help="of the DiT (default 1100)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=tuple(VARIANTS), default=tuple(VARIANTS))
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, which are kept")
    parser.add_argument("--json", type=Path, metavar="FILE", required=True, help="rewritten after each run")
    arguments = parser.parse_args()
    table = Table(title=f"The toy after {arguments.steps} steps of the DiT", title_justify="left")
    for head in ("variant", "seeds", "minutes", "right", "whole", "overlap", "copies whole"):
        table.add_column(head, justify="left" if head == "variant" else "right")
    found: dict[str, list[dict[str, Any]]] = {}
    # Seed by seed, so that every variant has one before any has two.
    for seed in arguments.seeds:
        for name in arguments.only:
            words = name.replace(",", "").replace(" ", "-")
            folder = arguments.out / f"{words}-{arguments.steps}-seed-{seed}"
            found.setdefault(name, []).append(run(name, seed, arguments.steps, folder))
            rows = [row_of(name, seeds) for name, seeds in found.items()]
            write(arguments.json, {**facts(), "steps": arguments.steps, "rows": rows})
    for row in rows:
        table.add_row(
            row["variant"],
            str(row["seeds"]),
            "-" if row["minutes"] is None else f"{row['minutes']:.1f}",
            *(f"{row[key]['share']:.0%}" for key in ("right", "whole")),
            f"{row['overlap']:.3f}",
            f"{row['copies_whole']:.0%}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
