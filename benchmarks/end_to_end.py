"""Seconds from nothing to 90 % of the prompts right: the demo's stages with growing budgets for the DiT.

    python benchmarks/end_to_end.py --json benchmarks/results/end-to-end_MACHINE_DATE.json       # about 20 minutes
    python benchmarks/end_to_end.py --quick

One VAE and one set of latents, then a DiT from scratch for each number of steps (each with its own schedule: a run
that is stopped early has not seen its learning rate fall, so a point of a longer run would be too low). The time
of a row is what a user with that config would wait: clips, VAE, latents and DiT, without sampling.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from interleave import facts, write
from rich.console import Console
from rich.table import Table

from minisora.config import load
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.sample_and_judge import evaluate_pipeline
from minisora.pipelines.model_folder import load_pipeline
from minisora.training.stages import train_dit, train_vae

TARGET = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", default="toy")
    parser.add_argument("--dit-steps", nargs="+", type=int, default=[900, 1500, 2200], metavar="N")
    parser.add_argument("--seeds", type=int, default=2, help="samples of each of the 72 prompts (default 2)")
    parser.add_argument("--quick", action="store_true", help="20 steps of each: only that it runs")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    arguments = parser.parse_args()
    result, quiet = facts(), Console(quiet=True)
    budgets = [20] if arguments.quick else sorted(arguments.dit_steps)
    short = {"train_vae.steps": 20, "data.num_clips": 64} if arguments.quick else {}
    run = Path(tempfile.mkdtemp())
    start = time.perf_counter()
    config = load(arguments.config).replace(**short)
    train_vae(config, run, quiet)
    vae_s = time.perf_counter() - start
    latents_s = 0.0
    rows = []
    for steps in budgets:
        changed = config.replace(**{"train_dit.steps": steps, "train_dit.sample_every": 0})
        for kept in ("dit", "model"):
            shutil.rmtree(run / kept, ignore_errors=True)
        cached = (run / "cache").exists()
        start = time.perf_counter()
        train_dit(changed, run, quiet)
        dit_s = time.perf_counter() - start
        # The first run encodes too; those seconds belong to every row.
        if not cached:
            trained = [path.stat().st_mtime for path in (run / "cache").rglob("*") if path.is_file()]
            latents_s = max(trained) - min(trained)
            dit_s -= latents_s
        pipeline = load_pipeline(run / "model")
        prompts = list(prompt_set("72")) * arguments.seeds
        score = evaluate_pipeline(pipeline, prompts, seed=0, batch_size=24)[2].all_right
        share = score.right / score.total
        rows.append(
            {
                "dit_steps": steps,
                "vae_s": vae_s,
                "latents_s": latents_s,
                "dit_s": dit_s,
                "total_s": vae_s + latents_s + dit_s,
                "right": score.right,
                "prompts": score.total,
                "share": share,
            }
        )
    shutil.rmtree(run)
    table = Table(title=f"{arguments.config}: from nothing", title_justify="left")
    for head in ("DiT steps", "VAE s", "latents s", "DiT s", "total s", "all right"):
        table.add_column(head, justify="right")
    for row in rows:
        seconds = (f"{row[key]:.0f}" for key in ("vae_s", "latents_s", "dit_s", "total_s"))
        table.add_row(
            str(row["dit_steps"]), *seconds, f"{row['right']}/{row['prompts']} = {row['share']:.1%}"
        )
    Console(width=100).print(table)
    reached = [row["total_s"] for row in rows if row["share"] >= TARGET]
    print(f"{TARGET:.0%} right: " + (f"{min(reached):.0f} s" if reached else "not reached"))
    if arguments.json:
        write(arguments.json, {**result, "target": TARGET, "rows": rows})


if __name__ == "__main__":
    main()
