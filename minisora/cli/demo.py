"""Commands that show what was learned: demo, page."""

from pathlib import Path
from typing import Annotated

import typer

from minisora.cli.options import (
    ConfigOption,
    MinutesOption,
    OutOption,
    SetOption,
    check_folder,
    console,
    load_config,
)
from minisora.screen import say

_OWN = "toy"
# Minutes of a demo, unless its steps are asked for.
LONGEST = 10.0


def demo(
    out: OutOption = Path("runs/demo"),
    config: ConfigOption = _OWN,
    minutes: MinutesOption = None,
    limit: Annotated[
        bool,
        typer.Option(
            "--limit/--no-limit",
            help=f"Of the config {_OWN}: fewer steps, half at least, where all take longer than {LONGEST:g} minutes.",
        ),
    ] = True,
    set_: SetOption = None,
) -> None:
    """Watch a miniature Sora learn: data, VAE, DiT, samples, FLOPs, and one page that shows it all."""
    from minisora.demo.run_demo import run_demo

    check_folder(out)
    # What was asked for by name or number is taken, however long.
    numbers = ("train_vae.steps=", "train_dit.steps=")
    own = config == _OWN and not any(each.startswith(numbers) for each in set_ or [])
    longest = LONGEST if limit and own and minutes is None else None
    page = run_demo(load_config(config, set_), out, console, minutes, longest)
    say(console, "Open ", (str(page), "bold"))


def page(
    run: Annotated[Path, typer.Argument(help="A run folder, such as runs/mine: what --out of train was.")],
) -> None:
    """Make RUN/index.html anew: samples, copies of held-out clips, curves, the plan and the evaluation of a run."""
    from minisora.demo.run_page import write_page

    check_folder(run)
    say(console, "Open ", (str(write_page(run, console=console)), "bold"))
