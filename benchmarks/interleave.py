"""Interleaved timing, A B A B in one process: what the machine does beside it falls on every contender alike."""

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from minisora.files import write_json
from minisora.flops.device import describe_device
from minisora.flops.measured_peak import measure_peak

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Work:
    """What is timed: a call, and the FLOPs of the model in it (without recomputation)."""

    run: Callable[[], Any]
    flops: int


def precisions() -> list[str]:
    """float32, and bfloat16 where this CPU computes in it (elsewhere it would be emulated)."""
    has_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return ["fp32", "bf16"] if has_units else ["fp32"]


def autocast(precision: str) -> AbstractContextManager[Any]:
    return nullcontext() if precision == "fp32" else torch.autocast("cpu", dtype=DTYPES[precision])


def interleave(works: Mapping[str, Work], rounds: int, warmup: int) -> dict[str, list[float]]:
    """Seconds of every run: `warmup` rounds thrown away, then `rounds`, each of one run of each contender."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    gc.collect()
    for turn in range(warmup + rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work.run()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def compare(what: str, works: Mapping[str, Work], precision: str, rounds: int, warmup: int) -> list[dict]:
    """Rows of one comparison; the first contender is the one that ratios are taken to.

    "times_ours" is a contender's median time over the first's, and its range that of the rounds, each
    contender against the first in the same round.
    """
    seconds = interleave(works, rounds, warmup)
    peak = measure_peak("cpu", DTYPES[precision]).flops_per_second
    ours = next(iter(seconds.values()))
    rows = []
    for name, times in seconds.items():
        median = statistics.median(times)
        paired = [theirs / first for theirs, first in zip(times, ours, strict=True)]
        rows.append(
            {
                "what": what,
                "precision": precision,
                "model": name,
                "median_s": median,
                "min_s": min(times),
                "max_s": max(times),
                "rounds": rounds,
                "per_s": 1 / median,
                "flops": works[name].flops,
                "flops_per_s": works[name].flops / median,
                "share_of_peak": works[name].flops / median / peak,
                "times_ours": median / statistics.median(ours),
                "times_ours_range": [min(paired), max(paired)],
            }
        )
    return rows


def show(title: str, rows: list[dict], peaks: Mapping[str, float]) -> None:
    """The rows as a table on the screen."""
    table = Table(title=title, title_justify="left")
    for column in ("", "format", "model"):
        table.add_column(column)
    for column in (
        "median ms",
        "min - max",
        "per s",
        "GFLOPs",
        "GFLOP/s",
        "of peak",
        "time / ours",
        "rounds",
    ):
        table.add_column(column, justify="right")
    before = None
    for row in rows:
        key = (row["what"], row["precision"])
        if before is not None and key != before:
            table.add_section()
        low, high = row["times_ours_range"]
        table.add_row(
            *(key if key != before else ("", "")),
            row["model"],
            f"{1e3 * row['median_s']:,.1f}",
            f"{1e3 * row['min_s']:,.1f} - {1e3 * row['max_s']:,.1f}",
            f"{row['per_s']:.2f}",
            f"{row['flops'] / 1e9:,.2f}",
            f"{row['flops_per_s'] / 1e9:,.1f}",
            f"{row['share_of_peak']:.1%}",
            f"{row['times_ours']:.2f} ({low:.2f} - {high:.2f})",
            str(row["rounds"]),
        )
        before = key
    reached = ", ".join(f"{name} {peak / 1e9:,.1f} GFLOP/s" for name, peak in peaks.items())
    table.caption = f"peak measured in this run: {reached}. 1 MAC = 2 FLOPs, recomputation not counted"
    Console(width=150).print(table)


def measured_peaks(names: list[str]) -> dict[str, float]:
    """The best FLOP/s of every way to multiply on this machine in each format."""
    return {name: measure_peak("cpu", DTYPES[name]).flops_per_second for name in names}


def facts() -> dict[str, Any]:
    """Machine, date, versions, threads, and how busy the machine was: 1-minute load before the run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**describe_device("cpu"), "cores": os.cpu_count()},
        "load_at_start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("minisora", "torch", "diffusers")},
    }


def write(path: Path, result: Mapping[str, Any]) -> None:
    """The result as JSON, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
