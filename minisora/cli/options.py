"""What the commands share: options, the console, and how configs come in and results go out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
from rich.console import Console

from minisora.files import write_json

if TYPE_CHECKING:
    from minisora.config import Config

console = Console()

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


def load_config(config: str, overrides: list[str] | None, data: Path | None = None) -> "Config":
    """The config of a command: a file or shipped name, a data folder if given, then --set overrides."""
    from minisora.config import load

    folder = [] if data is None else ["data.source=folder", f"data.path={json.dumps(str(data))}"]
    return load(config, folder + (overrides or []))


class Report(Protocol):
    """What the instrument returns: a rich table, and JSON."""

    def table(self) -> Any:
        """For the screen."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """For a file."""
        ...


def show(report: Report, json_: Path | None) -> None:
    """Print a report's table, and write it as JSON where asked."""
    console.print(report.table())
    if json_ is not None:
        write_result(json_, report.to_dict())


def write_result(path: Path, value: object) -> None:
    """Write JSON, whole, making its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)
