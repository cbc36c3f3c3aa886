"""Model folders: reading one, the ones that are shipped with minisora, and making a small one to pass on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from jinja2 import Environment, PackageLoader, StrictUndefined

from minisora.errors import UserError
from minisora.files import write_json, write_whole
from minisora.pipelines.pipeline import MiniSoraPipeline

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"  # of shipped models, a folder each
_MIB = 2**20


def load_pipeline(folder: str | Path, device: str | torch.device | None = None) -> MiniSoraPipeline:
    """Read a model folder in float32, on a GPU if there is one.

    Args:
        folder: as `minisora train` writes, or the name of a shipped model, "toy".
        device: where to; the GPU, else the CPU, by default.

    Raises:
        UserError: the folder is not a whole minisora model; the message names what is missing.
    """
    folder = _find(folder)
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        hint = (
            f"; did you mean {folder / 'model'}?" if (folder / "model" / "model_index.json").is_file() else ""
        )
        known = f"; shipped models: {', '.join(shipped())}" if shipped() else ""
        raise UserError(f"{folder} is not a model folder: it has no model_index.json{hint or known}")
    try:
        index = json.loads(index_file.read_text())
    except ValueError as error:
        raise UserError(f"{index_file} is damaged: it is not JSON; copy the model folder again") from error
    if index.get("_class_name") != MiniSoraPipeline.__name__:
        raise UserError(f"{folder} holds a {index.get('_class_name')}, not a {MiniSoraPipeline.__name__}")
    for name in ("vae", "dit", "text_encoder", "scheduler"):
        if index.get(name, [None])[0] is None:
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
    diffusers_logging.disable_progress_bar()  # a model this small is there before a bar could be read
    try:
        pipeline = MiniSoraPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"model folder {folder} cannot be read ({first}); copy or export it again") from error
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _cast(pipeline, torch.float32)
    return pipeline.to(where)


def shipped() -> list[str]:
    """Names of the models that came with minisora."""
    return sorted(index.parent.name for index in WEIGHTS.glob("*/model_index.json"))


def _find(folder: str | Path) -> Path:
    """A folder, or else the shipped model of that name."""
    given = Path(folder)
    return WEIGHTS / given if not given.exists() and str(given) in shipped() else given


def export_model(model: Path, out: Path, scores: Sequence[Path] = (), made_by: str = "") -> float:
    """Write a model in half precision with a model card, to pass on; returns its size in MiB.

    Args:
        model: a model folder.
        out: the new folder; files of an earlier export are replaced.
        scores: files of `minisora evaluate` on this model: evaluate.json, modes.json, sizes.json, steps.json.
        made_by: the command that trained it, for the card.

    Raises:
        UserError: the model or a file of scores cannot be read, or `out` not be written.
    """
    pipeline = load_pipeline(model, device="cpu")
    found: dict[str, Any] = {}
    for file in scores:
        try:
            found[file.stem] = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{file} holds no scores: {error}") from error
    try:
        out.mkdir(parents=True, exist_ok=True)
        _cast(pipeline, torch.float16)
        pipeline.save_pretrained(out, safe_serialization=True)
        for file in out.rglob("*.json"):
            _forget_origin(file)
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / _MIB
        card = (
            _environment()
            .get_template("model_card.md")
            .render(
                name=out.name,
                pipeline=pipeline.config,
                parts={
                    name: sum(p.numel() for p in part.parameters()) / 1e6
                    for name, part in pipeline.components.items()
                    if isinstance(part, torch.nn.Module)
                },
                made_by=made_by,
                mib=size,
                **{name: found.get(name) for name in ("evaluate", "modes", "sizes", "steps")},
            )
        )
        write_whole(out / "README.md", card)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; choose another --out") from error
    return size


def _forget_origin(file: Path) -> None:
    """Take the folder that a component was read from out of its config: it means nothing elsewhere."""
    config = json.loads(file.read_text())
    if config.pop("_name_or_path", None) is not None:
        write_json(file, config)


def _cast(pipeline: MiniSoraPipeline, dtype: torch.dtype) -> None:
    """Every module in `dtype`, by torch's own `to`: that of diffusers warns of a precaution it has no reason for."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            torch.nn.Module.to(part, dtype)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("minisora.pipelines", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown
    )
    environment.filters["rate"] = lambda r: f"{r['right']}/{r['total']} = {100 * r['share']:.1f} %"
    return environment
