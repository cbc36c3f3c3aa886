"""A calibration drawn, achieved FLOP/s against size, and how a plot becomes a file."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from minisora.errors import UserError
from minisora.files import write_whole
from minisora.flops.calibration import PASS_KINDS, Calibration

SUFFIXES = (".png", ".svg")


def plot_roofline(calibration: Calibration, path: Path) -> None:
    """Achieved FLOP/s against FLOPs of a call, forward and train, under the peaks; PNG or SVG by suffix."""
    # A figure of its own, not pyplot's: files only, no display is needed or touched.
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind, marker in zip(PASS_KINDS, "os", strict=True):
        uses = [calibration.use(point, kind) for point in calibration.points]
        known = [use for use in uses if use is not None]
        label = "forward" if kind == "forward" else "forward and backward"
        axes.plot([u.flops for u in known], [u.achieved for u in known], marker, alpha=0.7, label=label)
    axes.axhline(calibration.measured_peak, color="black", lw=1, label="measured peak")
    if calibration.datasheet_peak is not None:
        axes.axhline(calibration.datasheet_peak, color="black", lw=1, ls="--", label="datasheet peak, dense")
    axes.set(xscale="log", yscale="log", xlabel="FLOPs of a call", ylabel="FLOP/s")
    axes.set_title(calibration.machine, fontsize=10, parse_math=False)
    axes.legend(fontsize=8)
    save_plot(figure, path)


def save_plot(figure: Figure, path: Path) -> None:
    """Write a figure, whole.

    Raises:
        UserError: the suffix is another, or the file cannot be written.
    """
    try:
        if path.suffix not in SUFFIXES:
            raise UserError(f"a plot is {' or '.join(SUFFIXES)}, not '{path.name}': choose another name")
        drawn = io.BytesIO()
        figure.savefig(drawn, format=path.suffix[1:], dpi=150)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, drawn.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
