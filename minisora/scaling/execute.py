"""Run a ladder: train what is not finished yet, measure it, append its row.

OUT/ladder.yaml         the ladder's file and what all runs share; another one is refused, but for further runs
   /results.jsonl       a row per finished run
   /shared/vae/, cache/    the VAE and the latents that all runs share
   /runs/NAME/          a run in progress, resumed where it stopped; its model when done
"""

import math
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from filelock import FileLock
from rich.console import Console
from rich.table import Table
from torch import Tensor

from minisora.config import override
from minisora.data.batches import LatentSource
from minisora.data.sources import open_dataset
from minisora.data.video_write import write_video
from minisora.errors import UserError
from minisora.evaluate.prompt_sets import prompt_set
from minisora.files import write_whole
from minisora.measure.device import describe_device
from minisora.models.build import latent_grid
from minisora.models.vae import VideoVAE
from minisora.pipelines.model_folder import load_pipeline
from minisora.scaling.kept import Kept
from minisora.scaling.ladder import LadderConfig, plan, shard, shared_config
from minisora.scaling.metrics import judge_run
from minisora.scaling.results import Row, append_row, read_rows
from minisora.training.checkpoint import checkpoints
from minisora.training.latents import build_latents
from minisora.training.launch import process_device
from minisora.training.stages import discard_checkpoints, load_vae, train_dit_on, train_vae


class First:
    """The first clips of a `LatentSource`."""

    def __init__(self, source: LatentSource, count: int):
        self.source, self.count = source, count

    def __len__(self) -> int:
        return self.count

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Normalised latents B Z T' H' W'."""
        return self.source.latents(indices)

    def captions(self) -> list[str]:
        """Of these clips."""
        return self.source.captions()[: self.count]


def prepare(ladder: LadderConfig, out: Path, console: Console) -> tuple[VideoVAE, LatentSource, LatentSource]:
    """The VAE and the training and validation latents that all runs share; made once, by one process at a time.

    Raises:
        UserError: `out` belongs to another ladder, or cannot be written.
    """
    _keep_plan(ladder, out)
    shared, folder = shared_config(ladder), out / "shared"
    folder.mkdir(exist_ok=True)
    clips = max(run.clips for run in plan(ladder))
    with FileLock(folder / ".lock"):
        if not (folder / "vae" / "model" / "config.json").is_file():
            console.print("training the VAE that all runs share", highlight=False)
            train_vae(shared, folder, Console(quiet=True))
        vae = load_vae(folder / "vae" / "model").to(process_device())
        many = open_dataset(override(shared, [f"data.num_clips={clips}"]), "train")
        unseen = open_dataset(shared, "validation")
        sources = [
            build_latents(shared, vae, dataset, folder / "cache", console, name)
            for name, dataset in (("training", many), ("validation", unseen))
        ]
    return vae, sources[0], sources[1]


