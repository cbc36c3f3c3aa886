"""The command of the compute report."""

from pathlib import Path
from typing import Annotated

import typer

from minisora.cli.options import check_folder, console
from minisora.errors import UserError
from minisora.screen import say


def report(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the page, JSON, CSV and figures.")
    ] = Path("report"),
    preset: Annotated[
        str, typer.Option(help="as_published, corrected, measured, modern, modern_distilled, or a YAML file.")
    ] = "measured",
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            help="File of minisora calibrate: measured costs for computed ones; further ones stand beside the "
            "first. By default the newest found here, in runs/ or shipped; none: no calibration."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of a toy run: its VAE's compression, and steps.json of evaluate."),
    ] = None,
    law: Annotated[
        Path | None,
        typer.Option(help="law.json of minisora scale fit: is the report's size the best for its budget?"),
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
    from minisora.report.compose import build_report, print_report, write_report

    check_folder(out)
    used, *beside = _calibrations(calibration)
    built = build_report(
        preset,
        overrides=set_,
        calibration=used,
        beside=[path for path in beside if path is not None],
        run=run,
        law=law,
        include_unverified=not verified_only,
    )
    page = write_report(built, out)
    print_report(built, console)
    say(console, f"wrote {page}")


def _calibrations(given: list[str] | None) -> list[Path | None]:
    """The calibration that is used, or None, and those that stand beside it."""
    if given:
        if "none" not in given:
            return [Path(each) for each in given]
        if len(given) > 1:
            raise UserError("--calibration none leaves out what the others name: give one or the other")
        return [None]
    from minisora.flops.machines import find_calibration

    found = find_calibration()
    for line in found.passed_over:
        say(console, line, style="yellow")
    say(console, found.words(), style="dim")
    return [None if found.calibration is None else found.calibration.path]
