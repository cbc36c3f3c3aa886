"""Commands of the scaling ladder: run, fit, figure."""

from pathlib import Path
from typing import Annotated

import typer

from minisora.cli.options import console

LadderOption = Annotated[
    str, typer.Option("--ladder", "-l", help="A ladder file, or a shipped one: smoke, cpu, h100.")
]
ResultsOption = Annotated[Path, typer.Option("--out", "-o", help="Folder of the ladder's results.")]


def scale_run(
    ladder: LadderOption = "smoke",
    out: ResultsOption = Path("runs/ladder"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print every run's size, steps, counted FLOPs and time.")
    ] = False,
    shard: Annotated[
        str, typer.Option(help="i/n: every n-th run from the i-th, for independent jobs.")
    ] = "1/1",
) -> None:
    """Train the ladder's runs that are not finished; the same command again goes on where it stopped."""
    from minisora.scaling.execute import plan_table, run_ladder
    from minisora.scaling.ladder import read_ladder
    from minisora.scaling.results import read_rows

    settings = read_ladder(ladder)
    console.print(plan_table(settings, read_rows(out / "results.jsonl")))
    if dry_run:
        return
    rows = run_ladder(settings, out, console, shard)
    console.print(
        f"{len(rows)} runs in {out / 'results.jsonl'}; next: minisora scale fit --ladder {ladder} --out {out}",
        highlight=False,
        soft_wrap=True,
    )


def scale_fit(ladder: LadderOption = "smoke", out: ResultsOption = Path("runs/ladder")) -> None:
    """Fit loss against compute, size and data: OUT/law.json, with intervals and the held-out budget's error."""
    from minisora.scaling.fit import fit_file, fit_tables
    from minisora.scaling.ladder import read_ladder, tokens_per_clip

    found = fit_file(out / "results.jsonl", tokens_per_clip(read_ladder(ladder)), out / "law.json")
    console.print(fit_tables(found))
    console.print(f"wrote {out / 'law.json'}", highlight=False, soft_wrap=True)


def scale_figure(ladder: LadderOption = "smoke", out: ResultsOption = Path("runs/ladder")) -> None:
    """Draw the figures of a ladder from its results: the same prompt at growing compute, and the law beneath."""
    from minisora.scaling.figure import write_figures
    from minisora.scaling.fit import fit_file
    from minisora.scaling.ladder import read_ladder, tokens_per_clip
    from minisora.scaling.results import read_rows

    settings, results = read_ladder(ladder), out / "results.jsonl"
    law = fit_file(results, tokens_per_clip(settings), out / "law.json")
    for file in write_figures(settings, read_rows(results), law, out / "samples", out):
        console.print(f"wrote {file}", highlight=False, soft_wrap=True)
