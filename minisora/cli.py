"""The one entry point: parse, call, print. No logic, and no heavy import outside a command."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
from rich.console import Console

from minisora.errors import UserError
from minisora.files import write_json

if TYPE_CHECKING:
    from minisora.config import Config

app = typer.Typer(
    help="A miniature Sora that trains on a laptop, and an exact instrument for what such models cost.\n\n"
    "Three commands from a folder of clips to videos:\n\n"
    "    minisora data check clips/\n\n"
    "    minisora train --data clips/ --out runs/mine\n\n"
    '    minisora sample --model runs/mine/model --prompt "..." --out x.mp4',
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Make and check data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
caption_app = typer.Typer(help="Fill in missing captions.", no_args_is_help=True)
app.add_typer(caption_app, name="caption")

console = Console()


class Stage(StrEnum):
    """A training stage."""

    vae = "vae"
    dit = "dit"


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
    inpaint = "inpaint"
    restyle = "restyle"


class Device(StrEnum):
    """Where to count."""

    meta = "meta"
    cpu = "cpu"
    cuda = "cuda"


class RealDevice(StrEnum):
    """Where to time."""

    cpu = "cpu"
    cuda = "cuda"


class Table(StrEnum):
    """A table of published models."""

    dit = "dit"


ConfigOption = Annotated[
    str, typer.Option("--config", "-c", help="A YAML file, or the name of a shipped one such as 'toy'.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Override a setting, e.g. --set dit.width=256 (repeatable)."),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", "-d", help="Folder of videos and images with captions; default: shapes."),
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Run folder; an unfinished run there is resumed.")
]


@app.command()
def demo(
    out: OutOption = Path("runs/demo"),
    config: ConfigOption = "toy",
    set_: SetOption = None,
) -> None:
    """Watch a miniature Sora learn: data, VAE, DiT, samples, FLOPs, and one page that shows it all."""
    from minisora.demo.run import run_demo

    page = run_demo(_load(config, set_), out, console)
    console.print(f"Open [bold]{page}[/bold]")


@app.command()
def train(
    stage: Annotated[Stage | None, typer.Argument(help="One stage; both in a row if not given.")] = None,
    config: ConfigOption = "toy",
    data: DataOption = None,
    out: OutOption = Path("runs/train"),
    vae: Annotated[
        Path | None, typer.Option(help="A trained VAE for the dit stage; default OUT/vae/model.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Train the VAE, the DiT, or both. The same command again resumes an interrupted run.

    On several processes: accelerate launch --config_file configs/accelerate/ddp.yaml -m minisora train ...
    """
    from minisora.training.stages import train_dit, train_vae

    resolved = _load(config, set_, data)
    if stage in (None, Stage.vae):
        train_vae(resolved, out, console)
    if stage in (None, Stage.dit):
        train_dit(resolved, out, console, vae)
        model = out / "model"
        console.print(
            f'Model in [bold]{model}[/bold]. Next: minisora sample --model {model} --prompt "..." --out sample.mp4',
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def distill(
    run: Annotated[Path, typer.Option("--run", help="The teacher's run folder, such as runs/demo.")],
    out: OutOption = Path("runs/distilled"),
    pairs: Annotated[int, typer.Option(help="Samples of the teacher to learn from.")] = 4000,
    steps: Annotated[int, typer.Option(help="Sampling steps that the student takes by default.")] = 4,
    set_: SetOption = None,
) -> None:
    """Teach a student to sample in a few steps, without guidance, what its teacher samples in many (reflow)."""
    from minisora.training.distill import distill_run

    distill_run(run, out, console, num_pairs=pairs, student_steps=steps, overrides=set_ or [])
    console.print(f"Model in [bold]{out / 'model'}[/bold]", highlight=False, soft_wrap=True)


@app.command()
def sample(
    model: Annotated[Path, typer.Option("--model", "-m", help="A model folder, such as runs/demo/model.")],
    prompt: Annotated[list[str], typer.Option("--prompt", "-p", help="What to show (repeatable).")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The video; a .gif and a contact sheet .png go beside it.")
    ] = Path("sample.mp4"),
    frames: Annotated[int | None, typer.Option(help="Frames; default as trained. 1 makes an image.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; default as trained.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; default as trained.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps; default from the model.")] = None,
    guidance: Annotated[float | None, typer.Option(help="1 is none; more follows the prompt closer.")] = None,
    scheduler: Annotated[SchedulerName | None, typer.Option(help="Default from the model.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same video.")] = 0,
) -> None:
    """Sample videos from prompts."""
    from minisora.pipelines.pipeline import load_pipeline, make_scheduler
    from minisora.pipelines.write import write_videos

    pipeline = load_pipeline(model)
    if scheduler is not None:
        pipeline.scheduler = make_scheduler(scheduler, pipeline.config.sigma_shift)
    for text in prompt:
        if unknown := pipeline.check_prompt(text):
            console.print(
                f"[yellow]the model never saw: {', '.join(unknown)}[/yellow]", highlight=False, soft_wrap=True
            )
    videos = pipeline(
        prompt,
        num_frames=frames,
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=guidance,
        seed=seed,
    ).videos
    for file in write_videos(out, videos, prompt, pipeline.config.fps):
        console.print(f"wrote {file}", highlight=False, soft_wrap=True)


@app.command()
def edit(
    mode: Annotated[EditMode, typer.Argument(help="What to do.")],
    model: Annotated[Path, typer.Option("--model", "-m", help="A model folder, such as runs/modes/model.")],
    video: Annotated[list[Path], typer.Option("--video", "-v", help="A video or image; twice for connect.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What the result shows.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The video; a .gif and a contact sheet .png go beside it.")
    ] = Path("edit.mp4"),
    strength: Annotated[
        float, typer.Option(help="Of restyle, in (0, 1]: low keeps the video, 1 keeps nothing.")
    ] = 0.7,
    region: Annotated[
        tuple[int, int, int, int] | None, typer.Option(help="Of inpaint: top left bottom right, in pixels.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps; default from the model.")] = None,
    guidance: Annotated[float | None, typer.Option(help="1 is none; more follows the prompt closer.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same video.")] = 0,
) -> None:
    """Animate an image; extend, prepend to, connect, loop, inpaint or restyle a video.

    The model must have been trained with known frames (configs/modes.yaml) for all but inpaint and restyle.
    """
    from minisora.pipelines.edit import edit as edit_files
    from minisora.pipelines.pipeline import load_pipeline
    from minisora.pipelines.write import write_videos

    pipeline = load_pipeline(model)
    made = edit_files(
        pipeline,
        mode.value,
        video,
        prompt,
        strength=strength,
        region=region,
        say=lambda line: console.print(f"[yellow]{line}[/yellow]", highlight=False, soft_wrap=True),
        num_inference_steps=steps,
        guidance_scale=guidance,
        seed=seed,
    )
    for file in write_videos(out, made, [prompt], pipeline.config.fps):
        console.print(f"wrote {file}", highlight=False, soft_wrap=True)


@app.command()
def evaluate(
    model: Annotated[Path | None, typer.Option("--model", "-m", help="Judge samples of this model.")] = None,
    videos: Annotated[
        Path | None, typer.Option("--videos", help="Or judge this folder of mp4 files with metadata.csv.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="The model's run folder: also say if it is learning, stuck or memorising."),
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(help="72: colour x shape x direction; all: and walls, day, night; or a text file."),
    ] = "72",
    samples_per_prompt: Annotated[int, typer.Option(help="More samples, narrower intervals.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same samples.")] = 0,
    steps: Annotated[
        str | None,
        typer.Option(
            "--num-inference-steps",
            "--steps",
            help="Default from the model; 1,2,4,8 compares them: steps.json.",
        ),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance-scale", "--guidance", help="Default from the model.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Videos sampled at a time.")] = 8,
    modes: Annotated[
        bool, typer.Option("--modes", help="Instead: animate, extend, connect, loop, inpaint, restyle.")
    ] = False,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder for evaluate.json and failures.png, modes.json or steps.json."
        ),
    ] = Path("runs/evaluate"),
) -> None:
    """Judge what videos show against their prompts, without a learned network, and the judge itself."""
    from minisora.evaluate.steps import parse_steps, run_steps

    numbers = parse_steps(steps) if steps is not None else None
    if numbers is not None and len(numbers) > 1:
        run_steps(
            out,
            console,
            model=model,
            steps=numbers,
            prompts=prompts,
            samples_per_prompt=samples_per_prompt,
            seed=seed,
            guidance=guidance,
            batch_size=batch_size,
        )
        return
    one = numbers[0] if numbers else None
    if modes:
        from minisora.evaluate.run_modes import run_modes

        run_modes(
            out,
            console,
            model=model,
            prompts=prompts,
            seed=seed,
            steps=one,
            guidance=guidance,
            batch_size=batch_size,
        )
        return
    from minisora.evaluate.run import run_evaluation
    from minisora.training.tasks import fingerprint

    run_evaluation(
        out,
        console,
        model=model,
        videos=videos,
        run=run,
        prompts=prompts,
        fingerprint=fingerprint,
        samples_per_prompt=samples_per_prompt,
        seed=seed,
        steps=one,
        guidance=guidance,
        batch_size=batch_size,
    )


@app.command()
def flops(
    config: ConfigOption = "toy",
    set_: SetOption = None,
    device: Annotated[
        Device, typer.Option(help="meta counts by shapes alone; cpu and cuda run it.")
    ] = Device.meta,
    table: Annotated[
        Table | None, typer.Option(help="dit: the DiT paper's thirteen models, published | counted.")
    ] = None,
    diffusers: Annotated[
        str | None, typer.Option(help="A diffusers transformer, e.g. CogVideoXTransformer3DModel.")
    ] = None,
    args: Annotated[
        Path | None, typer.Option(help="YAML for --diffusers: config, latent_size, text_tokens, inputs.")
    ] = None,
    time: Annotated[
        bool, typer.Option("--time", help="Also time the passes and report MFU (on cpu or cuda).")
    ] = False,
    json_: JsonOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Attention's share against tokens, as .png or .svg.")
    ] = None,
) -> None:
    """Count MACs and FLOPs of a real forward pass, attention included, three ways that must agree."""
    if table is not None:
        from minisora.measure.dit_table import count_table

        _show(count_table(), json_)
    elif diffusers is not None:
        from minisora.config import read_yaml
        from minisora.measure.foreign import count_diffusers

        _show(count_diffusers(diffusers, read_yaml(args) if args else None), json_)
    else:
        from minisora.measure.report import count_config

        _show(count_config(_load(config, set_), device=device.value), json_)
    if time:
        from minisora.measure.timed import time_config

        timed = time_config(_load(config, set_), device="cpu" if device is Device.meta else device.value)
        _show(timed, json_.with_name(f"{json_.stem}-time.json") if json_ else None)
        for warning in timed.warnings():
            console.print(f"[yellow]{warning}[/yellow]", highlight=False, soft_wrap=True)
    if plot is not None:
        from minisora.measure.plots import plot_attention_share

        plot_attention_share(plot)
        console.print(f"wrote {plot}", highlight=False, soft_wrap=True)


