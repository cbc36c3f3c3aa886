"""Plots of the instrument: achieved FLOP/s against size, and attention's share against tokens."""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only: no display is needed, or touched
import matplotlib.pyplot as plt
import numpy as np

from minisora.errors import UserError
from minisora.files import write_whole
from minisora.flops.calibration import Calibration

SUFFIXES = (".png", ".svg")

VIDEO_TOKENS: dict[str, int] = {
    "512x512 image": 1_024,
    "CogVideoX 49 frames": 17_550,
    "Wan 480p": 32_760,
    "Wan 720p": 75_600,
    "Hunyuan 720p": 118_800,
    "report's minute, 512x512": 184_320,
    "a minute of 1080p": 1_458_000,
}
"""Tokens of the clips that the report names (shared/facts/COMPUTE.md, sections 3 and 6)."""


def attention_share(tokens: float, width: int, keys: float | None = None) -> float:
    """Attention's share of a block's MACs: 2 K / (2 K + 12 D) for K keys a token sees (all by default)."""
    seen = tokens if keys is None else keys
    return 2 * seen / (2 * seen + 12 * width)


def plot_roofline(calibration: Calibration, path: Path) -> None:
    """Achieved FLOP/s against FLOPs of a call, forward and train, under the peaks; PNG or SVG by suffix."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for kind, marker in (("forward", "o"), ("train", "s")):
        uses = [calibration.use(p, "forward" if kind == "forward" else "train") for p in calibration.points]
        known = [use for use in uses if use is not None]
        label = "forward" if kind == "forward" else "forward and backward"
        axes.plot([u.flops for u in known], [u.achieved for u in known], marker, alpha=0.7, label=label)
    axes.axhline(calibration.measured_peak, color="black", lw=1, label="measured matmul peak")
    if calibration.datasheet_peak is not None:
        axes.axhline(calibration.datasheet_peak, color="black", lw=1, ls="--", label="datasheet peak, dense")
    axes.set(xscale="log", yscale="log", xlabel="FLOPs of a call", ylabel="FLOP/s")
    where = calibration.device["name"] or calibration.device["type"]
    axes.set_title(f"{where}, {calibration.device['dtype']}", fontsize=10, parse_math=False)
    axes.legend(fontsize=8)
    _save(figure, path)


def plot_attention_share(
    path: Path, widths: tuple[int, ...] = (1152, 5120), marks: Mapping[str, int] = VIDEO_TOKENS
) -> None:
    """Attention's share of a block against tokens, full and factorised, with the report's clips marked.

    Factorised attention is drawn for clips of 32 x 32 tokens a frame, the mean of a spatial and a temporal
    block.
    """
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    tokens = np.logspace(2, 6.5, 200)
    for width, color in zip(widths, ("tab:blue", "tab:orange", "tab:green"), strict=False):
        full = [attention_share(n, width) for n in tokens]
        keys = [(min(n, 1024) + max(n / 1024, 1)) / 2 for n in tokens]
        parts = [attention_share(n, width, k) for n, k in zip(tokens, keys, strict=True)]
        axes.plot(tokens, full, color=color, label=f"full, width {width}")
        axes.plot(tokens, parts, color=color, ls="--", label=f"factorised, width {width}")
    for name, count in marks.items():
        axes.axvline(count, color="gray", lw=0.6)
        axes.text(count, 1.01, name, rotation=35, fontsize=7, ha="left", va="bottom")
    axes.set(xscale="log", xlabel="tokens", ylabel="attention's share of a block's FLOPs", ylim=(0, 1))
    axes.legend(fontsize=8, loc="center left")
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
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
    finally:
        plt.close(figure)
