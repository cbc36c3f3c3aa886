"""Step times, the machine's own matmul peak, and model FLOPs utilisation.

MFU = model FLOPs / (seconds x peak). It is given against two peaks: the datasheet's, where the card is
listed, and that of a large matrix product measured on this machine in the same number format. Against the
second it cannot honestly pass 100 %: if it does, the count or the clock is wrong, and this module says so.

Units: FLOPs (1 MAC = 2 FLOPs), seconds, bytes.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import psutil
import torch

from minisora.errors import UserError
from minisora.flops.peaks import datasheet_peak


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs after warm-up, and the memory at their peak.

    `memory_bytes` is what torch allocated at most (CUDA) or the process's resident size afterwards (CPU).
    """

    median: float
    minimum: float
    maximum: float
    runs: int
    memory_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Utilisation:
    """How much of a peak a pass reached; FLOP/s, and fractions of 1 (None where there is no peak)."""

    flops: int
    seconds: float
    datasheet_peak: float | None
    measured_peak: float

    @property
    def achieved(self) -> float:
        """FLOP/s."""
        return self.flops / self.seconds

    @property
    def mfu_datasheet(self) -> float | None:
        """Against the datasheet."""
        return None if self.datasheet_peak is None else self.achieved / self.datasheet_peak

    @property
    def mfu_measured(self) -> float:
        """Against this machine's own matrix product."""
        return self.achieved / self.measured_peak

    def warning(self) -> str | None:
        """What is wrong if a utilisation passes 100 %, else None."""
        reached = {"datasheet": self.mfu_datasheet, "measured": self.mfu_measured}
        over = [f"{kind} peak" for kind, mfu in reached.items() if mfu is not None and mfu > 1]
        if not over:
            return None
        return (
            f"MFU passes 100 % of the {' and the '.join(over)} ({self.achieved:.3e} FLOP/s): the FLOP count "
            "or the clock is wrong, or the peak was taken in another number format or on a busier machine"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with the warning if there is one."""
        derived = {
            "achieved_flops_per_second": self.achieved,
            "mfu_datasheet": self.mfu_datasheet,
            "mfu_measured": self.mfu_measured,
        }
        warning = self.warning()
        return {**asdict(self), **derived, **({"warning": warning} if warning else {})}


def measure(fn: Callable[[], Any], device: torch.device | str, *, warmup: int = 2, runs: int = 5) -> Timing:
    """Time `fn()`: `warmup` runs thrown away, then `runs` runs, each timed by itself.

    CUDA work is timed by events on the device's stream; on a CPU by the wall clock.

    Args:
        fn: one step; what it returns is dropped.
        device: where its work happens.
        warmup: runs before timing (kernels are chosen, memory is allocated, clocks rise).
        runs: timed runs, at least one.
    """
    device = torch.device(device)
    if device.type == "meta":
        raise UserError("a pass on meta tensors takes no time: time it on 'cpu' or 'cuda'")
    for _ in range(warmup):
        fn()
    if device.type == "cuda":
        seconds, memory = _cuda_seconds(fn, device, runs)
    else:
        seconds, memory = _cpu_seconds(fn, runs)
    return Timing(statistics.median(seconds), min(seconds), max(seconds), runs, memory)


def _cuda_seconds(fn: Callable[[], Any], device: torch.device, runs: int) -> tuple[list[float], int]:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    events = []
    with torch.cuda.device(device):
        for _ in range(runs):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            fn()
            end.record()
            events.append((start, end))
    torch.cuda.synchronize(device)
    seconds = [start.elapsed_time(end) / 1e3 for start, end in events]  # events count milliseconds
    return seconds, torch.cuda.max_memory_allocated(device)


def _cpu_seconds(fn: Callable[[], Any], runs: int) -> tuple[list[float], int]:
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        fn()
        seconds.append(time.perf_counter() - start)
    return seconds, psutil.Process().memory_info().rss


@lru_cache(maxsize=16)
def measure_matmul_peak(device: str, dtype: torch.dtype, budget: float = 2.0) -> float:
    """The best FLOP/s that matrix products of this machine reach in this number format.

    Square products of growing size and the two long shapes of an MLP, the fastest run of each: a peak is a
    maximum, not a median. Remembered for the process.

    Args:
        device: "cpu" or "cuda".
        dtype: of the operands.
        budget: seconds for all of it, about.
    """
    sizes = (4096, 8192, 16384) if torch.device(device).type == "cuda" else (256, 512, 1024, 2048)
    shapes = [(n, n, n) for n in sizes] + [
        (sizes[-1], sizes[-2], sizes[-1]),
        (4 * sizes[0], sizes[0], 4 * sizes[0]),
    ]
    best, started = 0.0, time.perf_counter()
    for m, k, n in shapes:
        if best and time.perf_counter() - started > budget:
            break
        a, b = torch.randn(m, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype)
        out = torch.empty(m, n, device=device, dtype=dtype)

        def product(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out) -> None:
            torch.mm(a, b, out=out)

        flops = 2 * m * k * n
        first = measure(product, device, warmup=1, runs=1).minimum
        runs = max(3, min(50, int(budget / len(shapes) / max(first, 1e-7))))
        if first * 3 > budget:  # a format that this device is bad at: one run tells enough
            best = max(best, flops / first)
            break
        best = max(best, flops / measure(product, device, warmup=2, runs=runs).minimum)
    return best


def utilisation(flops: int, seconds: float, device: torch.device | str, dtype: torch.dtype) -> Utilisation:
    """MFU of a pass of that many FLOPs in that many seconds, against both peaks.

    `flops` are model FLOPs: without recomputation (`StepCount.model_flops`).
    """
    device = torch.device(device)
    peak = measure_matmul_peak(str(device), dtype)
    return Utilisation(int(flops), seconds, known_peak(device, dtype), peak)


def known_peak(device: torch.device | str, dtype: torch.dtype) -> float | None:
    """Dense datasheet peak in FLOP/s of this device in this format; None for a CPU or a card not listed."""
    device = torch.device(device)
    if device.type != "cuda":
        return None
    name = str(dtype).removeprefix("torch.")
    if name == "float32" and torch.get_float32_matmul_precision() != "highest":
        name = "tf32"
    return datasheet_peak(torch.cuda.get_device_name(device), name)