@app.command()
def calibrate(
    out: Annotated[Path, typer.Option("--out", "-o", help="The calibration file.")] = Path(
        "calibration.json"
    ),
    device: Annotated[
        RealDevice, typer.Option(help="cpu: about a minute on two idle cores.")
    ] = RealDevice.cpu,
    plot: Annotated[Path | None, typer.Option(help="Achieved FLOP/s against size, as .png or .svg.")] = None,
) -> None:
    """Sweep real passes on this machine and fit what they cost: MACs, time, MFU. `minisora report` reads it."""
    from minisora.measure.calibration import calibrate as sweep

    with console.status("calibrating") as status:
        calibration = sweep(
            device=device.value, progress=lambda done, total: status.update(f"calibrating {done}/{total}")
        )
    calibration.save(out)
    console.print(calibration.table())
    console.print(f"wrote {out}", highlight=False, soft_wrap=True)
    if plot is not None:
        from minisora.measure.plots import plot_roofline

        plot_roofline(calibration, plot)
        console.print(f"wrote {plot}", highlight=False, soft_wrap=True)


@app.command()
def report(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the page, JSON, CSV and figures.")
    ] = Path("report"),
    preset: Annotated[
        str,
        typer.Option(help="as_published, corrected, measured, modern, modern_distilled, or a YAML file."),
    ] = "measured",
    calibration: Annotated[
        Path | None, typer.Option(help="File of minisora calibrate: measured costs for computed ones.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of a toy run: its VAE's compression, and steps.json of evaluate."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value for an assumption, e.g. --set sora.params=30e9."),
    ] = None,
    verified_only: Annotated[
        bool, typer.Option("--verified-only", help="Back-test only on figures from primary sources.")
    ] = False,
) -> None:
    """Rerun a published estimate of Sora's compute: claims audited, corrected, measured, with intervals."""
    from minisora.estimate.report import build_report, print_report, write_report

    built = build_report(
        preset,
        overrides=set_,
        calibration=calibration,
        run=run,
        include_unverified=not verified_only,
    )
    page = write_report(built, out)
    print_report(built, console)
    console.print(f"wrote {page}", highlight=False, soft_wrap=True)


