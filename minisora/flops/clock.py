"""Seconds that a piece of work takes: warmed up, then timed run by run."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch

from minisora.errors import UserError
from minisora.flops.peaks import Timing


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
    # Events count milliseconds.
    seconds = [start.elapsed_time(end) / 1e3 for start, end in events]
    return seconds, torch.cuda.max_memory_allocated(device)


def _cpu_seconds(fn: Callable[[], Any], runs: int) -> tuple[list[float], int]:
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        fn()
        seconds.append(time.perf_counter() - start)
    return seconds, psutil.Process().memory_info().rss
