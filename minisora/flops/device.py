"""Where a pass runs: building models there, and saying so in every file that carries a count or a time."""

import contextlib
import math
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


@contextlib.contextmanager
def built_on(device: str, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Modules and tensors made inside are on that device, in that number format."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def describe_device(device: str, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Kind, name, number format and torch version, as JSON; on a CPU the threads too.

    Args:
        device: "meta", "cpu" or "cuda".
        dtype: that the passes computed in.
    """
    kind = torch.device(device).type
    facts: dict[str, Any] = {"type": kind, "name": None, "dtype": str(dtype).removeprefix("torch.")}
    if kind == "cuda":
        facts |= {"name": torch.cuda.get_device_name(torch.device(device)), "cuda": torch.version.cuda}
    elif kind == "cpu":
        facts |= {"name": _cpu_name(), "threads": torch.get_num_threads()}
    return {**facts, "torch": torch.__version__}


def device_words(facts: dict[str, Any]) -> str:
    """What `describe_device` tells of a machine, in words."""
    threads = facts.get("threads")
    parts = [
        facts["name"] or facts["type"],
        f"{threads} thread" + ("s" if threads != 1 else "") if threads else "",
    ]
    return ", ".join(part for part in (*parts, f"torch {facts['torch']}") if part)


def peak_memory_mib() -> float:
    """The most memory that this process has held so far, MiB; NaN where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return math.nan
    # macOS tells bytes, Linux KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _cpu_name() -> str:
    """The processor's own name where the system tells it (Linux), else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
