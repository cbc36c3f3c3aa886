"""How long the passes of a config take here, the machine's own matmul peak, and what share of it they reach.

Units: seconds per call, FLOPs per call (1 MAC = 2 FLOPs; the batch of the row), FLOP/s, bytes.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import psutil
import torch
from torch import Tensor

from minisora.config import Config
from minisora.errors import UserError
from minisora.flops.count_torch import count_forward, count_step
from minisora.flops.device import describe_device
from minisora.flops.passes import Pass, decode_pass, dit_pass, encode_pass
from minisora.flops.peaks import Timing, Utilisation, datasheet_peak
from minisora.models.build import build_dit, build_vae
from minisora.screen import Table


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
        # A format that this device is bad at: one run tells enough.
        if first * 3 > budget:
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


@dataclass(frozen=True)
class TimedRow:
    """One kind of pass: what it counted, how long it took, what share of the peaks that is."""

    name: str
    batch: int
    timing: Timing
    use: Utilisation

    def to_dict(self) -> dict[str, Any]:
        """For JSON, the utilisation's values among the row's own."""
        return {
            "name": self.name,
            "batch": self.batch,
            "seconds": asdict(self.timing),
            **self.use.to_dict(),
        }


@dataclass(frozen=True)
class TimeReport:
    """Every row, and where it was taken."""

    rows: list[TimedRow]
    params: int
    device: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [row.to_dict() for row in self.rows]
        return {"rows": rows, "params": self.params, "device": self.device}

    def warnings(self) -> list[str]:
        """A line for every row whose MFU passes 100 %."""
        warnings = [(row.name, row.use.warning()) for row in self.rows]
        return [f"{name}: {warning}" for name, warning in warnings if warning]

    def table(self) -> Table:
        """A row a pass, with what wants a warning below."""
        where = self.device["name"] or self.device["type"]
        table = Table(title=f"time on {where}, {self.device['dtype']}", title_justify="left")
        names = ("", "batch", "median ms", "min - max", "GFLOPs", "GFLOP/s", "MFU datasheet", "MFU measured")
        for column in (*names, "memory MB"):
            table.add_column(column, justify="left" if not column else "right")
        for row in self.rows:
            t, use = row.timing, row.use
            table.add_row(
                row.name,
                str(row.batch),
                f"{1e3 * t.median:,.1f}",
                f"{1e3 * t.minimum:,.1f} - {1e3 * t.maximum:,.1f}",
                f"{use.flops / 1e9:,.2f}",
                f"{use.achieved / 1e9:,.1f}",
                "-" if use.mfu_datasheet is None else f"{use.mfu_datasheet:.1%}",
                f"{use.mfu_measured:.1%}",
                f"{t.memory_bytes / 1e6:,.0f}",
            )
        peak = self.rows[0].use.measured_peak if self.rows else 0.0
        table.caption = f"measured matmul peak {peak / 1e9:,.1f} GFLOP/s" + "".join(
            f"\n{w}" for w in self.warnings()
        )
        return table


def time_config(
    config: Config,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch: int | None = None,
    runs: int = 5,
) -> TimeReport:
    """Time a config's passes on real tensors: forward, backward, train step, sampling step, VAE.

    The model's weights stay float32; another `dtype` is what autocast computes in, as in training.

    Args:
        config: of the run.
        device: "cpu" or "cuda".
        dtype: float32, bfloat16 or float16.
        batch: of the training rows; the config's own batch by default. The other rows take one clip.
        runs: timed runs of each row, after two warm-up runs.
    """
    batch = batch or config.train_dit.batch_size
    clip = (config.clip.frames, config.clip.height, config.clip.width)
    with torch.device(device):
        vae = build_vae(config).eval()
        dit = build_dit(config, config.text.width)
    latent_size = vae.latent_size(*clip)
    optimizer = torch.optim.AdamW(dit.parameters(), fused=True)
    text_width = config.text.width if config.dit.text_conditioning else None
    wide = dit_pass(config, dit, latent_size, text_width=text_width, batch=batch, device=device)
    guided = 2 if text_width is not None and config.sample.guidance != 1 else 1
    sampling = dit_pass(config, dit, latent_size, text_width=text_width, batch=guided, device=device)
    encode = encode_pass(config, vae, clip, device=device)
    decode = decode_pass(config, vae, latent_size, device=device)

    def train() -> None:
        _loss(wide, device, dtype).backward()
        optimizer.step()
        optimizer.zero_grad()

    def both() -> None:
        _loss(wide, device, dtype).backward()
        optimizer.zero_grad()

    step = count_step(lambda: _loss(wide, device, dtype))
    optimizer.zero_grad()
    plan: list[tuple[str, int, Callable[[], Any], int]] = [
        ("DiT forward", batch, _forward(wide, device, dtype), step.forward_flops),
        ("DiT forward and backward", batch, both, step.model_flops),
        ("DiT train step", batch, train, step.model_flops),
    ]
    for name, what, of in (
        (f"sampling step ({guided} passes)", sampling, 1),
        ("VAE encode", encode, 1),
        ("VAE decode", decode, 1),
    ):
        run = _forward(what, device, dtype)
        plan.append((name, of, run, count_forward(run)))
    rows = []
    for name, of, run, flops in plan:
        timing = measure(run, device, runs=runs)
        rows.append(TimedRow(name, of, timing, utilisation(flops, timing.median, device, dtype)))
    return TimeReport(rows, sum(p.numel() for p in dit.parameters()), describe_device(device, dtype))


def _autocast(device: str, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32)


def _loss(what: Pass, device: str, dtype: torch.dtype) -> Tensor:
    with _autocast(device, dtype):
        return what.loss()


def _forward(what: Pass, device: str, dtype: torch.dtype) -> Callable[[], Any]:
    def run() -> Any:
        with torch.no_grad(), _autocast(device, dtype):
            return what()

    return run
