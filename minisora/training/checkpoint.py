"""Checkpoints: everything a run needs to go on with the same losses, written atomically, read without pickle.

    CHECKPOINTS/step-00000250/model.safetensors       weights
                             /ema.safetensors         their moving average
                             /optimizer.safetensors   "NAME/exp_avg", ... by parameter name
                             /state.json              step, config, precision; written last

Data order, noise and crops are functions of (seed, step), so the step is also the state of every random
choice. A folder is written under another name and renamed when it is whole: a crash or a full disk leaves
the checkpoint before it as it was.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from minisora.errors import UserError

FORMAT = 1
_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
_LOAD = StateDictOptions(full_state_dict=True, broadcast_from_rank0=False, strict=False)
_STATE, _MODEL, _EMA, _OPTIMIZER = (
    "state.json",
    "model.safetensors",
    "ema.safetensors",
    "optimizer.safetensors",
)

# Settings that may change between a checkpoint and its resumption: they move no weight, or (steps) extend the run.
_FREE = {
    ("sample",),
    *(
        (stage, key)
        for stage in ("train_vae", "train_dit", "train_caption")
        for key in (
            "steps",
            "workers",
            "compile",
            "log_every",
            "validate_every",
            "sample_every",
            "save_every",
            "keep_checkpoints",
            "trackers",
        )
    ),
}

# Settings that older checkpoints do not name, and what they were then.
_BEFORE: dict[str, dict[str, Any]] = {"text": {"tokenizer_version": 1}}

# Sections that a stage does not look at; what it is given by others is in its inputs.
_OF_OTHERS = {"vae": {"dit", "text", "flow", "train_dit", "train_caption"}, "dit": {"train_caption"}}


@dataclass(frozen=True)
class TrainState:
    """What a checkpoint says beside its tensors."""

    step: int  # optimizer steps done
    config: dict[str, Any]
    precision: str
    stage: str
    inputs: str  # fingerprint of what the stage was given: data, and for the DiT the VAE


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a folder, oldest first."""
    found = [
        p for p in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", p.name) and (p / _STATE).is_file()
    ]
    return sorted(found)


