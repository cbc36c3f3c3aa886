"""The experiments of `minisora evaluate`, and the one runner that prints and writes what each of them measures.

An experiment samples prompts from a model, has the videos judged, and returns an `Experiment`: its rows for JSON, a
table and the videos of a contact sheet. `run_experiment` does the rest, the same for all of them:

    prompts   OUT/evaluate.json, failures.png   the score of a model's samples, and the judge's own
              and worst.png
    run       RUN/evaluation.json and .png      a run on its own held-out clips (`minisora.evaluate.own_clips`); with
                                                prompts, as above, and whether it learns, is stuck or memorises
    videos    the same                          of videos with captions, whatever made them
    steps     OUT/steps.json                    the score against the number of sampling steps
    sizes     OUT/sizes.json, sizes.png         the score at several lengths and frame sizes
    modes     OUT/modes.json, modes.png         the score of every mode: animate, extend, connect, ...
"""

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from minisora.data.shapes_world.grammar import parse
from minisora.data.video.write_video import write_contact_sheet
from minisora.errors import UserError
from minisora.evaluate.judge_modes import ModeScore, evaluate_modes
from minisora.evaluate.memorisation import Curves, measure_curves
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.sample_and_judge import (
    Evaluation,
    evaluate_model,
    evaluate_pipeline,
    judge_accuracy,
)
from minisora.evaluate.score import Score
from minisora.evaluate.video_folder import evaluate_videos
from minisora.files import write_json
from minisora.flow.denoise import SampleSettings
from minisora.limits import MAX_STEPS
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.screen import Table, say

Size = tuple[int, int, int]  # (frames, height, width)
# bar(name) begins a part of the work; what it returns takes (done, total).
Bar: TypeAlias = Callable[[str], Callable[[float, int], None]]

# Share of the prompts that fewer steps may lose against the most.
_MARGIN = 0.05
# 95 % of a normal distribution lie below.
_Z = 1.645
_NUMBER = re.compile("[0-9]{1,7}")
# Which prompt's video is shown.
_EXAMPLE = 5
# Skipped files named on the screen; the JSON names all.
_NAMED = 10
_THEN = ", then the judge's own accuracy"


@dataclass(frozen=True)
class Sampling:
    """The model of an experiment and how its videos are sampled."""

    model: Path  # a model folder or a shipped name
    prompts: str = "72"  # as in `prompt_set`
    samples_per_prompt: int = 1
    seed: int = 0
    steps: int | None = None  # None: the model's own
    guidance: float | None = None  # None: the model's own
    batch_size: int = 8  # videos sampled at a time

    def settings(self, *names: str) -> dict[str, Any]:
        """What it takes to repeat the experiment, for JSON: the model, the prompts and the fields `names`."""
        return {"model": str(self.model), **{name: getattr(self, name) for name in ("prompts", *names)}}


@dataclass(frozen=True)
class Experiment:
    """What an experiment measured."""

    name: str  # of OUT/NAME.json
    points: dict[str, Any]  # the JSON
    table: RenderableType
    sheet: list[tuple[str, Tensor]] = field(default_factory=list)  # captions and videos 3 T H W
    sheet_name: str = ""  # of OUT/SHEET_NAME.png; "": there is never one
    sheet_frames: int = 9  # shown of each video
    more_sheets: dict[str, list[tuple[str, Tensor]]] = field(default_factory=dict)  # OUT/NAME.png, alike
    lines: list[tuple[str, str]] = field(default_factory=list)  # printed below the table, each with its style


def run_experiment(out: Path, console: Console, measure: Callable[[Bar], Experiment]) -> Experiment:
    """Run an experiment, print its table and write OUT/NAME.json and its contact sheet, each whole.

    Args:
        out: folder of the results; made if need be.
        console: shows the bar, the table, the lines and what was written.
        measure: the experiment, such as `lambda bar: compare_steps(sampling, [1, 2, 4], bar)`.

    Raises:
        UserError: bad input, see the experiments; or the results cannot be written.
    """
    with _bar(console) as bar:
        experiment = measure(bar)
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{experiment.name}.json"]
    sheets = {experiment.sheet_name: experiment.sheet} if experiment.sheet_name else {}
    for name, sheet in {**sheets, **experiment.more_sheets}.items():
        file = out / f"{name}.png"
        # Never the sheet of an earlier experiment beside this one's numbers.
        file.unlink(missing_ok=True)
        if sheet:
            captions, videos = zip(*sheet, strict=True)
            write_contact_sheet(file, videos, captions, experiment.sheet_frames)
            files.append(file)
    write_json(files[0], experiment.points)
    table = experiment.table
    console.print(table)
    for line, style in experiment.lines:
        say(console, line, style=style)
    for file in files:
        say(console, f"wrote {file}")
    return experiment


