"""Models of runs that were trained or taken up in the studio: kept by name, offered at every later start."""

from collections.abc import Collection
from itertools import count
from pathlib import Path

from minisora.errors import UserError
from minisora.files import read_json, write_json
from minisora.screen import plain
from minisora.studio.folders import Folders

_KEPT = "models.json"


def own_models(home: Path, taken: Collection[str] = ()) -> dict[str, Path]:
    """Folders of those that are still there, by the name that people see.

    Args:
        home: of the studio.
        taken: names of other models: one of the same name is kept under another from here on.
    """
    folders = Folders.of(home) if (home / "folders.json").is_file() else None
    found: dict[str, Path] = {}
    kept: dict[str, str] = {}
    for name, run in _kept(home).items():
        name = _free(name, {*taken, *kept, *(_kept(home).keys() - {name})})
        kept[name] = run
        model = folders.run(run) / "model" if folders is not None else None
        if model is not None and _is_model(model):
            found[name] = model
    if kept != _kept(home):
        write_json(home / _KEPT, kept)
    return found


def own_names(home: Path) -> dict[str, str]:
    """Names of the models that were kept, by run."""
    return {run: name for name, run in _kept(home).items()}


def keep_model(home: Path, run: str, taken: Collection[str]) -> tuple[str, Path]:
    """Keep the model of a run; its name and its folder.

    Args:
        home: of the studio.
        run: name of the run.
        taken: names of models.

    Raises:
        UserError: the run has no model.
    """
    model = Folders.of(home).run(run) / "model"
    if not _is_model(model):
        raise UserError(f"{run} has no model yet: train it to its end")
    kept = _kept(home)
    name = next((name for name, of_run in kept.items() if of_run == run), None)
    if name is None:
        # Of letters: what a page shows and a database keeps.
        name = _free(plain(run), {*taken, *kept})
        write_json(home / _KEPT, {**kept, name: run})
    return name, model


def _free(name: str, taken: Collection[str]) -> str:
    """A name that no other has: with a number behind it where one has it."""
    return next(
        free for number in count(1) if (free := name if number == 1 else f"{name} {number}") not in taken
    )


def _kept(home: Path) -> dict[str, str]:
    """Names of runs by names of models; what is damaged was never more than a convenience."""
    try:
        kept = read_json(home / _KEPT)
    except (OSError, ValueError):
        return {}
    pairs = kept.items() if isinstance(kept, dict) else ()
    return {plain(name): run for name, run in pairs if isinstance(run, str)}


def _is_model(folder: Path) -> bool:
    return (folder / "model_index.json").is_file()