def save(
    folder: Path,
    state: TrainState,
    accelerator: Accelerator,
    model: nn.Module,
    ema: EMAModel,
    optimizer: torch.optim.Optimizer,
    keep: int,
) -> Path:
    """Write a checkpoint and drop all but the newest `keep`. Every process calls it; the main one writes.

    Raises:
        UserError: the disk is full or not writable; the older checkpoints are untouched.
    """
    raw = full_weights(model)
    average = full_weights(model, ema)
    optimizer_state: Any = get_optimizer_state_dict(model, optimizer, options=_FULL).get(
        "state", {}
    )  # {} off rank 0
    place = folder / f"step-{state.step:08d}"
    if accelerator.is_main_process:
        slots = {
            f"{name}/{slot}": torch.as_tensor(value)
            for name, values in optimizer_state.items()
            for slot, value in values.items()
        }
        partial = folder / f".{place.name}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name, tensors in ((_MODEL, raw), (_EMA, average), (_OPTIMIZER, slots)):
                save_file({k: v.contiguous().clone() for k, v in tensors.items()}, partial / name)
            about = {"format": FORMAT, "step": state.step, "stage": state.stage, "precision": state.precision}
            about |= {"inputs": state.inputs, "config": state.config}
            (partial / _STATE).write_text(json.dumps(about, indent=1))
            shutil.rmtree(place, ignore_errors=True)
            partial.replace(place)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            kept = checkpoints(folder)
            last = f"; the last good checkpoint is {kept[-1]}" if kept else ""
            raise UserError(
                f"cannot write checkpoint {place}: {_reason(error)}; free space or use --out{last}"
            ) from error
        for old in checkpoints(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()
    return place


def local_parameters(model: nn.Module) -> list[Tensor]:
    """This process's part of every trainable parameter, sharing its memory; the whole where nothing is sharded.

    They say `requires_grad`, since diffusers' EMAModel copies what does not instead of averaging it.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        (p._local_tensor if isinstance(p, DTensor) else p).detach().requires_grad_()  # no autograd, no copy
        for p in trained
    ]


def full_weights(model: nn.Module, ema: EMAModel | None = None) -> dict[str, Tensor]:
    """Trainable weights by name, gathered from all processes; the moving average if one is given."""
    parameters = local_parameters(model)
    if ema is not None:
        ema.store(parameters)
        ema.copy_to(parameters)
    try:
        weights = get_model_state_dict(model, options=_FULL)
        return {name: v.detach().clone() for name, v in weights.items() if isinstance(v, Tensor)}
    finally:
        if ema is not None:
            ema.restore(parameters)


def read_state(place: Path) -> TrainState:
    """What a checkpoint says.

    Raises:
        UserError: it is not whole, or of another format.
    """
    try:
        about = json.loads((place / _STATE).read_text())
        if about["format"] != FORMAT:
            raise UserError(f"checkpoint {place} has format {about['format']}; this version reads {FORMAT}")
        return TrainState(about["step"], about["config"], about["precision"], about["stage"], about["inputs"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"checkpoint {place} is incomplete ({_reason(error)}): delete that folder and resume"
        ) from error


def load(place: Path, model: nn.Module, ema: EMAModel, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's weights, average and optimizer state in place.

    Raises:
        UserError: a file is missing, damaged or of another model.
    """
    try:
        raw: dict[str, Any] = load_file(place / _MODEL)
        average: dict[str, Any] = load_file(place / _EMA)
        slots = load_file(place / _OPTIMIZER)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"checkpoint {place} is damaged ({_reason(error)}): delete that folder and resume"
        ) from error
    expected = {name for name, p in _named_parameters(model) if p.requires_grad}
    if expected - raw.keys() or expected - average.keys():
        missing = sorted(expected - (raw.keys() & average.keys()))[0]
        raise UserError(
            f"checkpoint {place} is of another model: it lacks '{missing}'; use its own config or another --out"
        )
    set_model_state_dict(model, average, options=_LOAD)
    ema.shadow_params = [p.detach().clone() for p in local_parameters(model)]
    set_model_state_dict(model, raw, options=_LOAD)
    state: dict[str, Any] = {}
    for key, value in slots.items():
        name, slot = key.rsplit("/", 1)
        state.setdefault(name, {})[slot] = value
    names = {id(parameter): name for name, parameter in _named_parameters(model)}
    groups = [
        {**group, "params": [names[id(p)] for p in group["params"]]} for group in optimizer.param_groups
    ]
    set_optimizer_state_dict(model, optimizer, {"state": state, "param_groups": groups}, options=_LOAD)


def check_resumable(place: Path, state: TrainState, config: dict[str, Any], inputs: str) -> None:
    """Raise UserError, naming the first setting that differs, unless the checkpoint belongs to this run."""
    known = {
        key: {**_BEFORE[key], **value} if key in _BEFORE else value for key, value in state.config.items()
    }
    then, now = (
        {key: value for key, value in each.items() if key not in _OF_OTHERS.get(state.stage, set())}
        for each in (known, config)
    )
    for key, (before, after) in _differences(then, now).items():
        raise UserError(
            f"checkpoint {place} was trained with {key}={before}, now it is {after}: "
            "use the same setting or another --out"
        )
    if state.inputs != inputs:
        raise UserError(
            f"checkpoint {place} was trained on other data or another VAE than this run has: use another --out"
        )


def _differences(then: Any, now: Any, path: tuple[str, ...] = ()) -> dict[str, tuple[Any, Any]]:
    if path in _FREE or then == now:
        return {}
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return {".".join(path): (then, now)}
    found: dict[str, tuple[Any, Any]] = {}
    for key in {**then, **now}:
        found |= _differences(then.get(key), now.get(key), (*path, key))
    return found


def _named_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Names as in a full state dict: without the prefixes of wrappers (DDP, compile)."""
    return [
        (name.replace("module.", "").replace("_orig_mod.", ""), parameter)
        for name, parameter in model.named_parameters()
    ]


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(str(text).split()) or type(error).__name__