@data_app.command("make")
def data_make(
    out: Annotated[Path, typer.Argument(help="Folder for the clips and metadata.csv.")],
    clips: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another data set.")] = 0,
    config: ConfigOption = "toy",
    set_: SetOption = None,
) -> None:
    """Write a captioned set of moving shapes as mp4 files with metadata.csv."""
    from minisora.data.make import make_shapes

    make_shapes(out, clips, seed, _load(config, set_).clip)
    console.print(
        f"wrote {clips} clips to {out}; next: minisora data check {out}", highlight=False, soft_wrap=True
    )


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="Folder of videos and images.")],
    config: ConfigOption = "toy",
    set_: SetOption = None,
    json_: Annotated[
        Path | None, typer.Option("--json", help="Also write the findings to this file.")
    ] = None,
) -> None:
    """The doctor: what is in a folder, what is wrong with it, what a config would keep and drop and why.

    Exit code 1 if nothing usable is left.
    """
    from minisora.data.doctor import check

    with console.status("checking") as status:
        report = check(
            folder, _load(config, set_, folder), lambda done, total: status.update(f"checking {done}/{total}")
        )
    report.print(console)
    if json_ is not None:
        _write_json(json_, report.to_dict())
    if not report.usable:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line: bad input becomes one line on stderr and exit code 2."""
    try:
        app()
    except UserError as error:
        _fail(str(error))
    except PermissionError as error:
        _fail(f"no permission for {error.filename}: choose another place or change its mode")
    except OSError as error:
        if error.errno is None:
            raise
        _fail(f"{error.filename or 'a file'}: {error.strerror}")
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


@caption_app.command("train")
def caption_train(
    run: Annotated[Path, typer.Option("--run", help="A run with a trained VAE; its captions are learned.")],
    share: Annotated[float, typer.Option(help="Of the training clips, the first part to learn from.")] = 1.0,
    set_: SetOption = None,
) -> None:
    """Train a captioner on the labelled clips of a run: RUN/captioner/model."""
    from minisora.training.captioning import train_captioner

    train_captioner(_load(str(run / "config.yaml"), set_), run, console, share)


@caption_app.command("label")
def caption_label(
    run: Annotated[Path, typer.Option("--run", help="A run with a captioner.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of videos; those with a caption keep it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The CSV to write.")] = Path("metadata.csv"),
    min_confidence: Annotated[float, typer.Option(help="Leave out files below it, in [0, 1].")] = 0.0,
) -> None:
    """Write captions, with their confidence, for the files of a folder that have none."""
    from minisora.training.captioning import label_folder

    written, left_out = label_folder(run, data, out, console, min_confidence)
    console.print(
        f"{written} files captioned, {left_out} below confidence {min_confidence:g} left out; wrote {out}",
        highlight=False,
        soft_wrap=True,
    )


def _load(config: str, overrides: list[str] | None, data: Path | None = None) -> "Config":
    from minisora.config import load

    folder = [] if data is None else ["data.source=folder", f"data.path={json.dumps(str(data))}"]
    return load(config, folder + (overrides or []))


class _Report(Protocol):
    """What the instrument returns: a rich table, and JSON."""

    def table(self) -> Any:
        """For the screen."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """For a file."""
        ...


def _show(report: _Report, json_: Path | None) -> None:
    console.print(report.table())
    if json_ is not None:
        _write_json(json_, report.to_dict())


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)
