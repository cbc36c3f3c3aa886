"""`minisora evaluate`: judge a model or a folder of videos, and write down what was found.

OUT/evaluate.json    every score, interval and verdict
   /failures.png     contact sheet of clips that are not what their prompt says; absent if there are none
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from minisora.data.video.write_video import write_contact_sheet
from minisora.errors import UserError
from minisora.evaluate.evaluation import Evaluation, evaluate_model
from minisora.evaluate.memorisation import Curves
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.run_curves import measure_curves
from minisora.evaluate.video_folder import evaluate_videos
from minisora.files import write_json
from minisora.pipelines.model_folder import load_pipeline
from minisora.screen import say

_NAMED = 10  # skipped files named on the screen; the JSON names all


def run_evaluation(
    out: Path,
    console: Console,
    *,
    model: Path | None = None,
    videos: Path | None = None,
    run: Path | None = None,
    prompts: str = "72",
    cache_keys: Callable[[nn.Module], Mapping[str, str]] | None = None,
    samples_per_prompt: int = 1,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 8,
) -> Evaluation:
    """Evaluate a model folder or a folder of videos; print tables, write `evaluate.json` and `failures.png`.

    Args:
        out: folder for the results.
        console: for bars, tables and the verdict.
        model, videos: one of the two.
        run: also measure the curves of the run folder that trained the model; needs `cache_keys`.
        prompts: as in `prompt_set`.
        cache_keys, seed, steps, guidance, batch_size: as in `measure_curves`.
        samples_per_prompt: as in `evaluate_model`.

    Raises:
        UserError: bad input; see the functions this calls.
    """
    if (model is None) == (videos is None):
        raise UserError("evaluate needs either --model DIR or --videos DIR")
    curves = None
    if videos is not None:
        if run is not None:
            raise UserError("--run shows the curves of a model: pass it with --model, not with --videos")
        with _bar(console, "judging") as show:
            found = evaluate_videos(videos, on_progress=show)
        found.settings["videos"] = str(videos)
    else:
        assert model is not None
        wanted = prompt_set(prompts)
        pipeline = load_pipeline(model)
        if run is not None and cache_keys is not None:  # before the long part, as it may be refused
            with _bar(console, "curves") as show:
                curves = measure_curves(
                    pipeline,
                    run,
                    cache_keys,
                    seed=seed,
                    steps=steps,
                    guidance=guidance,
                    batch_size=batch_size,
                    on_progress=show,
                )
        with _bar(console, "sampling") as show:
            found = evaluate_model(
                pipeline,
                wanted,
                samples_per_prompt=samples_per_prompt,
                seed=seed,
                batch_size=batch_size,
                steps=steps,
                guidance=guidance,
                on_progress=show,
            )
        found.settings |= {"model": str(model), "prompts": prompts}
    files = write_evaluation(out, found, curves)
    _print(found, curves, files, console)
    return found


def write_evaluation(out: Path, found: Evaluation, curves: Curves | None = None) -> list[Path]:
    """Write OUT/evaluate.json and, if a clip failed, OUT/failures.png, each whole; returns what was written."""
    out.mkdir(parents=True, exist_ok=True)
    sheet, report = out / "failures.png", out / "evaluate.json"
    value: dict[str, Any] = found.to_dict()
    if curves is not None:
        value["curves"] = curves.to_dict()
    sheet.unlink(missing_ok=True)  # never the sheet of an earlier evaluation beside this one's numbers
    if found.failures:
        captions = [f"{failure.caption} | seen: {', '.join(failure.wrong)}" for failure in found.failures]
        write_contact_sheet(sheet, [failure.video for failure in found.failures], captions)
    write_json(report, value)
    return [report, sheet] if found.failures else [report]


def _print(found: Evaluation, curves: Curves | None, files: list[Path], console: Console) -> None:
    console.print(found.table())
    if found.skipped:
        say(console, f"{len(found.skipped)} files not judged:", style="yellow")
        for line in found.skipped[:_NAMED]:
            say(console, f"  {line}")
        if len(found.skipped) > _NAMED:
            say(console, f"  and {len(found.skipped) - _NAMED} more, named in {files[0]}")
    shown = f"; the sheet shows {len(found.failures)} of them" if found.failures else ""
    say(
        console,
        f"{found.num_failures} of {len(found.captions)} clips differ from their prompt in something{shown}",
    )
    if curves is not None:
        say(console, curves.finding.sentence, style="bold")
    for file in files:
        say(console, f"wrote {file}")


@contextmanager
def _bar(console: Console, name: str) -> Iterator[Callable[[float, int], None]]:
    """A bar with the time left; what it yields takes (done, total)."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task(name, total=None)

        def show(done: float, total: int) -> None:
            then = ", then the judge's own accuracy" if done >= total else ""
            bar.update(task, completed=done, total=total, description=name + then)

        yield show