@contextmanager
def _bar(console: Console) -> Iterator[Bar]:
    """A bar with the time left of the part of the work that was begun last."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True
    ) as progress:
        task = progress.add_task("", total=None, visible=False)

        def begin(name: str) -> Callable[[float, int], None]:
            progress.reset(task, total=None, description=name, visible=True)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield begin


def _load(sampling: Sampling) -> tuple[MiniSoraPipeline, list[str]]:
    """The pipeline, and every prompt as often as it is sampled."""
    prompts = prompt_set(sampling.prompts)
    return load_pipeline(sampling.model), prompts * sampling.samples_per_prompt


# Prompts, runs and folders of videos: evaluate.json.


def evaluate_prompts(sampling: Sampling, bar: Bar, run: Path | None = None) -> Experiment:
    """The score of a model's samples, the judge's own accuracy, and the failures.

    Args:
        sampling: the model and its options.
        bar: shows progress.
        run: also measure whether the model, which this run folder trained, learns, is stuck or memorises.

    Raises:
        UserError: no such model or prompts, or `run` is not the run that trained the model.
    """
    prompts = prompt_set(sampling.prompts)
    pipeline = load_pipeline(sampling.model)
    options: dict[str, Any] = {
        "seed": sampling.seed,
        "batch_size": sampling.batch_size,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
    }
    # Before the long part, as it may be refused.
    curves = None if run is None else measure_curves(pipeline, run, on_progress=bar("curves"), **options)
    evaluation = evaluate_model(
        pipeline,
        prompts,
        samples_per_prompt=sampling.samples_per_prompt,
        on_progress=bar("sampling" + _THEN),
        **options,
    )
    evaluation.settings |= sampling.settings()
    return _evaluated(evaluation, curves)


def evaluate_folder(videos: Path, bar: Bar) -> Experiment:
    """The score of a folder of videos with `metadata.csv`, whatever model made them.

    Raises:
        UserError: there is no folder or no `metadata.csv`, or no video can be judged.
    """
    evaluation = evaluate_videos(videos, on_progress=bar("judging" + _THEN))
    evaluation.settings["videos"] = str(videos)
    return _evaluated(evaluation, None)


def _evaluated(evaluation: Evaluation, curves: Curves | None) -> Experiment:
    lines = []
    if evaluation.skipped:
        lines.append((f"{len(evaluation.skipped)} files not judged:", "yellow"))
        lines += [(f"  {line}", "") for line in evaluation.skipped[:_NAMED]]
        if len(evaluation.skipped) > _NAMED:
            lines.append((f"  and {len(evaluation.skipped) - _NAMED} more, named in evaluate.json", ""))
    sheet = [(f"{each.caption} | seen: {', '.join(each.wrong)}", each.video) for each in evaluation.failures]
    shown = f"; the sheet shows {len(sheet)} of them" if sheet else ""
    count = f"{evaluation.num_failures} of {len(evaluation.captions)}"
    lines.append((f"{count} clips differ from their prompt in something{shown}", ""))
    points = evaluation.to_dict()
    if curves is not None:
        points["curves"] = curves.to_dict()
        lines.append((curves.finding.sentence, "bold"))
        if curves.finding.remedy:
            lines.append((f"  advice: {curves.finding.remedy}", ""))
    whole = evaluation.score.whole
    worst = [(clip.line(), clip.video) for clip in evaluation.worst]
    lines.append(
        (f"{whole.right} of {whole.total} clips are whole; worst.png shows the worst {len(worst)}", "")
    )
    more = {"worst": worst}
    return Experiment(
        "evaluate", points, evaluation.table(), sheet, "failures", lines=lines, more_sheets=more
    )


# Steps: steps.json, which `minisora report --run OUT` reads.


@dataclass(frozen=True)
class StepsPoint:
    """The score at one number of steps."""

    steps: int
    passes: int  # of a video through the DiT: two a step with guidance
    score: Score
    seconds_per_video: float
    right: tuple[bool, ...]  # of each prompt; order and noise are the same at every number of steps

    def to_dict(self) -> dict[str, Any]:
        """For JSON: all but the single prompts."""
        return {
            "steps": self.steps,
            "passes": self.passes,
            "seconds_per_video": self.seconds_per_video,
            "score": self.score.to_dict(),
        }


def parse_steps(text: str) -> list[int]:
    """Numbers of steps from text such as "1,2,4".

    Raises:
        UserError: it is no such list.
    """
    try:
        steps = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--steps '{text}' is no number or list of numbers: write 32, or 1,2,4,8") from error
    if not all(1 <= number <= MAX_STEPS for number in steps) or len(set(steps)) != len(steps):
        raise UserError(f"--steps '{text}': give different numbers from 1 to {MAX_STEPS}")
    return steps


def loss_against(point: StepsPoint, reference: StepsPoint) -> tuple[float, float]:
    """Share of prompts that a point loses against another, and the one-sided 95 % upper bound of it.

    Both are judged on the same prompts and noise, so only those that one gets right and the other wrong count
    (McNemar's pairs, with the normal bound of a paired difference; half a pair more of each of the four kinds is
    counted as seen, so that a few prompts without a difference prove little: Agresti & Min 2005, doi 10.1002/sim.1781).
    """
    pairs = list(zip(point.right, reference.right, strict=True))
    lost, won = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
    n = len(pairs) + 2
    deviation = math.sqrt(lost + won + 1 - (lost - won) ** 2 / n) / n
    return (lost - won) / len(pairs), (lost - won) / n + _Z * deviation


def enough(points: list[StepsPoint]) -> StepsPoint:
    """The point of fewest steps that surely loses no more than `_MARGIN` of the prompts against the most steps."""
    most = max(points, key=lambda point: point.steps)
    return min(
        (point for point in points if point is most or loss_against(point, most)[1] <= _MARGIN),
        key=lambda point: point.steps,
    )


def compare_steps(sampling: Sampling, steps: list[int], bar: Bar) -> Experiment:
    """The score of the same prompts from the same noise at every number of steps.

    Raises:
        UserError: no such model or prompts.
    """
    pipeline, prompts = _load(sampling)
    guidance = pipeline.config.default_guidance if sampling.guidance is None else sampling.guidance
    # Passes that an evaluation of the velocity takes.
    guided = 1 if guidance == 1 else 2
    points = []
    for number in sorted(steps):
        start = time.perf_counter()
        _, verdicts, score = evaluate_pipeline(
            pipeline,
            prompts,
            sampling.seed,
            sampling.batch_size,
            number,
            sampling.guidance,
            on_progress=bar(f"sampling with {number} steps"),
        )
        seconds = (time.perf_counter() - start) / len(prompts)
        # Heun evaluates twice a step but for the last.
        passes = guided * len(pipeline.scheduler.timesteps)
        right = tuple(v.all_right(parse(prompt)) for v, prompt in zip(verdicts, prompts, strict=True))
        points.append(StepsPoint(number, passes, score, seconds, right))
    chosen = enough(points)
    line = (
        f"{chosen.steps} steps are enough: with 95 % confidence they lose at most {_MARGIN:.0%} of the prompts "
        f"against {max(steps)}"
    )
    rows = {"enough_steps": chosen.steps, "points": [point.to_dict() for point in points]}
    settings = {**sampling.settings("seed"), "guidance": guidance}
    return Experiment("steps", {"settings": settings, **rows}, _steps_table(points), lines=[(line, "")])


def _steps_table(points: list[StepsPoint]) -> Table:
    table = Table(title="quality against steps, the same noise for all", title_justify="left")
    heads = ("colour", "motion", "shape", "all right", "95 % interval", "whole", "s a video")
    for head in ("steps", "passes", *heads):
        table.add_column(head, justify="right")
    for point in points:
        score, (low, high) = point.score, point.score.all_right.interval
        table.add_row(
            str(point.steps),
            str(point.passes),
            *_shares(score),
            f"{low:.1%} to {high:.1%}",
            f"{score.whole.share:.1%}",
            f"{point.seconds_per_video:.2f}",
        )
    return table


def _shares(score: Score, still: bool = False) -> list[str]:
    """Cells: colour, motion, shape, all right; an image (`still`) has no motion."""
    rates = (score.color, score.motion, score.shape, score.all_right)
    return ["-" if still and number % 2 else f"{rate.share:.1%}" for number, rate in enumerate(rates)]


# Sizes: sizes.json.


def parse_sizes(text: str) -> list[Size]:
    """Sizes from text such as "17x64x64,5x48x80".

    Raises:
        UserError: it is no such list.
    """
    sizes: list[Size] = []
    for part in text.split(","):
        numbers = part.strip().lower().split("x")
        if len(numbers) != 3 or not all(_NUMBER.fullmatch(number) and int(number) for number in numbers):
            raise UserError(f"--sizes '{text}': write FRAMESxHEIGHTxWIDTH, such as 17x64x64,17x48x80")
        sizes.append((int(numbers[0]), int(numbers[1]), int(numbers[2])))
    return sizes


def compare_sizes(sampling: Sampling, sizes: list[Size], bar: Bar) -> Experiment:
    """The score of the same prompts at every size.

    "2nd object" is the share of frames that show one, which "all right" does not count and "whole" does.

    Raises:
        UserError: no such model or prompts, or a size that does not fit the model.
    """
    pipeline, prompts = _load(sampling)
    for size in sizes:
        # Refuses what does not fit before anything is sampled.
        pipeline.latent_shape(*size)
    table = Table(title="the same prompts at each size", title_justify="left")
    heads = ("colour", "motion", "shape", "all right", "whole", "2nd object", "judge", "s a video")
    for head in ("frames x height x width", *heads):
        table.add_column(head, justify="right")
    points, sheet = [], []
    example = min(_EXAMPLE, len(prompts) - 1)
    for size in sizes:
        name = "x".join(map(str, size))
        start = time.perf_counter()
        videos, _, score = evaluate_pipeline(
            pipeline,
            prompts,
            sampling.seed,
            sampling.batch_size,
            sampling.steps,
            sampling.guidance,
            on_progress=bar(f"sampling {name}" + _THEN),
            size=size,
        )
        seconds = (time.perf_counter() - start) / len(prompts)
        rendered = judge_accuracy(prompts, size, fps=pipeline.config.fps)
        sheet.append((f"{name}: {prompts[example]}", videos[example]))
        points.append(
            {
                "size": list(size),
                "score": score.to_dict(),
                "judge_rendered": rendered.to_dict(),
                "seconds_per_video": seconds,
            }
        )
        still = size[0] == 1
        table.add_row(
            name,
            *_shares(score, still),
            "-" if still else f"{score.whole.share:.1%}",
            f"{score.quality['second']:.1%}",
            "-" if still else f"{rendered.all_right.share:.1%}",
            f"{seconds:.2f}",
        )
    settings = sampling.settings("samples_per_prompt", "seed", "steps", "guidance")
    return Experiment("sizes", {"settings": settings, "points": points}, table, sheet, "sizes")


# Modes: modes.json.


def compare_modes(sampling: Sampling, bar: Bar) -> Experiment:
    """The score of every mode of a model, each tried once on every prompt.

    Raises:
        UserError: no such model or prompts.
    """
    pipeline, prompts = _load(sampling)
    scores = evaluate_modes(
        pipeline,
        prompts,
        seed=sampling.seed,
        batch_size=sampling.batch_size,
        settings=SampleSettings(steps=sampling.steps, guidance=sampling.guidance),
        on_mode=lambda name: bar(f"modes: {name}"),
    )
    modes = {name: score.to_dict() for name, score in scores.items()}
    settings = sampling.settings("seed", "steps", "guidance")
    sheet = [(f"{name.replace('_', ' ')}: {score.caption}", score.example) for name, score in scores.items()]
    points = {"settings": settings, "modes": modes}
    return Experiment("modes", points, _modes_table(scores), sheet, "modes", sheet_frames=13)


def _modes_table(scores: dict[str, ModeScore]) -> Table:
    table = Table(title="modes, each tried once on every prompt", title_justify="left")
    table.add_column("mode")
    table.add_column("what")
    table.add_column("right", justify="right")
    for name, score in scores.items():
        cells = {what: str(rate) for what, rate in score.rates.items()}
        cells |= {what: f"{value:.2f}" for what, value in score.numbers.items()}
        for number, (what, value) in enumerate(cells.items()):
            table.add_row("" if number else name, what.replace("_", " "), value)
    return table
