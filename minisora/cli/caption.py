"""Commands that fill in captions: caption train, caption label."""

from pathlib import Path
from typing import Annotated

import typer

from minisora.cli.options import MinutesOption, SetOption, check_output, console, finite
from minisora.errors import UserError
from minisora.screen import say


def caption_train(
    run: Annotated[Path, typer.Option("--run", help="A run with a trained VAE; its captions are learned.")],
    share: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, callback=finite, help="Of the training clips, the first part to learn from."
        ),
    ] = 1.0,
    minutes: MinutesOption = None,
    set_: SetOption = None,
) -> None:
    """Train a captioner on the labelled clips of a run: RUN/captioner/model."""
    from minisora.config import load
    from minisora.config_files import of_run
    from minisora.training.captioning import train_captioner
    from minisora.training.stage_minutes import open_stage_plan, plan_stage

    config, out = load(of_run(run), set_ or ()), run / "captioner"
    if minutes is not None:
        plan = open_stage_plan(out, minutes)
        config = plan_stage(
            plan,
            "caption",
            config,
            out,
            console,
            lambda few, folder, quiet: train_captioner(few, run, quiet, share, folder / "captioner"),
        )
    train_captioner(config, run, console, share)


def caption_label(
    run: Annotated[Path, typer.Option("--run", help="A run with a captioner.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of videos; those with a caption keep it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The CSV to write.")] = Path("metadata.csv"),
    min_confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, callback=finite, help="Leave out files below it.")
    ] = 0.0,
) -> None:
    """Write captions, with their confidence, for the files of a folder that have none."""
    from minisora.training.captioning import label_folder

    check_output(out, (".csv",))
    if out.exists():
        raise UserError(f"{out} exists, and its captions would be lost: choose another --out")
    written, left_out = label_folder(run, data, out, console, min_confidence)
    say(
        console,
        f"{written} files captioned, {left_out} below confidence {min_confidence:g} left out; wrote {out}",
    )
