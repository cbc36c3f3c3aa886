"""Run a ladder: train what is not finished yet, measure it, append its row.

OUT/ladder.yaml         the ladder's file and what all runs share; another one is refused, but for further runs
   /results.jsonl       a row per finished run
   /shared/vae/, cache/    the VAE and the latents that all runs share
   /runs/NAME/          a run in progress, resumed where it stopped; its model when done
   /runs/.NAME.lock     held by the process that trains it
"""

import math
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from filelock import FileLock, Timeout
from rich.console import Console
from torch import Tensor

from minisora.data.batches import LatentSource
from minisora.data.clips import StandsIn
from minisora.data.dataset import open_dataset
from minisora.data.shapes_world.grammar import parse
from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.evaluate.judge.verdict import judge_all
from minisora.evaluate.likeness import frechet_distance
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.score import Score
from minisora.files import write_whole
from minisora.flops.device import describe_device
from minisora.limits import seed_after
from minisora.models.build import latent_grid
from minisora.models.vae import VideoVAE
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.scaling.ladder import LadderConfig, Run, plan, shard, shared_config
from minisora.scaling.results import LadderFile, RunRow, append_row, read_rows
from minisora.screen import Table, say
from minisora.training.checkpoint import checkpoints
from minisora.training.latents import build_latents
from minisora.training.launch import process_device
from minisora.training.stages import discard_checkpoints, load_vae, train_dit_on, train_vae

# How the line of a run that did not finish begins.
_FAILED = "failed: "


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

    def captions_of(self, indices: Sequence[int]) -> list[str]:
        """The captions of the clips whose latents were given for these."""
        if isinstance(self.source, StandsIn):
            return self.source.captions_of(indices)
        captions = self.captions()
        return [captions[index] for index in indices]


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
            say(console, "training the VAE that all runs share")
            train_vae(shared, folder, Console(quiet=True))
        vae = load_vae(folder / "vae" / "model").to(process_device())
        many = open_dataset(shared.replace(**{"data.num_clips": clips}), "train")
        unseen = open_dataset(shared, "validation")
        sources = [
            build_latents(shared, vae, dataset, folder / "cache", console, name)
            for name, dataset in (("training", many), ("validation", unseen))
        ]
    return vae, sources[0], sources[1]


