"""`minisora demo`: data, VAE, DiT, samples, FLOPs and one page, each resumed where an earlier run stopped.

RUN/index.html   the page
   /demo.json    times and scores
   /samples/     one mp4 per prompt
   /calibration.json  a short calibration of this machine
   /report/      the compute report, of `minisora report --preset measured`, with it
   /model/       the pipeline folder (and what `minisora.training.stages` lists)
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from minisora.config import Config, save
from minisora.data.clips import to_float
from minisora.data.dataset import open_dataset
from minisora.data.latent_cache import fingerprint
from minisora.data.shapes_world.grammar import parse
from minisora.data.video.write_video import write_video
from minisora.demo.page_pieces import (
    counts_of,
    embed,
    environment,
    learning_curve,
    poster,
    side_by_side,
    video_script,
)
from minisora.demo.time_limit import limit_within, with_steps
from minisora.errors import UserError
from minisora.evaluate.judge.verdict import VERSION
from minisora.evaluate.likeness import psnr
from minisora.evaluate.prompts import kind_of, prompt_set
from minisora.evaluate.sample_and_judge import evaluate_model, reconstruct
from minisora.files import read_json, write_json, write_whole
from minisora.flops.calibration import PASS_KINDS, Calibration, read_calibration
from minisora.flops.device import describe_device, device_words
from minisora.flops.ledger import count_config
from minisora.flops.sweep import calibrate
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.report.compose import build_report, write_report
from minisora.run_metrics import read_metrics
from minisora.screen import say
from minisora.training.dit_task import check_dit
from minisora.training.minutes import Pace, train_for_minutes
from minisora.training.stages import train_dit, train_vae

# Seconds that a short calibration takes at most: its passes, and the machine's peak before and after them.
_PASSES, _CALIBRATION = 20.0, 25.0
# Seconds that all after the training takes, of a run of some minutes.
_AFTER = 30.0 + _CALIBRATION
# Unseen clips that the VAE is judged on, and those of them on the page.
NUM_UNSEEN, NUM_PAIRS = 64, 6


@dataclass
class Record:
    """`demo.json`: what was measured, kept from run to run."""

    path: Path
    values: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> "Record":
        """Read it, or start an empty one.

        Raises:
            UserError: it is there and cannot be read.
        """
        try:
            values = read_json(path) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): delete it, and it is measured again"
            ) from error
        if not isinstance(values, dict):
            raise UserError(f"{path} is not of minisora demo: delete it, and it is measured again")
        return cls(path, values)

    def keep(self, name: str, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result kept under `name` if it was measured for the same `key`; else measure and keep it."""
        result = self.values.get(name, {})
        if result.get("key") != key:
            start = time.perf_counter()
            result = {"key": key, **measure(), "seconds": round(time.perf_counter() - start, 1)}
            self.values[name] = result
            self.save()
        return result

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add what is done here to the time a stage took over all runs."""
        start = time.perf_counter()
        try:
            yield
        finally:
            # What was interrupted is work too, the look at a finished stage is none.
            spent, times = time.perf_counter() - start, self.values.setdefault("seconds", {})
            if spent > 20 or name not in times:
                times[name] = round(times.get(name, 0.0) + spent, 1)
                self.save()

    def save(self) -> None:
        """Write it, atomically."""
        write_json(self.path, self.values)


def run_demo(
    config: Config, run: Path, console: Console, minutes: float | None = None, longest: float | None = None
) -> Path:
    """Do everything, and return the page.

    Args:
        config: of the run.
        run: its folder.
        console: where progress is shown.
        minutes: of a plan, whose sizes and steps are taken instead of the config's; None: those of the config.
        longest: minutes that the config's steps may take; the DiT takes fewer where they take longer here. None: any.

    Raises:
        UserError: the config is not of shapes, or the run folder holds a run of another one or cannot be written.
    """
    # The page is about prompts of shapes, which the judge can read.
    if config.data.source != "shapes":
        raise UserError(
            f"the demo shows moving shapes, not data.source={config.data.source}: "
            "use minisora train, then minisora sample"
        )
    check_dit(config)
    run.mkdir(parents=True, exist_ok=True)
    begun, record = time.perf_counter(), Record.open(run / "demo.json")
    if minutes is not None:
        # The stages are looked at below, where they are found finished.
        config = train_for_minutes(config, run, console, minutes, after=_AFTER, timed=record.timed)
    with record.timed("vae"):
        train_vae(config, run, console)
    asked, pace = config.train_dit.steps, None
    if minutes is None:
        config, pace = _within(config, run, record, console, longest, time.perf_counter() - begun)
    with record.timed("dit"):
        train_dit(config, run, console, steps_by=pace)
    if pace is not None:
        config = with_steps(config, pace.steps)
        save(config, run / "config.yaml")

    pipeline = load_pipeline(run / "model")
    key = fingerprint(pipeline.dit) + fingerprint(pipeline.vae)
    say(console, ("VAE", "bold"), f" on {NUM_UNSEEN} unseen clips")
    vae = record.keep("vae_quality", key, lambda: _reconstruct(config, pipeline, run / "reconstructions"))
    say(console, f"  {vae['psnr']:.2f} dB PSNR")
    say(console, ("Prompts", "bold"), ", one sample each")
    judged = f"{key} judge {VERSION}"
    score = record.keep("prompts", judged, lambda: _sample(pipeline, run / "samples", console))
    _print_score(score, console)
    say(console, ("FLOPs", "bold"), " of one denoising forward pass")
    ledger = count_config(config, device="cpu")
    console.print(ledger.table())

    say(console, ("Calibration", "bold"), " of this machine, for the report")
    calibration = _calibrate(run / "calibration.json", record, console)
    say(console, f"  {_mfu_words(calibration)}")
    report = write_report(build_report("measured", calibration=calibration.path), run / "report")

    page = write_page(
        run / "index.html",
        DemoPage(
            config=config,
            asked=asked,
            seconds=record.values["seconds"],
            metrics=read_metrics(run / "metrics.jsonl"),
            vae=vae,
            score=score["score"],
            kinds=score["kinds"],
            judge=score["judge"],
            report=report.relative_to(run).as_posix(),
            samples=[(s, run / "samples" / s["file"]) for s in score["samples"]],
            pairs=sorted((run / "reconstructions").glob("*.mp4")),
            flops=ledger.to_dict(),
            machine=device_words(describe_device("cuda" if torch.cuda.is_available() else "cpu")),
            day=date.today().isoformat(),
        ),
    )
    total = sum(record.values["seconds"].values())
    total += vae["seconds"] + score["seconds"] + record.values.get("calibration", {}).get("seconds", 0.0)
    say(console, ("Done", "bold"), f" in {total / 60:.1f} minutes of work over all runs")
    return page


def _within(
    config: Config, run: Path, record: Record, console: Console, longest: float | None, now: float
) -> tuple[Config, Pace | None]:
    """The config with the steps that this run takes, and what sets them anew.

    Once it has begun it goes on with what it began with, unless it is asked for all of its steps, or for others.

    Args:
        config: of the run.
        run: its folder.
        record: of the run.
        console: where it is told that there are fewer.
        longest: as of `run_demo`.
        now: seconds since this command began its work.
    """
    pace, asked = None, config.train_dit.steps
    kept = record.values.get("limit", {})
    if kept.get("steps") is not None and (longest is None or kept.get("asked", asked) != asked):
        # All of them are asked for now, or others than those that there was no time for.
        record.values["limit"] = {"minutes": longest, "steps": None, "asked": asked}
        record.save()
    elif not kept and not (run / "dit").exists():
        limit, vae_seconds = None, record.values["seconds"]["vae"]
        if longest is not None:
            # The VAE may be of an earlier command.
            spent = max(now, vae_seconds)
            limit = limit_within(config, run, console, longest, spent, vae_seconds, after=_CALIBRATION)

        def keep(steps: int | None) -> None:
            record.values["limit"] = {"minutes": longest, "steps": steps, "asked": asked}
            record.save()

        keep(None if limit is None else limit.steps)
        if limit is not None:
            pace = Pace(limit.steps, limit.end, keep, config.train_dit.decay_share, limit.least, most=asked)
    steps = record.values.get("limit", {}).get("steps")
    return (config if steps is None else with_steps(config, steps)), pace


def _calibrate(path: Path, record: Record, console: Console) -> Calibration:
    """The run's calibration of this machine: the one that lies there, or a short one, whose seconds are kept."""
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    try:
        kept = read_calibration(path)
        if kept.device == describe_device(device, dtype):
            return kept
    except UserError:
        # Not there, or damaged.
        pass
    start = time.perf_counter()
    with console.status("calibrating") as status:
        calibration = calibrate(
            device=device,
            dtype=dtype,
            budget=_PASSES,
            short=True,
            progress=lambda done, total: status.update(f"calibrating {done}/{total}"),
        )
    calibration.save(path)
    seconds = round(time.perf_counter() - start, 1)
    record.values["calibration"] = {"points": len(calibration.points), "seconds": seconds}
    record.save()
    return read_calibration(path)


