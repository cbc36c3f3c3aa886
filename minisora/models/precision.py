"""Which number format a device trains fastest in. Decided by what the device is, never by a stopwatch: two
processes, or a run and its resumption, must agree."""

from contextlib import AbstractContextManager
from typing import Any

import torch

# Of a CPU's model: narrower products lose in casts what they gain.
_MIN_WIDTH = 64


def choose_precision(wanted: str, device: torch.device, width: int) -> tuple[str, str]:
    """The precision to train in, and why, for people to read.

    bfloat16 on a GPU that has it, and on a CPU with AMX tiles or AVX-512 dot products where the model is wide
    enough. Other CPUs stay in float32: without such units a bfloat16 product can be a hundred times slower.

    Args:
        wanted: "auto", "fp32" or "bf16".
        device: where training runs.
        width: channels of the model.

    Returns:
        "fp32" or "bf16", and the reason.
    """
    if wanted != "auto":
        return wanted, "as configured"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU has bfloat16 units"
        return "fp32", "this GPU has no bfloat16 units"
    if device.type != "cpu":
        return "fp32", "no bfloat16 units"
    tiles = torch.cpu._is_amx_tile_supported()
    if not (tiles or torch.cpu._is_avx512_bf16_supported()):
        return "fp32", "no bfloat16 units"
    units = "bfloat16 tiles" if tiles else "bfloat16 dot products"
    if width < _MIN_WIDTH:
        return "fp32", f"width {width} is too narrow for this CPU's {units} to pay"
    return "bf16", f"this CPU has {units}"


def convolve_as_products() -> None:
    """Let CUDA's float32 convolutions be as exact as its products: by default torch rounds those alone to TF32."""
    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = torch.get_float32_matmul_precision() != "highest"


def sampling_context(device: torch.device, width: int, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Where float32 weights sample: under autocast to what this device trains them in. Others as they are."""
    chosen = choose_precision("auto", device, width)[0] if dtype == torch.float32 else "fp32"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=chosen == "bf16")
