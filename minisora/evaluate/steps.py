"""`minisora evaluate --steps 1,2,4,...`: how good samples are against the steps spent on them.

OUT/steps.json    a row per number of steps: passes through the DiT, score, seconds a video; and the fewest steps
                  that lose no more than 5 points against the most, prompt by prompt

`minisora report --run OUT` puts those steps in the place of the assumed ones.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from minisora.data.shapes_world.grammar import parse
from minisora.errors import UserError
from minisora.evaluate.judge.verdict import Verdict
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.sample_and_judge import evaluate_pipeline
from minisora.evaluate.score import Score
from minisora.files import write_json
from minisora.limits import MAX_STEPS
from minisora.pipelines.model_folder import load_pipeline
from minisora.screen import Table, say

_MARGIN = 0.05  # of the prompts
_Z = 1.645  # 95 % of a normal distribution lie below


@dataclass(frozen=True)
class StepsPoint:
    """The score at one number of steps."""

    steps: int
    passes: int  # of a video through the DiT: two a step with guidance
    score: Score
    seconds_per_video: float
    right: tuple[bool, ...]  # of each prompt; order and noise are the same at every number of steps

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "steps": self.steps,
            "passes": self.passes,
            "seconds_per_video": self.seconds_per_video,
            "score": self.score.to_dict(),
        }


def parse_steps(text: str) -> list[int]:
    """Numbers of steps from text such as "1,2,4"; raises UserError where it is not that."""
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


def run_steps(
    out: Path,
    console: Console,
    *,
    model: Path | None,
    steps: list[int],
    prompts: str = "72",
    samples_per_prompt: int = 1,
    seed: int = 0,
    guidance: float | None = None,
    batch_size: int = 24,
) -> list[StepsPoint]:
    """Judge the same prompts from the same noise at every number of steps; print a table, write `steps.json`.

    Raises:
        UserError: no model, or one that cannot be read.
    """
    if model is None:
        raise UserError("several --steps need --model DIR")
    pipeline = load_pipeline(model)
    wanted = prompt_set(prompts) * samples_per_prompt
    scale = pipeline.config.default_guidance if guidance is None else guidance
    points = []
    with console.status("sampling") as status:
        for number in sorted(steps):
            status.update(f"sampling with {number} steps")
            start = time.perf_counter()
            _, verdicts, score = evaluate_pipeline(pipeline, wanted, seed, batch_size, number, guidance)
            seconds = (time.perf_counter() - start) / len(wanted)
            guided = 1 if scale == 1 else 2  # passes that an evaluation of the velocity takes
            passes = guided * len(
                pipeline.scheduler.timesteps
            )  # Heun evaluates twice a step but for the last
            points.append(StepsPoint(number, passes, score, seconds, _all_right(verdicts, wanted)))
    console.print(_table(points))
    chosen = enough(points)
    out.mkdir(parents=True, exist_ok=True)
    settings = {"model": str(model), "prompts": prompts, "seed": seed, "guidance": scale}
    rows = [point.to_dict() for point in points]
    write_json(out / "steps.json", {"settings": settings, "enough_steps": chosen.steps, "points": rows})
    say(
        console,
        f"{chosen.steps} steps are enough: with 95 % confidence they lose at most {_MARGIN:.0%} of the prompts "
        f"against {max(steps)}; "
        f"wrote {out / 'steps.json'}",
    )
    return points


def _all_right(verdicts: list[Verdict], prompts: list[str]) -> tuple[bool, ...]:
    found = (verdict.matches(parse(prompt)) for verdict, prompt in zip(verdicts, prompts, strict=True))
    return tuple(match["color"] and match["shape"] and match["motion"] for match in found)


def _table(points: list[StepsPoint]) -> Table:
    table = Table(title="quality against steps, the same noise for all", title_justify="left")
    for head in ("steps", "passes", "colour", "motion", "shape", "all right", "95 % interval", "s a video"):
        table.add_column(head, justify="right")
    for point in points:
        score, (low, high) = point.score, point.score.all_right.interval
        table.add_row(
            str(point.steps),
            str(point.passes),
            f"{score.color.share:.1%}",
            f"{score.motion.share:.1%}",
            f"{score.shape.share:.1%}",
            f"{score.all_right.share:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{point.seconds_per_video:.2f}",
        )
    return table