def _mfu_words(calibration: Calibration) -> str:
    shares = [
        f"{share:.0%} {'forward' if kind == 'forward' else 'in training'}"
        for kind in PASS_KINDS
        if (share := calibration.best_mfu(kind)) is not None
    ]
    peak = f"{calibration.measured_peak / 1e9:,.0f} GFLOP/s in {calibration.device['dtype']}"
    return f"{peak} at most ({calibration.peak_words}); MFU up to {', '.join(shares)}"


def _reconstruct(config: Config, pipeline: MiniSoraPipeline, folder: Path) -> dict[str, Any]:
    """PSNR of unseen clips, and a few of them beside their reconstructions as mp4."""
    unseen = open_dataset(config, "validation")
    count = min(NUM_UNSEEN, len(unseen))
    values: list[float] = []
    for start in range(0, count, 16):
        video = to_float(unseen.clips(range(start, min(start + 16, count))))
        rebuilt = reconstruct(pipeline.vae, video, len(video))
        values += psnr(rebuilt, video).tolist()
        if start == 0:
            for number, (a, b) in enumerate(zip(video[:NUM_PAIRS], rebuilt[:NUM_PAIRS], strict=True)):
                write_video(folder / f"{number}.mp4", side_by_side(a, b), config.clip.fps)
    return {"psnr": sum(values) / len(values), "worst_psnr": min(values), "num_clips": count}


