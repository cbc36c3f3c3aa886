"""How long the passes of a config take here, and what share they reach of the most that this machine does.

Units: seconds per call, FLOPs per call (1 MAC = 2 FLOPs; the batch of the row), FLOP/s, bytes.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from minisora.config import Config
from minisora.flops.clock import measure
from minisora.flops.count_torch import count_forward, count_step
from minisora.flops.device import describe_device
from minisora.flops.measured_peak import measure_peak
from minisora.flops.passes import Pass, decode_pass, dit_pass, encode_pass
from minisora.flops.peaks import MeasuredPeak, Timing, Utilisation, datasheet_peak
from minisora.models.build import build_dit, build_text_encoder, build_vae
from minisora.models.precision import convolve_as_products
from minisora.screen import Table


def utilisation(flops: int, seconds: float, device: torch.device | str, dtype: torch.dtype) -> Utilisation:
    """MFU of a pass of that many FLOPs in that many seconds, against both peaks.

    `flops` are model FLOPs: without recomputation (`StepCount.model_flops`).
    """
    device = torch.device(device)
    peak = measure_peak(str(device), dtype)
    return Utilisation(int(flops), seconds, known_peak(device, dtype), peak.flops_per_second)


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
    """Every row, where it was taken, and the peak that was measured there."""

    rows: list[TimedRow]
    params: int
    device: dict[str, Any]
    peak: MeasuredPeak

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [row.to_dict() for row in self.rows]
        peak = {
            "measured_peak_way": self.peak.words,
            "measured_peak_ways": {name: asdict(way) for name, way in self.peak.ways.items()},
        }
        return {"rows": rows, "params": self.params, "device": self.device, **peak}

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
        peak = f"measured peak {self.peak.flops_per_second / 1e9:,.1f} GFLOP/s ({self.peak.words})"
        table.caption = peak + "".join(f"\n{warning}" for warning in self.warnings())
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
    convolve_as_products()
    batch = batch or config.train_dit.batch_size
    clip = (config.clip.frames, config.clip.height, config.clip.width)
    with torch.device(device):
        vae = build_vae(config).eval()
        text_width = build_text_encoder(config, [""]).width if config.dit.text_conditioning else None
        dit = build_dit(config, text_width)
    latent_size = vae.latent_size(*clip)
    optimizer = torch.optim.AdamW(dit.parameters(), fused=True)
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
    params = sum(p.numel() for p in dit.parameters())
    return TimeReport(rows, params, describe_device(device, dtype), measure_peak(device, dtype))


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
