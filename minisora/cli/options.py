"""What the commands share: options, the console, and how configs come in and results go out."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
from rich.console import Console

from minisora.errors import UserError
from minisora.files import same_file, write_json
from minisora.limits import MAX_GUIDANCE, MAX_MINUTES, MAX_STEPS

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
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Also write the result to this file, NAME.json.")
]
ModelOption = Annotated[
    Path,
    typer.Option("--model", "-m", help="A model folder, such as runs/demo/model, or a shipped one: toy."),
]
StepsOption = Annotated[
    int | None, typer.Option(min=1, max=MAX_STEPS, help="Sampling steps; default from the model.")
]


def finite(value: Any) -> Any:
    """Refuse nan, which no range refuses, and infinity: the callback of every option that takes a fraction."""
    values = value if isinstance(value, tuple) else (value,)
    if not all(number is None or math.isfinite(number) for number in values):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


GuidanceOption = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=MAX_GUIDANCE, callback=finite, help="1 is none; more follows the prompt closer."
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        min=1.0,
        max=MAX_MINUTES,
        callback=finite,
        help="Train the best model that so many minutes buy here, instead of the config's steps.",
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Run folder; an unfinished run there is resumed.")
]


def load_config(config: str, overrides: list[str] | None, data: Path | None = None) -> "Config":
    """The config of a command: a file or shipped name, a data folder if given, then --set overrides."""
    from minisora.config import load

    folder = {} if data is None else {"data.source": "folder", "data.path": data}
    return load(config, overrides or (), folder)


def config_of_run(out: Path, otherwise: str) -> str:
    """The config that a command goes on with where none is named: that of the run begun in a folder.

    Args:
        out: the run's.
        otherwise: name of a shipped one, for a new run.
    """
    begun = out / "config.yaml"
    return str(begun) if begun.is_file() else otherwise


def check_output(path: Path | None, suffixes: tuple[str, ...], inputs: Iterable[Path] = ()) -> None:
    """Refuse a file that cannot be written, or that is an input, before any work is done.

    Args:
        path: of the file; None: none is written.
        suffixes: that it may have; "" is none.
        inputs: files that the command reads.

    Raises:
        UserError: the suffix is another, the path is a folder or an input, or its place cannot be written.
    """
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{path} is a folder: give a file in it, such as {path / f'name{suffixes[0]}'}")
    if path.suffix not in suffixes:
        raise UserError(f"'{path}' must end in {' or '.join(each for each in suffixes if each)}")
    if (clash := same_file(path, inputs)) is not None:
        raise UserError(f"{path} is the input {clash}, which would be lost: choose another name")
    _check_place(path.parent)


def check_folder(path: Path) -> None:
    """Refuse a folder of results that cannot be made, written to or read again, before any work is done.

    Raises:
        UserError: it or a part of its path is a file, may not be written to, or has a name that is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        # Clips may have such names, but safetensors reads no weights there.
        raise UserError(f"{path} is not UTF-8 text: choose another name for the folder") from error
    _check_place(path)


def _check_place(path: Path) -> None:
    """Refuse a folder that cannot be made or written to."""
    place = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not place.is_dir():
        raise UserError(f"{place} is a file, not a folder: choose another place than {path}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"no permission to write in {place}: choose another place or change its mode")


def refuse_beside(option: str, others: dict[str, bool]) -> None:
    """Refuse options that would do nothing beside another one.

    Args:
        option: the one that is given, as typed.
        others: those that do nothing beside it, as typed, and whether each is given too.

    Raises:
        UserError: one is.
    """
    idle = [name for name, given in others.items() if given]
    if idle:
        raise UserError(f"{' and '.join(idle)} would do nothing beside {option}: leave one of them out")


def typed(context: typer.Context) -> dict[str, bool]:
    """Every argument and option of a command, as typed, and whether it was given on the command line."""
    found = {}
    for each in context.command.params:
        source = context.get_parameter_source(each.name) if each.name else None
        name = each.opts[0] if each.param_type_name == "option" else str(each.name).upper()
        # By its name: typer carries a click of its own, beside which another may be installed.
        found[name] = source is not None and source.name == "COMMANDLINE"
    return found


class Printable(Protocol):
    """What the instrument returns: a rich table, and JSON."""

    def table(self) -> Any:
        """For the screen."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """For a file."""
        ...


def show(report: Printable, json_: Path | None) -> None:
    """Print a report's table, and write it as JSON where asked."""
    console.print(report.table())
    if json_ is not None:
        write_result(json_, report.to_dict())


def write_result(path: Path, value: object) -> None:
    """Write JSON, whole, making its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)
