"""Model folders: reading one, the ones that are shipped with minisora, and making a small one to pass on."""

import hashlib
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
from safetensors import SafetensorError

from minisora.errors import UserError
from minisora.files import SUMS, changed_file, checksum, read_json, replace_folder, write_json, write_whole
from minisora.memory import is_out_of_memory
from minisora.pipelines.pipeline import CLASS_NAME, CODE_FILE, MiniSoraPipeline
from minisora.pipelines.shipped_models import find_model, shipped
from minisora.screen import plain

_PARTS = ("vae", "dit", "text_encoder", "scheduler")
_OWN_FILES = ("model_index.json", "README.md", CODE_FILE)
# Files of `minisora evaluate`.
_SCORES = ("evaluate", "modes", "sizes", "steps")
_MIB = 2**20
# What diffusers and torch raise where a file of a model is damaged, or says of a size that it is a word.
UNREADABLE = (
    OSError,
    SafetensorError,
    ValueError,
    RuntimeError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
)


def load_pipeline(folder: str | Path, device: str | torch.device | None = None) -> MiniSoraPipeline:
    """Read a model folder in float32, on a GPU if there is one.

    Args:
        folder: as `minisora train` writes, or the name of a shipped model, "toy".
        device: where the weights go; the GPU, else the CPU, by default.

    Raises:
        UserError: the folder is not a whole minisora model; the message names what is missing.
    """
    folder = find_model(folder)
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        hint = (
            f"; did you mean {folder / 'model'}?" if (folder / "model" / "model_index.json").is_file() else ""
        )
        known = f"; shipped models: {', '.join(shipped())}" if shipped() else ""
        raise UserError(f"{folder} is not a model folder: it has no model_index.json{hint or known}")
    try:
        index = read_json(index_file)
    except ValueError as error:
        raise UserError(f"{index_file} is damaged: it is not JSON; copy the model folder again") from error
    kind = index.get("_class_name") if isinstance(index, dict) else type(index).__name__
    # The name alone: written before there was CODE_FILE.
    if kind not in (CLASS_NAME, MiniSoraPipeline.__name__) or not isinstance(index, dict):
        raise UserError(f"{folder} holds a {kind}, not a {MiniSoraPipeline.__name__}")
    for name in _PARTS:
        if index.get(name) in (None, [None, None]):
            continue
        config = "scheduler_config.json" if name == "scheduler" else "config.json"
        if not (folder / name / config).is_file():
            raise UserError(
                f"model folder {folder} is incomplete: {name}/{config} is missing; copy or export it again"
            )
        if name != "scheduler" and not list((folder / name).glob("*.safetensors*")):
            raise UserError(
                f"model folder {folder} is incomplete: {name} has no .safetensors weights; copy or export it again"
            )
    if (changed := changed_file(folder)) is not None:
        raise UserError(
            f"model folder {folder} is damaged ({changed}); copy or export it again, or run its training command "
            "again, which writes it anew from the last checkpoint"
        )
    # A model this small is there before a bar could be read.
    diffusers_logging.disable_progress_bar()
    try:
        pipeline = MiniSoraPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except UNREADABLE as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"model folder {folder} cannot be read ({first_line(error)}); copy or export it again"
        ) from error
    _check_numbers(pipeline, folder)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _cast(pipeline, torch.float32)
    return pipeline.to(where)


