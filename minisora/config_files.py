"""Where the shipped YAML files lie, how one is found by name, and how any is read: one line where it is none."""

from pathlib import Path
from typing import Any

import yaml

from minisora.errors import UserError

# What PyYAML raises: also whatever its constructors meet in a value such as 2001-99-99, 0x_ or !!int "".
NOT_YAML = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError)


def config_folder() -> Path:
    """Where the shipped configs lie: inside the package in a wheel, beside it in a checkout.

    Beside an installed package lies whatever other wheels put there, so that place is not looked at then.
    """
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find(path: str | Path) -> Path:
    """A config file by path, or by its name among the shipped ones (`toy`, `toy.yaml`, `dit/xl2`).

    Raises:
        UserError: neither exists; the message lists the shipped names.
    """
    given = Path(path)
    if given.is_file():
        return given
    shipped = config_folder()
    relative = given.relative_to("configs") if given.parts[:1] == ("configs",) else given
    for candidate in (shipped / relative, shipped / f"{relative}.yaml"):
        if candidate.is_file():
            return candidate
    names = sorted(
        str(p.relative_to(shipped)) for p in shipped.rglob("*.yaml") if p.parent.name in (shipped.name, "dit")
    )
    raise UserError(f"config '{path}' not found; shipped configs: {', '.join(names)}")


def of_run(run: Path) -> Path:
    """The config file of a run, as training wrote it.

    Raises:
        UserError: the folder is no run.
    """
    file = run / "config.yaml"
    if not file.is_file():
        raise UserError(f"{run} is not a run folder: it has no config.yaml; pass the --out of minisora train")
    return file


def read_yaml(file: Path, *, shipped: bool = False) -> dict[str, Any]:
    """A YAML file of named values.

    Args:
        file: its path.
        shipped: it is one of ours, so it may go to libyaml, which is three times as fast and trusts how deep it nests.

    Raises:
        UserError: it is not there, not YAML, or not a mapping.
    """
    try:
        fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        loaded = yaml.load(file.read_text(), Loader=fast if shipped else yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    except NOT_YAML as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if loaded is not None and not isinstance(loaded, dict):
        raise UserError(f"{file} must hold sections such as 'dit:', not a {type(loaded).__name__}")
    return loaded or {}
