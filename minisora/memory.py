"""How much memory there is for this process, and running out of it told in words.

Sizes are bytes. A job on a cluster is stopped at its control group's limit, a shell's at `ulimit -v`, both long before
the machine's own memory ends.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_GROUPS = Path("/proc/self/cgroup")
_GROUP_ROOT = Path("/sys/fs/cgroup")
# What torch, numpy, oneDNN and CUDA say when there is no memory left, and torch of a worker that the system stopped.
_SIGNS = (
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "killed by signal: Killed",
    "Cannot allocate",
    "could not create a primitive",
    # A thread needs room for its stack.
    "can't start new thread",
)
_ASKED = re.compile(r"allocate (?:a buffer of )?([\d.]+) ?(bytes|KiB|MiB|GiB|TiB)", re.IGNORECASE)


def available_memory(device: "torch.device | None" = None) -> int:
    """What this process may still take, on a GPU or, by default, of main memory.

    The least of what is free, of what is left under the control groups' limits and under `ulimit -v`; processes that
    were launched together on a machine share it evenly.
    """
    if device is not None and device.type == "cuda":
        import torch

        if torch.cuda.is_available():
            unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return torch.cuda.mem_get_info(device)[0] + unused
    import psutil

    together = max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
    free = min([psutil.virtual_memory().available, *_left_in_groups()]) // together
    return max(0, min([free, *_left_in_address_space()]))


def _left_in_address_space() -> list[int]:
    try:
        import resource
    except ImportError:  # Windows
        return []
    import psutil

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return [] if limit == resource.RLIM_INFINITY else [limit - psutil.Process().memory_info().vms]


def _left_in_groups() -> list[int]:
    """Under each limit of the process's control groups, of version 2 or 1; cached files are no use that counts."""
    left = []
    for group, limit, use, idle in _groups():
        try:
            text = (group / limit).read_text().strip()
            if not text.isdecimal() or int(text) >= 1 << 60:  # "max", or version 1's word for it
                continue
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            left.append(int(text) - int((group / use).read_text()) + int(stat.get(idle, 0)))
        except (OSError, ValueError):
            continue
    return left


def _groups() -> list[tuple[Path, str, str, str]]:
    """The folders of the process's control groups, theirs above included, with the names of their files."""
    try:
        lines = [line.split(":", 2) for line in _GROUPS.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, path in lines:
        if controllers == "":
            root, files = _GROUP_ROOT, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = _GROUP_ROOT / "memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        found += [(root.joinpath(*parts[:depth]), *files) for depth in range(len(parts) + 1)]
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: of Python, of the system, of torch on a CPU or a GPU."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def out_of_memory(error: BaseException, remedy: str) -> str:
    """An out-of-memory error in one line: what was asked for, what there is, and what to do."""
    asked = _ASKED.search(str(error))
    amount = ""
    if asked is not None:
        number, unit = float(asked[1]), asked[2].lower()
        power = ("bytes", "kib", "mib", "gib", "tib").index(unit)
        amount = f"{size_text(number * 1024**power)} more asked for, "
    on_gpu = "CUDA" in str(error) or "HIP" in str(error)
    free = "on the GPU" if on_gpu else f"{size_text(available_memory())} free"
    return f"out of memory ({amount}{free}): {remedy}"


def size_text(count: float) -> str:
    """Bytes for people: "1.5 GiB"."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):,.1f} {unit}"
    return f"{count:.0f} bytes"
