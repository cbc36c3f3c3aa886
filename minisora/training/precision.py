"""Which number format a device trains fastest in, found by timing where it is not known."""

import statistics
import time

import torch


def choose_precision(wanted: str, device: torch.device, width: int) -> tuple[str, str]:
    """The precision to train in, and why, for people to read.

    bfloat16 on a GPU that has it. On a CPU it depends on units that not all have (without them a bfloat16
    product is some hundred times slower), so "auto" times the model's own kind of matrix product.

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
    if device.type != "cpu":
        return "fp32", f"bfloat16 is not tried on {device.type}"
    slowdown = _time_linear(width, torch.bfloat16) / _time_linear(width, torch.float32)
    # Casts, norms and the optimizer stay in float32, so a small gain in products is none for the whole step.
    if slowdown < 0.5:
        return "bf16", f"bfloat16 products of width {width} take {slowdown:.2f} of float32's time here"
    return "fp32", f"bfloat16 products of width {width} take {slowdown:.1f} times float32's time here"


def _time_linear(width: int, dtype: torch.dtype) -> float:
    """Median seconds of one autocast linear layer, forward and backward, casts included."""
    layer = torch.nn.Linear(width, 4 * width)
    x = torch.randn(512, width, requires_grad=True)
    times = []
    for attempt in range(6):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            y = layer(x)
        y.sum().backward()
        if attempt:  # the first one sets things up
            times.append(time.perf_counter() - start)
    return statistics.median(times)
