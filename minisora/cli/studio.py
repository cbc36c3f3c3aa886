"""The command that serves a workshop in the browser: studio."""

from pathlib import Path
from typing import Annotated

import typer

from minisora.cli.options import check_folder, console
from minisora.screen import say


def studio(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="A model folder, or a shipped one by its name (repeatable). Default: toy."
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data", "-d", help="Folder of clips to train on, or a folder of such folders (repeatable)."
        ),
    ] = None,
    runs: Annotated[
        Path, typer.Option("--runs", help="Folder of the runs: those shown, and those that are begun.")
    ] = Path("runs"),
    home: Annotated[Path, typer.Option(help="Folder of the videos and the queue.")] = Path("studio"),
    host: Annotated[
        str | None,
        typer.Option(
            help="Let other machines in at this address of this one, such as 192.168.0.7; who reads along on the "
            "network could use the token. Default: this machine alone."
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8420,
) -> None:
    """A workshop in the browser: make videos and edit them, train models, play worlds. Ctrl-C ends it; its queue stays.

    The address that is printed holds a token, which is needed to open it.
    """
    from minisora.serve.loopback import need_server

    need_server("minisora studio")
    from minisora.studio.run_studio import run_studio

    check_folder(home)
    check_folder(runs)
    run_studio(
        model or ["toy"],
        home,
        host,
        port,
        announce=lambda address: say(console, "open ", (address, "bold"), " (Ctrl-C ends it)"),
        data=data or (),
        runs=runs,
    )