def _sample(pipeline: MiniSoraPipeline, folder: Path, console: Console) -> dict[str, Any]:
    """One video of each of the 72 triples, their scores, and those of prompts with a wall or a light."""
    prompts = prompt_set("all")
    with console.status(f"sampling {len(prompts)} prompts") as status:
        evaluation = evaluate_model(
            pipeline,
            prompts,
            seed=0,
            batch_size=24,
            on_progress=lambda done, total: status.update(f"sampling prompt {done:.0f}/{total}"),
        )
    assert evaluation.videos is not None
    samples = []
    triples = [i for i, prompt in enumerate(prompts) if kind_of(prompt) == "plain"]
    for number in triples:
        file, matches = f"{number:02d}.mp4", evaluation.verdicts[number].matches(parse(prompts[number]))
        write_video(folder / file, evaluation.videos[number], pipeline.config.fps)
        right = {name: bool(matches[name]) for name in ("color", "shape", "motion")}
        whole = evaluation.verdicts[number].whole(parse(prompts[number]))
        samples.append({"prompt": prompts[number], "file": file, "right": right, "whole": whole})
    judged = evaluation.to_dict()
    kinds = judged["kinds"]
    return {"score": kinds["plain"], "kinds": kinds, "judge": judged["judge"], "samples": samples}


def _print_score(scores: dict[str, Any], console: Console) -> None:
    rows = [(name, scores["score"][name]) for name in ("color", "motion", "shape", "all_right", "whole")]
    rows += [("permanence", scores["kinds"]["wall"]["permanence"])]
    rows += [(light, scores["kinds"]["light"][light]) for light in ("day", "night")]
    for name, part in rows:
        low, high = part["interval"]
        say(
            console,
            f"  {name.replace('_', ' '):>10}  {part['right']}/{part['total']} = {part['share']:.1%}"
            f"  (95 %: {low:.0%} to {high:.0%})",
        )


# The page: one self-contained HTML file with its videos and plots inside.


@dataclass(frozen=True)
class DemoPage:
    """Everything the page shows.

    Args:
        config: of the run.
        asked: steps of the DiT, before some were left out for want of time.
        seconds: of the two training stages.
        metrics: the rows of metrics.jsonl.
        vae: how well it copies unseen clips.
        score: of the 72 triples.
        kinds: scores of the prompts with a wall, and with a light.
        judge: the judge's own scores, on rendered clips and on their reconstructions.
        report: the compute report, relative to the page.
        samples: prompt and verdict, and the mp4, of each.
        pairs: mp4s, the original left and its reconstruction right.
        flops: of one denoising pass.
        machine, day: where and when.
    """

    config: Config
    asked: int
    seconds: dict[str, float]
    metrics: list[dict[str, Any]]
    vae: dict[str, Any]
    score: dict[str, Any]
    kinds: dict[str, Any]
    judge: dict[str, Any]
    report: str
    samples: list[tuple[dict[str, Any], Path]]
    pairs: list[Path]
    flops: dict[str, Any]
    machine: str
    day: str


def write_page(path: Path, data: DemoPage) -> Path:
    """Write the page, atomically."""
    text, unit = counts_of(data.flops["forward"]["macs"])
    templates = environment()
    templates.filters["scaled"] = text
    html = templates.get_template("page.html").render(
        data=data,
        unit=unit,
        samples=[(sample, embed(file), poster(file)) for sample, file in data.samples],
        pairs=[(embed(file), poster(file)) for file in data.pairs],
        vae_curve=learning_curve(data.metrics, "vae", "psnr", "PSNR of training crops (dB)", "val_psnr"),
        dit_curve=learning_curve(data.metrics, "dit", "loss", "velocity loss", "val_loss"),
        **video_script(),
    )
    write_whole(path, html)
    return path
