"""Commands that make videos from prompts, and pass a model on: sample, export."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minisora.cli.options import (
    GuidanceOption,
    ModelOption,
    StepsOption,
    check_folder,
    check_output,
    console,
    finite,
    refuse_beside,
)
from minisora.errors import UserError
from minisora.limits import LAST_SEED, MAX_FRAMES, MAX_SIDE
from minisora.screen import say

if TYPE_CHECKING:
    from minisora.pipelines.pipeline import MiniSoraPipeline


class SchedulerName(StrEnum):
    """A sampling scheduler."""

    euler = "euler"
    heun = "heun"
    dpm = "dpm++"


SeedOption = Annotated[int, typer.Option(min=0, max=LAST_SEED, help="The same seed gives the same video.")]
SchedulerOption = Annotated[SchedulerName | None, typer.Option(help="Default from the model.")]


def sample(
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What to show (repeatable).")
    ] = None,
    model: ModelOption = Path("toy"),
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The video; a .gif and a contact sheet .png go beside it.")
    ] = Path("sample.mp4"),
    frames: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_FRAMES, help="Frames; default as trained. 1 makes an image."),
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=1, max=MAX_SIDE, help="Pixels; default as trained.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, max=MAX_SIDE, help="Pixels; default as trained.")
    ] = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    guidance_interval: Annotated[
        tuple[float, float],
        typer.Option(
            min=0.0, max=1.0, callback=finite, help="Noise levels (low high) to guide at; 1 is noise."
        ),
    ] = (0.0, 1.0),
    scheduler: SchedulerOption = None,
    seed: SeedOption = 0,
    latents: Annotated[
        Path | None,
        typer.Option(help="Instead: decode what was kept when a video could not be made or written."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="Instead: an mp4 of the studio, made again from the recipe inside it; no .gif or .png."
        ),
    ] = None,
    upload: Annotated[
        list[Path] | None,
        typer.Option(
            help="With --recipe: a file that was sent to the studio and is part of the recipe (repeatable)."
        ),
    ] = None,
) -> None:
    """Sample videos from prompts."""
    from minisora.flow.denoise import SampleSettings
    from minisora.pipelines.sample_files import decode_files, read_latents, sample_files

    choices = {
        "--prompt": prompt is not None,
        "--frames": frames is not None,
        "--height": height is not None,
        "--width": width is not None,
        "--steps": steps is not None,
        "--guidance": guidance is not None,
        "--guidance-interval": guidance_interval != (0.0, 1.0),
        "--scheduler": scheduler is not None,
        "--seed": seed != 0,
    }
    if upload and recipe is None:
        raise UserError("--upload gives a file to --recipe: pass that too, or leave --upload out")
    if recipe is not None:
        from minisora.pipelines.remake import remake

        refuse_beside("--recipe", {**choices, "--latents": latents is not None})
        check_output(out, (".mp4",), [recipe, *(upload or ())])
        # The default is no choice of the user's.
        remake(recipe, out, None if model == Path("toy") else model, upload or ())
        say(console, f"wrote {out}")
        return
    if latents is not None:
        refuse_beside("--latents", choices)
        kept = read_latents(latents)
        check_video(out, kept.count, [latents])
        for file in decode_files(load_model(model, None), kept, out):
            say(console, f"wrote {file}")
        return
    if not prompt:
        raise UserError("no prompt: say what to show, such as --prompt 'a red circle moving left'")
    check_video(out, len(prompt))
    pipeline = load_model(model, scheduler)
    for text in prompt:
        if unknown := pipeline.check_prompt(text):
            say(console, f"the model never saw: {', '.join(unknown)}", style="yellow")
    files = sample_files(
        pipeline,
        prompt,
        out,
        SampleSettings(steps=steps, guidance=guidance, interval=guidance_interval, seed=seed),
        pipeline.size(frames, height, width),
    )
    for file in files:
        say(console, f"wrote {file}")


def export(
    model: Annotated[Path, typer.Option("--model", "-m", help="A model folder, such as runs/demo/model.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the small model.")],
    scores: Annotated[
        list[Path] | None,
        typer.Option(help="evaluate.json, modes.json, sizes.json or steps.json of the model (repeatable)."),
    ] = None,
    made_by: Annotated[str, typer.Option(help="The command that trained it, for the card.")] = "",
) -> None:
    """A model in half precision with a model card, to pass on."""
    from minisora.pipelines.model_folder import export_model

    check_folder(out)
    size = export_model(model, out, scores or [], made_by)
    say(console, f"wrote {out}: {size:.1f} MiB")


def load_model(model: Path, scheduler: SchedulerName | None) -> "MiniSoraPipeline":
    """The pipeline of a model, with the scheduler asked for or its own."""
    from minisora.flow.schedules import make_scheduler
    from minisora.pipelines.model_folder import load_pipeline

    pipeline = load_pipeline(model)
    if scheduler is not None:
        pipeline.scheduler = make_scheduler(scheduler, pipeline.config.sigma_shift)
    return pipeline


def check_video(out: Path, count: int, inputs: Sequence[Path] = ()) -> None:
    """Refuse a place for so many videos before any is sampled: each comes with a .gif, and a .png for all."""
    from minisora.pipelines.sample_files import output_files

    check_output(out, (".mp4", ""))
    for file in output_files(out, count):
        check_output(file, (file.suffix,), inputs)
