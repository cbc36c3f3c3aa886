"""Checkpoints: everything a run needs to go on with the same losses, written atomically, read without pickle.

    CHECKPOINTS/step-00000250/model.safetensors       weights
                             /ema.safetensors         their moving average
                             /optimizer.safetensors   "NAME/exp_avg", ... by parameter name
                             /state.json              step, config, precision, checksums; written last

Data order, noise and crops are functions of (seed, step), so the step is also the state of every random
choice. A folder is written under another name and renamed when it is whole: a crash or a full disk leaves
the checkpoint before it as it was. Bytes that have changed on the disk since are noticed by their checksum, and the
stage goes on from the checkpoint before. (Checkpoints without checksums, as older versions wrote them, are taken
as they are.)
"""

import hashlib
import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open
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

from minisora.config import AugmentConfig, Config
from minisora.data.folder.scan import content_hash
from minisora.errors import UserError
from minisora.files import checksum, put_in_place, read_json, whole

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
# Of paths the content decides: that of the data is in the inputs, that of a text encoder in text.content.
_FREE = {
    ("sample",),
    ("data", "path"),
    ("text", "path"),
    *(
        (stage, key)
        for stage in ("train_vae", "train_dit", "train_caption", "train_actions", "train_dynamics")
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
    ("train_dit", "patience"),
}

# Settings that older checkpoints do not name, and what they were then.
_BEFORE: dict[str, dict[str, Any]] = {
    "text": {"tokenizer_version": 1},
    "data": {
        "fit": "crop",
        "overlap": 0.0,
        "buckets_by_shape": False,
        # Views were learned to the end.
        "augment": {**AugmentConfig().model_dump(mode="json"), "plain_epochs": 0.0},
    },
    "vae": {"mixes_frames": True},
    "dit": {"dropout": 0.0},
    "world": {
        "idle_share": 0.0,
        "played_share": 0.0,
        "own_share": 0.0,
        "most_weight": 5.0,
        "objective": "clean",
        "streams": 1,
    },
    "train_vae": {
        "moving_weight": 1.0,
        "moving_crops": 0.0,
        "init": None,
        "latent_noise": 0.0,
        "scale_equivariance": 0.0,
    },
    "train_dit": {"keep": "last", "patience": 0},
}

# File of the averaged weights of the best validation.
_BEST = "best.safetensors"

# Of `world`, what only the dynamics look at.
_OF_DYNAMICS = (
    "window",
    "frames",
    "context_sigma",
    "most_context_sigma",
    "moving_weight",
    "code_dropout",
    "idle_share",
    "played_share",
    "own_share",
    "most_weight",
    "objective",
    "streams",
    "steps",
)
# Sections and settings that a stage does not look at; what it is given by others is in its inputs.
_OF_WORLDS: set[tuple[str, ...]] = {("world",), ("train_actions",), ("train_dynamics",)}
_OF_OTHERS: dict[str, set[tuple[str, ...]]] = {
    "vae": {
        *((each,) for each in ("dit", "text", "flow", "train_dit", "train_caption")),
        *(("data", key) for key in ("augment", "buckets", "buckets_by_shape", "packing", "validation_seed")),
        *_OF_WORLDS,
    },
    "dit": {("train_caption",), *_OF_WORLDS},
    "caption": _OF_WORLDS,
    "actions": {
        *((each,) for each in ("vae", "dit", "text", "flow")),
        *((f"train_{each}",) for each in ("vae", "dit", "caption", "dynamics")),
        *(("world", key) for key in _OF_DYNAMICS),
    },
    "dynamics": {("text",), ("train_dit",), ("train_caption",)},
}


@dataclass(frozen=True)
class TrainState:
    """What a checkpoint says beside its tensors."""

    # Optimizer steps done.
    step: int
    config: dict[str, Any]
    precision: str
    stage: str
    # Fingerprint of what the stage was given: data, and for the DiT the VAE.
    inputs: str
    # Of a stage that keeps the best: the least validation loss so far, and how many validations came after it.
    least: float = math.inf
    waited: int = 0


def described(config: Config) -> dict[str, Any]:
    """A config as checkpoints have it: with the content of a pretrained text encoder beside its path."""
    settings = config.model_dump(mode="json")
    if config.text.kind == "pretrained" and config.text.path is not None:
        files = sorted(file for file in config.text.path.rglob("*") if file.is_file())
        facts = [[file.relative_to(config.text.path).as_posix(), content_hash(file)] for file in files]
        settings["text"]["content"] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    return settings


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a folder that were written to the end, oldest first."""
    named = (p for p in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", p.name))
    return sorted(p for p in named if (p / _STATE).is_file())


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is as it was written; None if there is no checkpoint.

    Raises:
        UserError: there are some, but each is damaged.
    """
    written = checkpoints(folder)
    for place in reversed(written):
        if damage(place) is None:
            return place
    if not written:
        return None
    raise UserError(
        f"checkpoint {written[-1]} is damaged ({damage(written[-1])}), and no other is whole: put a copy of it back, "
        f"or delete {folder}, and the same command trains this stage from its start"
    )


def passed_over(folder: Path) -> list[Path]:
    """The damaged checkpoints after the newest that is whole."""
    last = newest(folder)
    return [place for place in checkpoints(folder) if last is not None and place.name > last.name]


def damage(place: Path) -> str | None:
    """What of a checkpoint is not as it was written; None: it is whole."""
    try:
        about = _read_about(place)
        sums = about.get("files", dict.fromkeys((_MODEL, _EMA, _OPTIMIZER)))
        for name, expected in sums.items():
            # None is of an older version: only a file that was cut off is noticed.
            if expected is None:
                with safe_open(str(place / name), framework="pt"):
                    pass
            elif checksum(place / name) != expected:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        return f"{_STATE if isinstance(error, ValueError | KeyError) else 'a file'}: {_reason(error)}"
    return None


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
    # Empty off rank 0.
    optimizer_state: Any = get_optimizer_state_dict(model, optimizer, options=_FULL).get("state", {})
    place = folder / f"step-{state.step:08d}"
    if accelerator.is_main_process:
        slots = {
            f"{name}/{slot}": torch.as_tensor(value)
            for name, values in optimizer_state.items()
            for slot, value in values.items()
        }
        partial = folder / f".{place.name}.partial"
        try:
            # Of a run that was killed.
            for leftover in folder.glob(".step-*.partial"):
                shutil.rmtree(leftover, ignore_errors=True)
            partial.mkdir(parents=True)
            for name, tensors in ((_MODEL, raw), (_EMA, average), (_OPTIMIZER, slots)):
                save_file({k: v.contiguous().clone() for k, v in tensors.items()}, partial / name)
            about = {"format": FORMAT, "step": state.step, "stage": state.stage, "precision": state.precision}
            about |= {"inputs": state.inputs, "config": state.config}
            if math.isfinite(state.least):
                about["best"] = {"loss": state.least, "waited": state.waited}
            about["files"] = {name: checksum(partial / name) for name in (_MODEL, _EMA, _OPTIMIZER)}
            about["checksum"] = _own_checksum(about)
            (partial / _STATE).write_text(json.dumps(about, indent=1))
            shutil.rmtree(place, ignore_errors=True)
            put_in_place(partial, place)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            good = [each for each in checkpoints(folder) if damage(each) is None]
            hint = f"; the last good checkpoint is {good[-1]}" if good else ""
            raise UserError(
                f"cannot write checkpoint {place}: {_reason(error)}; free space or use --out{hint}"
            ) from error
        written = checkpoints(folder)
        last = written.index(place) + 1
        # Those of later steps are damaged: training went on from one before them.
        for old in written[: max(0, last - keep)] + written[last:]:
            shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()
    return place


def local_parameters(model: nn.Module) -> list[Tensor]:
    """This process's part of every trainable parameter, sharing its memory; the whole where nothing is sharded.

    They say `requires_grad`, since diffusers' EMAModel copies what does not instead of averaging it.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    # Neither autograd nor a copy.
    return [(p._local_tensor if isinstance(p, DTensor) else p).detach().requires_grad_() for p in trained]


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
        about = _read_about(place)
        best = about.get("best", {"loss": math.inf, "waited": 0})
        return TrainState(
            about["step"],
            about["config"],
            about["precision"],
            about["stage"],
            about["inputs"],
            best["loss"],
            best["waited"],
        )
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


def resume_point(
    folder: Path, config: dict[str, Any], inputs: str | None = None
) -> tuple[Path, TrainState] | None:
    """The newest whole checkpoint of a folder and what it says; None if there is none.

    Args:
        folder: of the checkpoints of a stage.
        config: the run's, as `described`.
        inputs: fingerprint of what the stage is given; None: whatever it was.

    Raises:
        UserError: the checkpoint is of another run, or cannot be read; the message says how it differs.
    """
    last = newest(folder)
    if last is None:
        return None
    state = read_state(last)
    check_resumable(last, state, config, state.inputs if inputs is None else inputs)
    return last, state


def check_resumable(place: Path, state: TrainState, config: dict[str, Any], inputs: str) -> None:
    """Raise UserError, naming the first setting that differs, unless the checkpoint belongs to this run."""
    then = {key: _filled(value, _BEFORE.get(key, {})) for key, value in state.config.items()}
    free = _FREE | _OF_OTHERS.get(state.stage, set())
    if config.get("data", {}).get("augment", {}).get("views") == 1:
        # There are no views to be learned until then.
        free |= {("data", "augment", "plain_epochs")}
    for key, (before, after) in _differences(then, config, free).items():
        # A checkpoint of an older version does not say it.
        if key == "text.content" and before is None:
            continue
        raise UserError(
            f"checkpoint {place} was trained with {key}={before}, now it is {after}: "
            "use the same setting or another --out"
        )
    if state.inputs != inputs:
        # A VAE's fingerprint comes last, after a hyphen; see `minisora.training.stages`.
        same_data = "-" in inputs and state.inputs.rpartition("-")[0] == inputs.rpartition("-")[0]
        what = "with another VAE than this run has" if same_data else "on other data than this run has"
        raise UserError(
            f"checkpoint {place} was trained {what}: give what it was trained with, or use another --out"
        )


def _filled(section: Any, before: dict[str, Any]) -> Any:
    """A section of a config with what it, and the sections in it, do not name: as it was before that was a setting."""
    if not isinstance(section, dict):
        return section
    inner = {
        key: _filled(value, before[key])
        for key, value in section.items()
        if isinstance(before.get(key), dict)
    }
    return {**before, **section, **inner}


def _differences(
    then: Any, now: Any, free: set[tuple[str, ...]], path: tuple[str, ...] = ()
) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, each by its dotted name, but for those under a path in `free`."""
    if path in free or then == now:
        return {}
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return {".".join(path): (then, now)}
    differing: dict[str, tuple[Any, Any]] = {}
    for key in {**then, **now}:
        differing |= _differences(then.get(key), now.get(key), free, (*path, key))
    return differing


def _read_about(place: Path) -> dict[str, Any]:
    """What state.json holds.

    Raises:
        UserError: it is of another format.
        OSError, ValueError, KeyError: it is not there or damaged.
    """
    about = read_json(place / _STATE)
    if not isinstance(about, dict):
        raise ValueError("no JSON object")
    if about["format"] != FORMAT:
        raise UserError(f"checkpoint {place} has format {about['format']}; this version reads {FORMAT}")
    if about.get("checksum", expected := _own_checksum(about)) != expected:
        raise ValueError("it does not match its checksum")
    return about


def _own_checksum(about: dict[str, Any]) -> str:
    rest = {key: value for key, value in about.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _named_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Names as in a full state dict: without the prefixes of wrappers (DDP, compile)."""
    return [
        (name.replace("module.", "").replace("_orig_mod.", ""), parameter)
        for name, parameter in model.named_parameters()
    ]


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(str(text).split()) or type(error).__name__


def save_best(folder: Path, weights: dict[str, Tensor], validation: dict[str, float]) -> None:
    """Write the averaged weights of the best validation, with its step and values, whole or not at all.

    Raises:
        UserError: the folder cannot be written.
    """
    about = {name: repr(float(value)) for name, value in validation.items()}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with whole(folder / _BEST) as partial:
            save_file({name: value.contiguous() for name, value in weights.items()}, partial, about)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write {folder / _BEST}: {_reason(error)}; free space and run again"
        ) from error


def load_best(folder: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The weights that `save_best` wrote, and its validation with the step.

    Raises:
        UserError: there are none, or they are damaged.
    """
    try:
        with safe_open(folder / _BEST, framework="pt") as opened:
            about = {name: float(value) for name, value in (opened.metadata() or {}).items()}
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}, about
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(
            f"{folder / _BEST} cannot be read ({_reason(error)}): delete it, and it is "
            "written anew at the next validation that is better"
        ) from error


def best_until(folder: Path, step: int) -> dict[str, float]:
    """The best validation, with its step, if that is at most `step`: a later one will be met again."""
    if not (folder / _BEST).is_file():
        return {}
    _, about = load_best(folder)
    return about if about.get("step", math.inf) <= step else {}
