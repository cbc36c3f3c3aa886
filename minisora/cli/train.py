"""Commands that train: train, distill."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from minisora.cli.options import (
    DataOption,
    MinutesOption,
    OutOption,
    SetOption,
    check_folder,
    config_of_run,
    console,
    load_config,
    refuse_beside,
)
from minisora.errors import UserError
from minisora.limits import MAX_COUNT, MAX_STEPS
from minisora.screen import say


class Stage(StrEnum):
    """A training stage."""

    vae = "vae"
    dit = "dit"


def train(
    stage: Annotated[Stage | None, typer.Argument(help="One stage; both in a row if not given.")] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            help="A YAML file or a shipped name; default: the run's own; or 'clips' with --data, 'toy' without.",
        ),
    ] = None,
    data: DataOption = None,
    out: OutOption = Path("runs/train"),
    minutes: MinutesOption = None,
    init: Annotated[
        str | None,
        typer.Option(help="Begin the VAE with that of a model folder, or of a shipped model: toy."),
    ] = None,
    vae: Annotated[
        Path | None, typer.Option(help="A trained VAE for the dit stage; default OUT/vae/model.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Train the VAE, the DiT, or both. The same command again resumes an interrupted run.

    On several processes: accelerate launch --config_file configs/accelerate/ddp.yaml -m minisora train ...
    """
    from minisora.demo.run_page import LivePage
    from minisora.training.dit_task import check_dit
    from minisora.training.minutes import train_for_minutes
    from minisora.training.stages import train_dit, train_vae

    check_folder(out)
    if vae is not None and stage is not Stage.dit:
        raise UserError(f"--vae {vae} is for the DiT alone: say 'minisora train dit', or leave --vae out")
    otherwise = "toy" if data is None else "clips"
    resolved = load_config(config or config_of_run(out, otherwise), set_, data)
    if init is not None:
        resolved = resolved.replace(**{"train_vae.init": init})
    if minutes is not None and stage is not None:
        raise UserError(f"--minutes shares its time between both stages: leave '{stage.value}' out")
    if stage is None:
        check_dit(resolved)
    page = LivePage(out, resolved, console)
    if minutes is not None:
        train_for_minutes(resolved, out, console, minutes, page)
    elif stage in (None, Stage.vae):
        train_vae(resolved, out, console, page)
    if minutes is None and stage in (None, Stage.dit):
        train_dit(resolved, out, console, vae, page)
    page.finish()
    if stage in (None, Stage.dit):
        model = out / "model"
        say(
            console,
            "Model in ",
            (str(model), "bold"),
            f'. Next: minisora sample --model {model} --prompt "..." --out sample.mp4',
        )


def distill(
    run: Annotated[
        Path | None, typer.Option("--run", help="The teacher's run folder, such as runs/demo; or:")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The teacher's model folder, or toy, with --config.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", "-c", help="With --model: what it was trained with; default modes, the toy's."
        ),
    ] = None,
    out: OutOption = Path("runs/distilled"),
    samples: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_COUNT, help="Samples of the teacher to learn from; default 4000."),
    ] = None,
    steps: Annotated[
        int,
        typer.Option(
            min=1, max=MAX_STEPS, help="Sampling steps of the student: it is made for exactly so many."
        ),
    ] = 4,
    minutes: MinutesOption = None,
    set_: SetOption = None,
) -> None:
    """Teach a student to sample in a few steps, without guidance, what its teacher samples in many."""
    from minisora.training.distill import NUM_SAMPLES, distill_model, teacher_of

    check_folder(out)
    if minutes is not None:
        refuse_beside("--minutes", {"--samples": samples is not None})
    trained_by: str | Path
    teacher: str | Path
    if run is not None and model is None:
        if config is not None:
            raise UserError(
                f"--config {config} goes with --model: --run {run} has its own config, leave it out"
            )
        trained_by, teacher = teacher_of(run, out)
    elif model is not None and run is None:
        trained_by, teacher = config or "modes", model
    else:
        raise UserError("give the teacher by either --run DIR or --model DIR")
    distill_model(
        trained_by,
        teacher,
        out,
        console,
        num_samples=samples or NUM_SAMPLES,
        student_steps=steps,
        overrides=set_ or [],
        minutes=minutes,
    )
    say(console, "Model in ", (str(out / "model"), "bold"))
