"""Commands that make videos from videos: edit, augment."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from minisora.cli.options import (
    GuidanceOption,
    StepsOption,
    check_folder,
    console,
    finite,
    refuse_beside,
)
from minisora.cli.sample import SchedulerName, SchedulerOption, SeedOption, check_video, load_model
from minisora.errors import UserError
from minisora.files import same_file
from minisora.limits import LAST_SEED, MAX_COUNT, MAX_SIDE
from minisora.screen import say


class FitName(StrEnum):
    """What becomes of a picture of another shape than the model's."""

    crop = "crop"
    pad = "pad"
    squash = "squash"


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


ModesModelOption = Annotated[
    Path, typer.Option("--model", "-m", help="A model folder, such as runs/modes/model.")
]


def edit(
    mode: Annotated[EditMode, typer.Argument(help="What to do.")],
    model: ModesModelOption,
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
    seed: SeedOption = 0,
    fit: Annotated[
        FitName,
        typer.Option(help="Where the video has another shape: cut it, put it on black, or stretch it."),
    ] = FitName.crop,
) -> None:
    """Animate an image; extend, prepend to, connect, loop, inpaint or restyle a video; fill in between keyframes.

    The model must have been trained with known frames (configs/modes.yaml) for all but inpaint and restyle.
    """
    from minisora.flow.denoise import SampleSettings
    from minisora.pipelines.edit_files import edit as edit_files
    from minisora.pipelines.sample_files import write_videos

    check_video(out, 1, video)
    # FlowEdit takes steps of its own.
    if source is not None:
        refuse_beside("--source", {"--scheduler": scheduler is not None})
    settings = SampleSettings(steps=steps, guidance=guidance, strength=strength, seed=seed)
    pipeline = load_model(model, scheduler)
    edited = edit_files(
        pipeline,
        mode.value,
        video,
        prompt,
        source=source,
        region=region,
        settings=settings,
        fit=fit.value,
        say=lambda line: say(console, line, style="yellow"),
    )
    for file in write_videos(out, edited, [prompt], pipeline.config.fps):
        say(console, f"wrote {file}")


def augment(
    model: ModesModelOption,
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
    from minisora.flow.denoise import SampleSettings
    from minisora.pipelines.augment import augment as augment_folder

    check_folder(out)
    if same_file(out, [data]) is not None:
        raise UserError(f"--out {out} is the folder of --data, whose clips would be lost: choose another")
    settings = SampleSettings(steps=steps, guidance=guidance, strength=strength, seed=seed)
    pipeline = load_model(model, scheduler)
    with console.status("restyling") as status:
        count = augment_folder(
            pipeline,
            data,
            prompts,
            out,
            settings=settings,
            batch_size=batch_size,
            progress=lambda done, total: status.update(f"restyling {done}/{total}"),
        )
    say(console, f"wrote {count} clips to {out}; next: minisora data check {out}")
