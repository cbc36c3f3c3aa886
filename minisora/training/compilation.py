"""torch.compile for training: the repeated layer alone, once for all its copies.

Compiling a whole model unrolls its layers and takes minutes, again for every size of clip; one block takes seconds
and gives most of the gain, the fusion of what lies between matrix products ("regional compilation" in torch's
recipes). A step of the modes' DiT, forward and backward in bfloat16 on two cores with AMX tiles, takes 0.74 to 0.81 of
its time; the first step of each size some 20 s more.
"""

import contextlib
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from minisora.errors import UserError

_MAX_SHAPES = 64  # one graph each; past torch's own 8, further sizes would go on uncompiled


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


@contextlib.contextmanager
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