def _check_numbers(pipeline: MiniSoraPipeline, folder: Path) -> None:
    """Raise UserError unless what model_index.json says of size, rate and sampling are numbers above 0."""
    config = pipeline.config
    size = config.default_size
    if not isinstance(size, list) or len(size) != 3:
        raise UserError(f"model folder {folder}: default_size = {size!r} must be frames, height and width")
    for name, value in (*(("default_size", each) for each in size), ("default_steps", config.default_steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(
                f"model folder {folder}: {name} has {value!r}, which must be a whole number above 0"
            )
    for name in ("fps", "sigma_shift", "default_guidance"):
        value = config[name]
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0 or (value == 0 and name != "default_guidance"):
            raise UserError(f"model folder {folder}: {name} = {value!r} must be a number above 0")


def first_line(error: Exception) -> str:
    """What an error says first, or its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")


def weights_digest(folder: str | Path) -> str:
    """SHA-256 over the names and bytes of all weights of a model, 64 hex digits: what it is, wherever it lies.

    Args:
        folder: as of `load_pipeline`.

    Raises:
        OSError: it cannot be read.
    """
    place = find_model(folder)
    files = sorted(place.rglob("*.safetensors"))
    lines = [f"{checksum(file)}  {file.relative_to(place).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def export_model(model: Path, out: Path, scores: Sequence[Path] = (), made_by: str = "") -> float:
    """Write a model in half precision with a model card, to pass on; returns its size in MiB.

    Args:
        model: a model folder.
        out: the new folder, put in place whole; an earlier export in it is replaced.
        scores: files of `minisora evaluate` on this model: evaluate.json, modes.json, sizes.json, steps.json.
        made_by: the command that trained it, for the card.

    Raises:
        UserError: the model or a file of scores cannot be read, or `out` holds other things or cannot be written.
    """
    target = out.resolve()
    _check_export(find_model(model).resolve(), out, target)
    tables = {file.stem: _read_scores(file) for file in scores}
    pipeline = load_pipeline(model, device="cpu")
    _cast(pipeline, torch.float16)
    size = 0.0

    def write(folder: Path) -> None:
        nonlocal size
        pipeline.save_pretrained(folder, safe_serialization=True)
        for file in folder.rglob("*.json"):
            _forget_origin(file)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / _MIB
        write_whole(folder / "README.md", _card(pipeline, target.name, size, made_by, tables))

    try:
        replace_folder(target, write)
    except UndefinedError as error:
        named = ", ".join(map(str, scores))
        raise UserError(
            f"the scores {named} are not of minisora evaluate ({error}): make them again"
        ) from error
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {out}: {reason}; free space or choose another --out") from error
    return size


def _check_export(model: Path, out: Path, target: Path) -> None:
    """Refuse to replace anything but an earlier export; `model` and `target` are resolved, `out` is as typed."""
    if model.is_relative_to(target):
        raise UserError(f"--out {out} holds the model itself, which would be lost: choose another folder")
    if target.is_relative_to(model):
        raise UserError(f"--out {out} lies in the model folder {model}: choose another folder")
    if Path.cwd().is_relative_to(target):
        raise UserError(
            f"--out {out} is where you are: name a folder for the export, such as {out / 'small'}"
        )
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{out} is a file: choose a folder for the model")
    held = sorted(item.name for item in target.iterdir())
    # A trained model has no card.
    if held and not {"model_index.json", "README.md"} <= set(held):
        first = next((name for name in held if name != SUMS), SUMS)
        raise UserError(f"{out} holds '{first}' and is no earlier export: choose an empty folder")
    foreign = [name for name in held if name not in (*_OWN_FILES, SUMS, *_PARTS)]
    if foreign:
        raise UserError(f"{out} also holds '{foreign[0]}', which would be lost: choose an empty folder")


def _read_scores(file: Path) -> dict[str, Any]:
    try:
        scores = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} holds no scores: {error}") from error
    if not isinstance(scores, dict) or file.stem not in _SCORES:
        known = ", ".join(f"{name}.json" for name in _SCORES)
        raise UserError(f"{file} holds no scores that the card shows: give {known} of minisora evaluate")
    return scores


def _card(
    pipeline: MiniSoraPipeline, name: str, mib: float, made_by: str, scores: dict[str, dict[str, Any]]
) -> str:
    """The model card, Markdown."""
    parts = {
        part: sum(p.numel() for p in module.parameters()) / 1e6
        for part, module in pipeline.components.items()
        if isinstance(module, torch.nn.Module)
    }
    return (
        _environment()
        .get_template("model_card.md")
        .render(
            name=name,
            pipeline=pipeline.config,
            parts=parts,
            made_by=made_by,
            mib=mib,
            **{each: scores.get(each) for each in _SCORES},
        )
    )


def _forget_origin(file: Path) -> None:
    """Take the folder that a component was read from out of its config: it means nothing elsewhere."""
    config = read_json(file)
    if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
        write_json(file, config)


def _cast(pipeline: MiniSoraPipeline, dtype: torch.dtype) -> None:
    """Every module in `dtype`, by torch's own `to`: that of diffusers warns of a precaution it has no reason for."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            torch.nn.Module.to(part, dtype)


def _as_text(text: str) -> str:
    """A text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>#|~&$])", r"\\\1", plain(text))


def _as_code(text: str) -> str:
    """A code span, between more backticks than stand in it anywhere."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{plain(text)}{pad}{fence}"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("minisora.pipelines", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Markdown is escaped by the filters below.
        autoescape=False,
    )
    environment.filters |= {
        "text": _as_text,
        "code": _as_code,
        "argument": lambda word: shlex.quote(plain(word)),
    }
    environment.filters["rate"] = lambda r: f"{r['right']}/{r['total']} = {100 * r['share']:.1f} %"
    return environment
