"""Commands that use a model: sample, edit, augment, export."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minisora.cli.options import (
    GuidanceOption,
    StepsOption,
    check_folder,
    check_output,
    console,
    finite,
    refuse_beside,
)
from minisora.errors import UserError
from minisora.files import same_file
from minisora.limits import LAST_SEED, MAX_COUNT, MAX_FRAMES, MAX_SIDE
from minisora.screen import say

if TYPE_CHECKING:
    from minisora.pipelines.pipeline import MiniSoraPipeline


class SchedulerName(StrEnum):
    """A sampling scheduler."""

    euler = "euler"
    heun = "heun"
    dpm = "dpm++"


class EditMode(StrEnum):
    """What to make of an image or a video."""

    animate = "animate"
    extend = "extend"
    prepend = "prepend"
    connect = "connect"
    loop = "loop"
    keyframes = "keyframes"
    inpaint = "inpaint"
    restyle = "restyle"


SchedulerOption = Annotated[SchedulerName | None, typer.Option(help="Default from the model.")]


def sample(
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What to show (repeatable).")
    ] = None,
    model: Annotated[
        Path,
        typer.Option("--model", "-m", help="A model folder, such as runs/demo/model, or a shipped one: toy."),
    ] = Path("toy"),
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
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="The same seed gives the same video.")] = 0,
    latents: Annotated[
        Path | None,
        typer.Option(help="Instead: decode what was kept when a video could not be made or written."),
    ] = None,
) -> None:
    """Sample videos from prompts."""
    from minisora.pipelines.sample import decode_files, read_latents, sample_files

    if latents is not None:
        refuse_beside(
            "--latents",
            {
                "--prompt": prompt is not None,
                "--frames": frames is not None,
                "--height": height is not None,
                "--width": width is not None,
                "--steps": steps is not None,
                "--guidance": guidance is not None,
                "--scheduler": scheduler is not None,
                "--seed": seed != 0,
            },
        )
        kept = read_latents(latents)
        _check_video(out, len(kept.prompts), [latents])
        for file in decode_files(_load(model, None), kept, out):
            say(console, f"wrote {file}")
        return
    if not prompt:
        raise UserError("no prompt: say what to show, such as --prompt 'a red circle moving left'")
    _check_video(out, len(prompt))
    pipeline = _load(model, scheduler)
    for text in prompt:
        if unknown := pipeline.check_prompt(text):
            say(console, f"the model never saw: {', '.join(unknown)}", style="yellow")
    files = sample_files(
        pipeline,
        prompt,
        out,
        num_frames=frames,
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=guidance,
        guidance_interval=guidance_interval,
        seed=seed,
    )
    for file in files:
        say(console, f"wrote {file}")


def edit(
    mode: Annotated[EditMode, typer.Argument(help="What to do.")],
    model: Annotated[Path, typer.Option("--model", "-m", help="A model folder, such as runs/modes/model.")],
    video: Annotated[
        list[Path],
        typer.Option("--video", "-v", help="A video or image; twice for connect, more for keyframes."),
    ],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What the result shows.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The video; a .gif and a contact sheet .png go beside it.")
    ] = Path("edit.mp4"),
    strength: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            callback=finite,
            help="Of restyle, in (0, 1]: low keeps the video, 1 keeps nothing.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Of restyle: what the video shows now; keeps all that the prompts share."),
    ] = None,
    region: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(min=0, max=MAX_SIDE, help="Of inpaint: top left bottom right, in pixels."),
    ] = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    scheduler: SchedulerOption = None,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="The same seed gives the same video.")] = 0,
) -> None:
    """Animate an image; extend, prepend to, connect, loop, inpaint or restyle a video; fill in between keyframes.

    The model must have been trained with known frames (configs/modes.yaml) for all but inpaint and restyle.
    """
    from minisora.pipelines.edit import edit as edit_files
    from minisora.pipelines.write import write_videos

    _check_video(out, 1, video)
    if source is not None:  # FlowEdit takes steps of its own
        refuse_beside("--source", {"--scheduler": scheduler is not None})
    pipeline = _load(model, scheduler)
    made = edit_files(
        pipeline,
        mode.value,
        video,
        prompt,
        strength=strength,
        source=source,
        region=region,
        say=lambda line: say(console, line, style="yellow"),
        num_inference_steps=steps,
        guidance_scale=guidance,
        seed=seed,
    )
    for file in write_videos(out, made, [prompt], pipeline.config.fps):
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


def augment(
    model: Annotated[Path, typer.Option("--model", "-m", help="A model folder, such as runs/modes/model.")],
    data: Annotated[Path, typer.Option("--data", "-d", help="Folder of videos with captions.")],
    prompts: Annotated[
        list[str],
        typer.Option(
            "--prompts",
            "-p",
            help="What the new clips show (repeatable); {caption} stands for a clip's own caption.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new set.")] = Path("augmented"),
    strength: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, callback=finite, help="In (0, 1]: low keeps the clip, 1 keeps nothing."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="The same seed gives the same set.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="Videos made at a time.")] = 8,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    scheduler: Annotated[
        SchedulerName | None,
        typer.Option(help="Where clips have no captions; clips with captions are restyled by FlowEdit."),
    ] = None,
) -> None:
    """More training clips: every clip of a folder restyled under every prompt, as a captioned set."""
    from minisora.pipelines.augment import augment as augment_folder

    check_folder(out)
    if same_file(out, [data]) is not None:
        raise UserError(f"--out {out} is the folder of --data, whose clips would be lost: choose another")
    pipeline = _load(model, scheduler)
    with console.status("restyling") as status:
        count = augment_folder(
            pipeline,
            data,
            prompts,
            out,
            strength=strength,
            seed=seed,
            batch_size=batch_size,
            progress=lambda done, total: status.update(f"restyling {done}/{total}"),
            num_inference_steps=steps,
            guidance_scale=guidance,
        )
    say(console, f"wrote {count} clips to {out}; next: minisora data check {out}")


def _load(model: Path, scheduler: SchedulerName | None) -> "MiniSoraPipeline":
    """The pipeline of a model, with the scheduler asked for or its own."""
    from minisora.pipelines.model_folder import load_pipeline
    from minisora.pipelines.schedulers import make_scheduler

    pipeline = load_pipeline(model)
    if scheduler is not None:
        pipeline.scheduler = make_scheduler(scheduler, pipeline.config.sigma_shift)
    return pipeline


def _check_video(out: Path, count: int, inputs: Sequence[Path] = ()) -> None:
    """Refuse a place for so many videos before any is sampled: each comes with a .gif, and a .png for all."""
    from minisora.pipelines.write import output_files

    check_output(out, (".mp4", ""))
    for file in output_files(out, count):
        check_output(file, (file.suffix,), inputs)
