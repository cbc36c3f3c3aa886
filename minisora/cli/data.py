"""Commands on data sets: data make, data check."""

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
    load_config,
    write_result,
)
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
    from minisora.data.shapes_world.shapes_dataset import make_shapes

    check_folder(out)
    make_shapes(out, clips, seed, load_config(config, set_).clip)
    say(console, f"wrote {clips} clips to {out}; next: minisora data check {out}")


def data_check(
    folder: Annotated[Path, typer.Argument(help="Folder of videos and images.")],
    config: ConfigOption = "toy",
    set_: SetOption = None,
    json_: JsonOption = None,
    suggest: Annotated[
        bool,
        typer.Option(
            "--suggest", help="Print only a config (YAML) whose clips suit the folder, with reasons."
        ),
    ] = False,
) -> None:
    """The doctor: what is in a folder, what is wrong with it, what a config would keep and drop and why.

    Exit code 1 if nothing usable is left.
    """
    from minisora.data.folder.doctor import check
    from minisora.data.folder.suggest import suggest as suggested

    check_output(json_, (".json",))
    with console.status("checking") as status:
        report = check(
            folder,
            load_config(config, set_, folder),
            lambda done, total: status.update(f"checking {done}/{total}"),
        )
    if suggest:
        for line in suggested(report.scan, report.config).splitlines():
            say(console, line)
    else:
        report.print(console)
    if json_ is not None:
        write_result(json_, report.to_dict())
    if not (report.usable or suggest):
        raise typer.Exit(1)
