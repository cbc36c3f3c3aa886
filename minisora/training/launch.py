"""How a run meets its hardware: one device or many processes (`accelerate launch`), compiled or not.

Compiling a whole model unrolls its layers and takes minutes, again for every size of clip; one block takes seconds
and gives most of the gain, the fusion of what lies between matrix products ("regional compilation" in torch's
recipes). So the repeated layer is compiled alone, once for all its copies.
"""

import atexit
import os
import shutil
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, set_seed
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from minisora.errors import UserError
from minisora.models.precision import convolve_as_products

# One graph each; past torch's own 8, further sizes would go on uncompiled.
_MAX_SHAPES = 64


def process_device() -> torch.device:
    """This process's device: its GPU, or the CPU (also of several processes on a machine without a GPU)."""
    # Others wait while one renders, encodes or samples, which takes longer than the 10 minutes that NCCL allows.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=1)).device


def main_process_first() -> AbstractContextManager[None]:
    """Within it the main process is alone; then come the others, which find what it wrote."""
    process_device()
    return PartialState().main_process_first()


def make_accelerator(
    *, precision: str, accumulation: int, trackers: Sequence[str], out: Path, seed: int
) -> Accelerator:
    """The accelerate handle of one training stage.

    Args:
        precision: "fp32" or "bf16".
        accumulation: micro-batches a step.
        trackers: names of accelerate trackers, such as "tensorboard".
        out: where trackers write.
        seed: of torch, numpy and random; samples draw from their own position instead.

    Raises:
        UserError: a tracker's package is not installed.
    """
    for tracker in trackers:
        if tracker not in {logger.value for logger in get_available_trackers()}:
            raise UserError(
                f"tracker '{tracker}' is not installed: pip install {tracker}, or set trackers=[]"
            )
    atexit.unregister(_leave_processes)
    convolve_as_products()
    device = process_device()
    # The stage before may have trained in another precision.
    AcceleratorState._reset_state()
    PartialState._shared_state["distributed_type"] = _launched_as()
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if precision == "bf16" else "no",
        gradient_accumulation_steps=accumulation,
        log_with=list(trackers) or None,
        project_dir=out,
        step_scheduler_with_optimizer=False,
    )
    _shard_on_cpu(accelerator)
    if trackers:
        accelerator.init_trackers("minisora", config={"stage": out.name})
    set_seed(seed)
    return accelerator


def end_stage(accelerator: Accelerator) -> None:
    """Finish the trackers of a stage; the processes part when the program ends, not before its next stage.

    A program that fails within a stage leaves the group to the launcher: to part might wait for the others.
    """
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:
        tracker.finish()
    atexit.unregister(_leave_processes)
    atexit.register(_leave_processes)


def _leave_processes() -> None:
    PartialState().destroy_process_group()


@cache
def _launched_as() -> DistributedType:
    """What kind of processes these are, asked before accelerate writes FSDP over it, which a second stage needs."""
    return PartialState().distributed_type


def _shard_on_cpu(accelerator: Accelerator) -> None:
    """Let FSDP2 run on CPU processes too.

    accelerate (1.15) shards on GPUs only, though torch does it anywhere. Being able to try a sharded run on a
    machine without a GPU is worth setting the two fields it would set there.
    """
    wanted = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if wanted and accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        accelerator.state.distributed_type = DistributedType.FSDP


def device_name(device: torch.device) -> str:
    """What to call a device on screen."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' * (threads != 1)}" if device.type == "cpu" else device.type


def missing_compiler(device: torch.device) -> str | None:
    """What torch.compile lacks here to make graphs for a device; None where nothing is missing."""
    if device.type != "cpu":
        return None
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "no C++ compiler here"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return "Python's headers are not installed here (python3-dev)"
    return None


def compile_blocks(model: nn.Module, block: str, device: torch.device) -> str:
    """Compile every layer of class `block` in place, for static shapes.

    Args:
        model: in training; the names of its weights stay.
        block: class of the repeated layer.
        device: where it trains.

    Returns:
        What was done, or why nothing was, for people to read.
    """
    missing = missing_compiler(device)
    if missing is not None:
        return f"not compiled: {missing}"
    layers = [module for module in model.modules() if type(module).__name__ == block]
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MAX_SHAPES)
    for layer in layers:
        layer.compile(dynamic=False)
    return f"{len(layers)} {block}s compiled, some seconds for each size of clip"


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Say what to do where a graph of stage `name` cannot be made.

    Raises:
        UserError: torch's compiler or the C++ compiler failed.
    """
    try:
        yield
    except TorchDynamoException as error:
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"compiling failed ({reason}): delete {cache_dir()}, where a killed run may have left half a file, or "
            f"set train_{name}.compile=false"
        ) from error
