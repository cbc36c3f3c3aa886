"""Which number format a device trains fastest in. Decided by what the device is, never by a stopwatch: two
processes, or a run and its resumption, must agree."""

import torch

_CPU_MIN_WIDTH = 512  # narrower products lose in casts what they gain in the tile units


def choose_precision(wanted: str, device: torch.device, width: int) -> tuple[str, str]:
    """The precision to train in, and why, for people to read.

    bfloat16 on a GPU that has it, and on a CPU with AMX tiles for wide models. Other CPUs stay in float32:
    without such units a bfloat16 product can be a hundred times slower.

    Args:
        wanted: "auto", "fp32" or "bf16".
        device: where training runs.
        width: of the model.

    Returns:
        "fp32" or "bf16", and the reason.
    """
    if wanted != "auto":
        return wanted, "as configured"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU has bfloat16 units"
        return "fp32", "this GPU has no bfloat16 units"
    if device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        if width >= _CPU_MIN_WIDTH:
            return "bf16", "this CPU has bfloat16 tiles"
        return "fp32", f"width {width} is too narrow for this CPU's bfloat16 tiles to pay"
    return "fp32", "no bfloat16 tiles"
