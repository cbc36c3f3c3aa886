"""Commands of the scaling ladder: run, fit, figure."""

from pathlib import Path
from typing import Annotated

import typer

from minisora.cli.options import check_folder, console, refuse_beside
from minisora.screen import say

LadderOption = Annotated[
    str, typer.Option("--ladder", "-l", help="A ladder file, or a shipped one: smoke, cpu, h100.")
]
# The shard that is the whole ladder.
_ALL = "1/1"
ResultsOption = Annotated[Path, typer.Option("--out", "-o", help="Folder of the ladder's results.")]


def scale_run(
    ladder: LadderOption = "smoke",
    out: ResultsOption = Path("runs/ladder"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print every run's size, steps, counted FLOPs and time.")
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            min=1, max=1024, help="Runs side by side on this machine, each with its share of the threads."
        ),
    ] = 1,
    shard: Annotated[
        str, typer.Option(help="i/n: every n-th run from the i-th, for independent jobs.")
    ] = _ALL,
    one_of_jobs: Annotated[
        bool, typer.Option("--one-of-jobs", hidden=True, help="How --jobs starts its processes.")
    ] = False,
) -> None:
    """Train the ladder's runs that are not finished; the same command again goes on where it stopped.

    Ends with status 1 while runs are missing: each failure is in OUT/failures.jsonl.
    """
    from minisora.scaling.ladder import plan, read_ladder
    from minisora.scaling.ladder import shard as share
    from minisora.scaling.results import read_rows
    from minisora.scaling.run_ladder import plan_table, run_in_jobs, run_ladder

    check_folder(out)
    if jobs > 1:
        refuse_beside(f"--jobs {jobs}", {f"--shard {shard}": shard != _ALL})
    settings, results = read_ladder(ladder), out / "results.jsonl"
    if one_of_jobs:
        run_ladder(settings, out, console, largest_first=True)
        # Others may be at runs that are missing.
        return
    mine = share(plan(settings), shard)
    if shard == _ALL or dry_run:
        console.print(plan_table(settings, read_rows(results)))
    if dry_run:
        if shard != _ALL:
            names = ", ".join(run.name for run in mine) or "none: there are fewer runs than shards"
            say(console, f"shard {shard}, {len(mine)} runs: {names}")
        return
    if jobs > 1:
        run_in_jobs(settings, ladder, out, console, jobs)
    else:
        run_ladder(settings, out, console, shard)
    done = {row["name"] for row in read_rows(results)}
    missing = [run.name for run in mine if run.name not in done]
    if missing:
        failures = out / "failures.jsonl"
        why = f"see {failures}, or" if failures.is_file() else "they were stopped:"
        say(
            console,
            f"{len(missing)} runs are missing ({', '.join(missing)}): {why} run this again",
            style="red",
        )
        raise typer.Exit(1)
    say(console, f"{len(done)} runs in {results}; next: minisora scale fit --out {out}")


def scale_fit(out: ResultsOption = Path("runs/ladder")) -> None:
    """Fit loss against compute, size and data: OUT/law.json, with intervals and the held-out budget's error."""
    from minisora.scaling.fit_laws import fit_file, fit_tables
    from minisora.scaling.ladder import tokens_per_clip
    from minisora.scaling.results import LadderFile

    tokens = tokens_per_clip(LadderFile.read(out).config)
    law = fit_file(out / "results.jsonl", tokens, out / "law.json")
    console.print(fit_tables(law))
    say(console, f"wrote {out / 'law.json'}; next: minisora report --law {out / 'law.json'}")


def scale_figure(out: ResultsOption = Path("runs/ladder")) -> None:
    """Draw the figures of a ladder from its results: the same prompt at growing compute, and the law beneath."""
    from minisora.scaling.figure import write_figures
    from minisora.scaling.fit_laws import fit_file
    from minisora.scaling.ladder import tokens_per_clip
    from minisora.scaling.results import LadderFile, read_rows

    ladder, results = LadderFile.read(out), out / "results.jsonl"
    law = fit_file(results, tokens_per_clip(ladder.config), out / "law.json")
    for file in write_figures(ladder.ladder, read_rows(results), law, out / "samples", out):
        say(console, f"wrote {file}")