def run_in_jobs(ladder: LadderConfig, file: str, out: Path, console: Console, jobs: int) -> None:
    """The ladder in several processes side by side, each with its share of the threads and of the runs.

    Small models leave most of two cores idle between their many small products; a core each wastes less.

    Args:
        ladder: the plan.
        file: the `--ladder` that it was read from.
        out: folder of the results.
        console: where progress is shown.
        jobs: processes.

    Raises:
        UserError: as `run_ladder`.
    """
    prepare(ladder, out, console)  # with all threads
    threads = str(max(1, torch.get_num_threads() // jobs))
    command = [sys.executable, "-m", "minisora", "scale", "run", "--ladder", file, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    running = [
        subprocess.Popen([*command, "--shard", f"{job}/{jobs}"], env=environment)
        for job in range(1, jobs + 1)
    ]
    try:
        for process in running:
            process.wait()
    except KeyboardInterrupt:
        for process in running:  # they had the signal too, and save where they are
            process.wait()
        raise


def run_ladder(ladder: LadderConfig, out: Path, console: Console, part: str = "1/1") -> list[Row]:
    """Every run of the ladder (or of a shard of it) that has no row yet; returns all rows.

    A run that fails is told, written to failures.jsonl, and the next one begins.

    Args:
        ladder: the plan.
        out: folder of the results.
        console: where progress is shown.
        part: "i/n": every n-th run from the i-th, for independent jobs on one folder.

    Raises:
        UserError: the plan is wrong, or `out` belongs to another ladder.
    """
    runs = shard(plan(ladder), part)
    _keep_plan(ladder, out)
    results = out / "results.jsonl"
    finished = {row["name"] for row in read_rows(results)}
    left = [run for run in runs if run.name not in finished]
    console.print(f"{len(runs) - len(left)} of {len(runs)} runs are finished", highlight=False)
    if not left:
        return read_rows(results)
    shared = shared_config(ladder)
    vae, train, validation = prepare(ladder, out, console)
    real = validation.latents(range(len(validation)))
    for number, run in enumerate(left, start=1):
        console.print(
            f"[bold]{run.name}[/bold] ({number} of {len(left)}): {run.params / 1e6:.2f} M parameters, "
            f"{run.steps} steps of {run.batch}, {run.flops:.3g} FLOPs",
            highlight=False,
            soft_wrap=True,
        )
        folder = out / "runs" / run.name
        try:
            start = time.perf_counter()
            resumed = bool(checkpoints(folder / "dit" / "checkpoints"))
            config = override(shared, run.overrides())
            trained = train_dit_on(
                config, vae, First(train, run.clips), validation, folder, Console(quiet=True)
            )
            seconds = time.perf_counter() - start
            pipeline = load_pipeline(folder / "model")
            row = {
                **run.to_dict(),
                "loss": trained.validation["loss"],
                **judge_run(pipeline, prompt_set(ladder.prompts), real),
                "seconds": None if resumed else seconds,
                "device": describe_device(str(process_device())),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            shown = pipeline([ladder.shown_prompt], seed=0, progress=False).videos[0]
            write_video(out / "samples" / f"{run.name}.mp4", shown, shared.clip.fps)
            append_row(results, row)
            discard_checkpoints(folder)
            told = (
                f"loss {row['loss']:.4f}, {row['right']['all_right']}/{row['prompts']} right, {seconds:.0f} s"
            )
            console.print(f"  {told}", highlight=False)
        except Exception as error:  # one run must not end the ladder
            reason = str(error) if isinstance(error, UserError) else traceback.format_exc()
            append_row(
                out / "failures.jsonl",
                {
                    "name": f"{run.name} {datetime.now(UTC).isoformat()}",
                    "run": run.to_dict(),
                    "reason": reason,
                },
            )
            console.print(f"  [red]failed:[/red] {str(error).splitlines()[0] if str(error) else error!r}")
    return read_rows(results)


def plan_table(ladder: LadderConfig, rows: Sequence[Row] = ()) -> Table:
    """Every run with its size, steps, counted FLOPs and predicted time, by the speed of finished runs if any."""
    runs, done = plan(ladder), {row["name"]: row for row in rows}
    timed = [row for row in rows if row["seconds"]]
    speed = (
        sum(r["flops"] for r in timed) / sum(r["seconds"] for r in timed)
        if timed
        else ladder.flops_per_second
    )
    table = Table(title=f"{len(runs)} runs", title_justify="left")
    for head in (
        "run",
        "size",
        "M params",
        "batch",
        "steps",
        "epochs",
        "FLOPs",
        "time",
    ):
        table.add_column(head, justify="left" if head == "run" else "right", no_wrap=True)
    for run in runs:
        seconds = run.flops / speed
        table.add_row(
            run.name,
            f"{run.width}x{run.depth}",
            f"{run.params / 1e6:.2f}",
            str(run.batch),
            f"{run.steps:,}",
            f"{run.epochs:g}",
            f"{run.flops:.3g}",
            "done" if run.name in done else f"{seconds / 60:.1f} min",
        )
    left = sum(run.flops for run in runs if run.name not in done)
    clips = max(run.clips for run in runs)
    cells = math.prod(latent_grid(shared_config(ladder))) * shared_config(ladder).vae.latent_channels
    source = (
        "as the finished runs took" if timed else f"at {speed / 1e9:,.0f} GFLOP/s, the ladder's own guess"
    )
    table.caption = (
        f"{sum(run.flops for run in runs):.3g} FLOPs in all; {left / speed / 60:.0f} min left {source}; "
        f"the VAE, latents of {clips:,} clips ({4 * cells * clips / 1e9:.1f} GB) and judging come on top"
    )
    return table


def _keep_plan(ladder: LadderConfig, out: Path) -> None:
    """Write the ladder beside its results; a folder of another ladder is refused, unless this one only adds runs."""
    file, now = out / "ladder.yaml", Kept.of(ladder)
    try:
        if file.is_file():
            before = Kept.read(out)
            if before == now:
                return
            if not before.grows_into(now):
                raise UserError(f"{out} holds the results of another ladder: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        write_whole(file, now.to_yaml())
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
