"""`calibration.json`: a sweep of real passes, the laws fitted to it, and where and when it was taken."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from rich.text import Text

from minisora.files import write_json
from minisora.flops import cost_law, sweep
from minisora.flops.device import describe_device
from minisora.flops.sweep import SweepPoint
from minisora.flops.timing import Utilisation, known_peak, measure_matmul_peak
from minisora.screen import Table

FORMAT = 1  # read by minisora.report.measured_inputs
Kind = Literal["forward", "train"]
KINDS: tuple[Kind, ...] = ("forward", "train")


@dataclass(frozen=True)
class Calibration:
    """Measured points, fitted laws, peaks in FLOP/s."""

    points: list[SweepPoint]
    mac_law: cost_law.Fit
    naive_law: cost_law.Fit
    forward_time_law: cost_law.Fit
    train_time_law: cost_law.Fit | None
    measured_peak: float
    datasheet_peak: float | None
    device: dict[str, Any]
    date: str

    def use(self, point: SweepPoint, kind: Kind = "forward") -> Utilisation | None:
        """MFU at a point, or None if that was not run."""
        timing = point.forward if kind == "forward" else point.train
        flops = point.forward_flops if kind == "forward" else point.model_flops
        if timing is None:
            return None
        return Utilisation(flops, timing.median, self.datasheet_peak, self.measured_peak)

    def warnings(self) -> list[str]:
        """A line for every point whose MFU passes 100 %."""
        found = []
        for point in self.points:
            for kind in KINDS:
                use = self.use(point, kind)
                if use is not None and (warning := use.warning()):
                    found.append(f"{point.width}x{point.depth}, {point.tokens} tokens, {kind}: {warning}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        points = []
        for point in self.points:
            use, train = self.use(point), self.use(point, "train")
            points.append(
                {
                    **point.to_dict(),
                    "forward_mfu_measured": use and use.mfu_measured,
                    "train_mfu_measured": train and train.mfu_measured,
                    "forward_mfu_datasheet": use and use.mfu_datasheet,
                    "train_mfu_datasheet": train and train.mfu_datasheet,
                }
            )
        laws = {
            "forward_macs": self.mac_law.to_dict(),
            "forward_macs_naive": self.naive_law.to_dict(),
            "forward_seconds": self.forward_time_law.to_dict(),
            "train_seconds": self.train_time_law.to_dict() if self.train_time_law else None,
        }
        return {
            "format": FORMAT,
            "date": self.date,
            "minisora": version("minisora"),
            "device": self.device,
            "measured_peak_flops": self.measured_peak,
            "datasheet_peak_flops": self.datasheet_peak,
            "laws": laws,
            "warnings": self.warnings(),
            "points": points,
        }

    def save(self, path: Path) -> None:
        """Write it, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.to_dict())

    def table(self) -> Table:
        """For the screen: the laws, their errors, and the utilisation reached."""
        where = self.device["name"] or self.device["type"]
        title = f"calibration on {where}, {self.device['dtype']}: {len(self.points)} points"
        table = Table("law", "coefficients", "held out: worst", "median", title=title, title_justify="left")
        fits = [self.mac_law, self.naive_law, self.forward_time_law, self.train_time_law]
        for name, fit in zip(
            ("forward MACs", "naive MACs", "forward seconds", "train seconds"), fits, strict=True
        ):
            if fit is not None:
                values = ", ".join(f"{key} {value:.4g}" for key, value in fit.coefficients.items())
                row = (Text.assemble(f"{name}\n", (fit.formula, "dim")), values)
                table.add_row(*row, f"{fit.held_out_error:.2%}", f"{fit.held_out_median:.2%}")
        uses = [(self.use(point, kind), kind) for point in self.points for kind in KINDS]
        best = max((use.mfu_measured, kind) for use, kind in uses if use is not None)
        table.caption = (
            f"measured matmul peak {self.measured_peak / 1e12:,.3f} TFLOP/s; best MFU against it "
            f"{best[0]:.1%} ({best[1]})" + "".join(f"\n{warning}" for warning in self.warnings())
        )
        return table


def calibrate(
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    shapes: list[sweep.Shape] | None = None,
    budget: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Sweep a grid of real passes on this machine and fit the laws.

    Args:
        device: "cpu" (under 5 minutes on two cores) or "cuda" (under 10 on an H100).
        dtype: bfloat16 on CUDA, float32 on a CPU by default.
        shapes: another grid than the device's own.
        budget: seconds of the sweep, about.
        progress: told (done, total).
    """
    # Time laws are fitted to the fastest run of each point: what the work takes, not what neighbours do.
    kind: Literal["cpu", "cuda"] = "cuda" if torch.device(device).type == "cuda" else "cpu"
    dtype = dtype or (torch.bfloat16 if kind == "cuda" else torch.float32)
    budget = budget or (420.0 if kind == "cuda" else 200.0)
    measure_matmul_peak.cache_clear()
    before = measure_matmul_peak(device, dtype)
    shapes = sweep.grid(kind) if shapes is None else shapes
    points = list(sweep.run(shapes, device=device, dtype=dtype, budget=budget, progress=progress))
    measure_matmul_peak.cache_clear()
    peak = max(
        before, measure_matmul_peak(device, dtype)
    )  # a peak is a maximum; neighbours may have been busy
    trained = [point for point in points if point.train is not None]
    ratio = sum(p.model_flops / p.forward_flops for p in trained) / max(len(trained), 1)
    return Calibration(
        points=points,
        mac_law=cost_law.fit_macs(points),
        naive_law=cost_law.fit_naive(points),
        forward_time_law=cost_law.fit_seconds(points, [p.forward.minimum for p in points]),
        train_time_law=cost_law.fit_seconds(trained, [p.train.minimum for p in trained if p.train], ratio)
        if trained
        else None,
        measured_peak=peak,
        datasheet_peak=known_peak(device, dtype),
        device=describe_device(device, dtype),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