@dataclass(frozen=True)
class _Bench:
    """What all runs of a ladder share: they differ in size, steps and seeds only."""

    ladder: LadderConfig
    out: Path
    vae: VideoVAE
    train: LatentSource
    validation: LatentSource

    def attempt(self, run: Run) -> str:
        """Train and measure a run and append its row, or a row of failures.jsonl: one run must not end the ladder.

        Returns:
            How it went, for people to read.
        """
        try:
            row = self._measure(run)
        except Exception as error:
            reason = str(error) if isinstance(error, UserError) else traceback.format_exc()
            name = f"{run.name} {datetime.now(UTC).isoformat()}"
            append_row(self.out / "failures.jsonl", {"name": name, "run": run.to_dict(), "reason": reason})
            return f"{_FAILED}{str(error).splitlines()[0] if str(error) else error!r}"
        took = "resumed" if row["seconds"] is None else f"{row['seconds']:.0f} s"
        return f"loss {row['loss']:.4f}, {row['right']['all_right']}/{row['prompts']} right, {took}"

    def _measure(self, run: Run) -> RunRow:
        """Train a run, or go on with it, judge it and append its row; returns the row."""
        folder, shared = self.out / "runs" / run.name, shared_config(self.ladder)
        start = time.perf_counter()
        resumed = bool(checkpoints(folder / "dit" / "checkpoints"))
        trained = train_dit_on(
            run.config(shared),
            self.vae,
            First(self.train, run.clips),
            self.validation,
            folder,
            Console(quiet=True),
        )
        seconds = time.perf_counter() - start
        pipeline = load_pipeline(folder / "model")
        real = self.validation.latents(range(len(self.validation)))
        row = {
            **run.to_dict(),
            "loss": trained.validation["loss"],
            **judge_run(pipeline, prompt_set(self.ladder.prompts), real),
            "seconds": None if resumed else seconds,
            "device": describe_device(str(process_device())),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        video = pipeline([self.ladder.shown_prompt], seed=0, progress=False).videos[0]
        write_video(self.out / "samples" / f"{run.name}.mp4", video, shared.clip.fps)
        append_row(self.out / "results.jsonl", row)
        discard_checkpoints(folder)
        return row


def latent_distance(generated: Tensor, real: Tensor) -> float:
    """Frechet distance of two sets of latents, without a decoder or a learned feature.

    Each cell of the grid is a point: its channels, and their change to the next latent frame. 0 is equal in mean and
    covariance.

    Args:
        generated, real: N Z T' H' W', T' at least 2.
    """
    changes = [torch.cat([each[:, :, :-1], each.diff(dim=2)], dim=1) for each in (generated, real)]
    first, second = (each.movedim(1, -1).flatten(0, -2) for each in changes)  # points x 2Z
    return frechet_distance(first, second)


def judge_run(
    pipeline: MiniSoraPipeline, prompts: Sequence[str], real: Tensor, seed: int = 0, batch_size: int = 24
) -> dict[str, Any]:
    """Sample every prompt once: the judge's counts, and the distance of the latents to those of real clips.

    Args:
        pipeline: a model of the shapes world.
        prompts: of its grammar.
        real: latents of unseen clips, N Z T' H' W'.
        seed: prompt i starts from the noise of seed + i.
        batch_size: prompts at a time.
    """
    parts = []
    for start in range(0, len(prompts), batch_size):
        texts = list(prompts[start : start + batch_size])
        parts.append(
            pipeline(texts, seed=seed_after(seed, start), output_type="latent", progress=False).videos.cpu()
        )
    latents = torch.cat(parts)
    with torch.no_grad():
        verdicts = [
            verdict
            for part in latents.split(8)
            for verdict in judge_all(pipeline.vae.to_video(part.to(pipeline.vae.device)).float().cpu())
        ]
    score = Score.of(verdicts, [parse(prompt) for prompt in prompts])
    counts = {name: getattr(score, name).right for name in ("color", "shape", "motion", "all_right")}
    return {"right": counts, "prompts": len(prompts), "latent_distance": latent_distance(latents, real)}


def run_in_jobs(ladder: LadderConfig, file: str, out: Path, console: Console, jobs: int) -> None:
    """The ladder in several processes side by side, each with its share of the threads.

    Small models leave most of two cores idle between their many small products; a core each wastes less. Every
    process takes the largest run that no other has, so that none waits long for the last.

    Args:
        ladder: the plan.
        file: the `--ladder` that it was read from.
        out: folder of the results.
        console: where progress is shown.
        jobs: processes.

    Raises:
        UserError: as `run_ladder`.
    """
    # With all threads.
    prepare(ladder, out, console)
    threads = str(max(1, torch.get_num_threads() // jobs))
    command = [sys.executable, "-m", "minisora", "scale", "run", "--ladder", file, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    running = [subprocess.Popen([*command, "--one-of-jobs"], env=environment) for _ in range(jobs)]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in running:
            process.terminate()
        raise KeyboardInterrupt

    # A terminal's Ctrl-C goes to all of them, SIGTERM to this process alone.
    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        for process in running:
            process.wait()
    except KeyboardInterrupt:
        # They had the signal too, and save where they are.
        for process in running:
            process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def run_ladder(
    ladder: LadderConfig, out: Path, console: Console, part: str = "1/1", *, largest_first: bool = False
) -> list[RunRow]:
    """Every run of the ladder (or of a shard of it) that has no row yet and no other process; returns all rows.

    A run that fails is told, written to failures.jsonl, and the next one begins.

    Args:
        ladder: the plan.
        out: folder of the results; several processes may share it.
        console: where progress is shown.
        part: "i/n": every n-th run from the i-th, for independent jobs.
        largest_first: start with the runs of most compute.

    Raises:
        UserError: the plan is wrong, or `out` belongs to another ladder.
    """
    runs = shard(plan(ladder), part)
    if largest_first:
        runs.sort(key=lambda run: -run.flops)
    _keep_plan(ladder, out)
    results = out / "results.jsonl"
    finished = {row["name"] for row in read_rows(results)}
    left = [run for run in runs if run.name not in finished]
    say(console, f"{len(runs) - len(left)} of {len(runs)} runs are finished")
    if not left:
        return read_rows(results)
    bench = _Bench(ladder, out, *prepare(ladder, out, console))
    (out / "runs").mkdir(exist_ok=True)
    for number, run in enumerate(left, start=1):
        try:
            claim = FileLock(out / "runs" / f".{run.name}.lock").acquire(blocking=False)
        # Another process trains it.
        except Timeout:
            continue
        with claim:
            # Since this process began.
            if any(row["name"] == run.name for row in read_rows(results)):
                continue
            say(
                console,
                (run.name, "bold"),
                f" ({number} of {len(left)}): {run.params / 1e6:.2f} M parameters, "
                f"{run.steps} steps of {run.batch}, {run.flops:.3g} FLOPs",
            )
            outcome = bench.attempt(run)
            say(console, f"  {outcome}", style="red" if outcome.startswith(_FAILED) else "")
    return read_rows(results)


def plan_table(ladder: LadderConfig, rows: Sequence[RunRow] = ()) -> Table:
    """Every run with its size, steps, counted FLOPs and predicted time, by the speed of finished runs if any."""
    runs, done = plan(ladder), {row["name"]: row for row in rows}
    timed = [row for row in rows if row["seconds"]]
    own = torch.get_num_threads()
    # Of all threads: jobs side by side took a share of them each. A GPU has none.
    speed = (
        sum(r["flops"] * own / r["device"].get("threads", own) for r in timed)
        / sum(r["seconds"] for r in timed)
        if timed
        else ladder.flops_per_second
    )
    table = Table(title=f"{len(runs)} runs", title_justify="left")
    for head in ("run", "size", "M params", "batch", "steps", "epochs", "FLOPs", "time"):
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
    file, now = out / "ladder.yaml", LadderFile.of(ladder)
    try:
        if file.is_file():
            before = LadderFile.read(out)
            if before == now:
                return
            if not before.grows_into(now):
                raise UserError(f"{out} holds the results of another ladder: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        write_whole(file, now.to_yaml())
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
