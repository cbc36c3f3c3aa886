"""`minisora evaluate --sizes 17x64x64,17x48x80`: how good one model is at several lengths and frame sizes.

OUT/sizes.json    a row per size: score, the judge's own accuracy there, seconds a video
   /sizes.png     a video of each size, of the same prompt; not chosen

"2nd blob" is the share of frames that show a second object, which "all right" does not count.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from minisora.data.video.write_video import write_contact_sheet
from minisora.errors import UserError
from minisora.evaluate.evaluation import judge_accuracy
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.sample_and_judge import evaluate_pipeline
from minisora.evaluate.score import Score
from minisora.files import write_json
from minisora.pipelines.model_folder import load_pipeline
from minisora.screen import Table, say

_NUMBER = re.compile("[0-9]{1,7}")
_EXAMPLE = 5  # which prompt's video is shown

Size = tuple[int, int, int]  # (frames, height, width)


@dataclass(frozen=True)
class SizePoint:
    """The score at one size."""

    size: Size
    score: Score
    rendered: Score  # the judge's own accuracy at that size
    seconds_per_video: float
    example: Tensor  # 3 T H W

    def to_dict(self) -> dict[str, Any]:
        """All but the pixels, ready for JSON."""
        return {
            "size": list(self.size),
            "score": self.score.to_dict(),
            "judge_rendered": self.rendered.to_dict(),
            "seconds_per_video": self.seconds_per_video,
        }


def parse_sizes(text: str) -> list[Size]:
    """Sizes from text such as "17x64x64,5x48x80"; raises UserError where it is not that."""
    sizes: list[Size] = []
    for part in text.split(","):
        numbers = part.strip().lower().split("x")
        if len(numbers) != 3 or not all(_NUMBER.fullmatch(number) and int(number) for number in numbers):
            raise UserError(f"--sizes '{text}': write FRAMESxHEIGHTxWIDTH, such as 17x64x64,17x48x80")
        sizes.append((int(numbers[0]), int(numbers[1]), int(numbers[2])))
    return sizes


def run_sizes(
    out: Path,
    console: Console,
    *,
    model: Path | None,
    sizes: list[Size],
    prompts: str = "72",
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 24,
    samples_per_prompt: int = 1,
) -> list[SizePoint]:
    """Judge the same prompts at every size; print a table, write `sizes.json` and `sizes.png`.

    Raises:
        UserError: no model, one that cannot be read, or a size that does not fit it.
    """
    if model is None:
        raise UserError("--sizes needs --model DIR")
    pipeline = load_pipeline(model)
    for size in sizes:
        pipeline.latent_shape(*size)  # refuses what does not fit before anything is sampled
    wanted = prompt_set(prompts) * samples_per_prompt
    points = []
    with console.status("sampling") as status:
        for size in sizes:
            status.update(f"sampling {_name(size)}")
            start = time.perf_counter()
            videos, _, score = evaluate_pipeline(
                pipeline, wanted, seed, batch_size, steps, guidance, size=size
            )
            seconds = (time.perf_counter() - start) / len(wanted)
            example = videos[min(_EXAMPLE, len(videos) - 1)]
            rendered = judge_accuracy(wanted, size, fps=pipeline.config.fps)
            points.append(SizePoint(size, score, rendered, seconds, example))
    console.print(_table(points))
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "model": str(model),
        "prompts": prompts,
        "samples_per_prompt": samples_per_prompt,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
    }
    rows = [point.to_dict() for point in points]
    write_json(out / "sizes.json", {"settings": settings, "points": rows})
    captions = [f"{_name(point.size)}: {wanted[min(_EXAMPLE, len(wanted) - 1)]}" for point in points]
    write_contact_sheet(out / "sizes.png", [point.example for point in points], captions)
    say(console, f"wrote {out / 'sizes.json'} and sizes.png")
    return points


def _name(size: Size) -> str:
    return "x".join(map(str, size))


def _table(points: list[SizePoint]) -> Table:
    table = Table(title="the same prompts at each size", title_justify="left")
    for head in (
        "frames x height x width",
        "colour",
        "motion",
        "shape",
        "all right",
        "2nd blob",
        "judge",
        "s a video",
    ):
        table.add_column(head, justify="right")
    for point in points:
        score, still = point.score, point.size[0] == 1  # an image does not move
        table.add_row(
            _name(point.size),
            f"{score.color.share:.1%}",
            "-" if still else f"{score.motion.share:.1%}",
            f"{score.shape.share:.1%}",
            "-" if still else f"{score.all_right.share:.1%}",
            f"{score.quality['leftovers']:.1%}",
            "-" if still else f"{point.rendered.all_right.share:.1%}",
            f"{point.seconds_per_video:.2f}",
        )
    return table
