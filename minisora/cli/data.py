"""Commands on data sets: data make, data check, caption train, caption label."""

from pathlib import Path
from typing import Annotated

import typer

from minisora.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    check_folder,
    check_output,
    console,
    finite,
    load_config,
    write_result,
)
from minisora.errors import UserError
from minisora.limits import LAST_SEED, MAX_COUNT
from minisora.screen import say


def data_make(
    out: Annotated[Path, typer.Argument(help="Folder for the clips and metadata.csv.")],
    clips: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="How many.")] = 100,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Another seed, another data set.")] = 0,
    config: ConfigOption = "toy",
    set_: SetOption = None,
) -> None:
    """Write a captioned set of moving shapes as mp4 files with metadata.csv."""
    from minisora.data.make import make_shapes

    check_folder(out)
    make_shapes(out, clips, seed, load_config(config, set_).clip)
    say(console, f"wrote {clips} clips to {out}; next: minisora data check {out}")


def data_check(
    folder: Annotated[Path, typer.Argument(help="Folder of videos and images.")],
    config: ConfigOption = "toy",
    set_: SetOption = None,
    json_: JsonOption = None,
) -> None:
    """The doctor: what is in a folder, what is wrong with it, what a config would keep and drop and why.

    Exit code 1 if nothing usable is left.
    """
    from minisora.data.doctor import check

    check_output(json_, (".json",))
    with console.status("checking") as status:
        report = check(
            folder,
            load_config(config, set_, folder),
            lambda done, total: status.update(f"checking {done}/{total}"),
        )
    report.print(console)
    if json_ is not None:
        write_result(json_, report.to_dict())
    if not report.usable:
        raise typer.Exit(1)


def caption_train(
    run: Annotated[Path, typer.Option("--run", help="A run with a trained VAE; its captions are learned.")],
    share: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, callback=finite, help="Of the training clips, the first part to learn from."
        ),
    ] = 1.0,
    set_: SetOption = None,
) -> None:
    """Train a captioner on the labelled clips of a run: RUN/captioner/model."""
    from minisora.training.captioning import train_captioner

    train_captioner(load_config(str(run / "config.yaml"), set_), run, console, share)


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
