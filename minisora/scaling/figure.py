"""The figures of a ladder, all from its folder of results and its law.

 figure.png       Sora's own: the same prompt and noise at growing compute, the loss and the law beneath
/compute.mp4      these videos side by side
/isoflop.png      loss against size at each budget, with L(N, D) and the minima of the parabolas
/repetition.png   loss against how often the data were seen
/rates.png        loss against the learning rates' factor, a line per size
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

# No display is needed or touched.
matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from minisora.data.video.read_video import probe, read_video
from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.files import whole
from minisora.report.ladder_law import LadderLaw
from minisora.scaling.ladder import LadderConfig
from minisora.scaling.law import Law
from minisora.scaling.results import RunRow

# Of each video, in the figure.
_FRAMES = 6
_DPI = 150


def write_figures(
    ladder: LadderConfig, rows: Sequence[RunRow], law: LadderLaw, samples: Path, out: Path
) -> list[Path]:
    """Write every figure that the rows allow; returns the files.

    Args:
        ladder: whose `shown` budgets are compared.
        rows: of results.jsonl.
        law: of law.json.
        samples: folder of the runs' videos.
        out: folder of the figures.

    Raises:
        UserError: a shown budget has no run, or a video is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = [_compute(ladder, rows, law, samples, out)]
    files += [_side_by_side(_shown(ladder, rows), samples, out)]
    files.append(_draw(out / "isoflop.png", lambda axes: _isoflop(axes, rows, law)))
    if any(row["axis"] == "repetition" for row in rows):
        files.append(_draw(out / "repetition.png", lambda axes: _repetition(axes, rows)))
    if any(row["axis"] == "rate" for row in rows):
        files.append(_draw(out / "rates.png", lambda axes: _rates(axes, rows)))
    return files


def _shown(ladder: LadderConfig, rows: Sequence[RunRow]) -> list[RunRow]:
    """The run with the least loss at each shown budget."""
    best = []
    for times in ladder.shown:
        here = [row for row in rows if row["axis"] == "isoflop" and row["times"] == times]
        if not here:
            raise UserError(f"no run of {times:g} times the base is finished: run 'minisora scale run' on")
        best.append(min(here, key=lambda row: row["loss"]))
    return best


def _compute(ladder: LadderConfig, rows: Sequence[RunRow], law: LadderLaw, samples: Path, out: Path) -> Path:
    shown = _shown(ladder, rows)
    figure = plt.figure(figsize=(8, 1.5 * len(shown) + 3.6), layout="constrained")
    above, beneath = figure.subfigures(2, 1, height_ratios=[1.5 * len(shown), 3.6])
    grid = above.subplots(len(shown), _FRAMES, squeeze=False)
    above.suptitle(f'"{ladder.shown_prompt}", the same noise', fontsize=10, parse_math=False)
    for line, row in zip(grid, shown, strict=True):
        video = _video(samples, row)
        picked = np.linspace(0, video.shape[1] - 1, _FRAMES).round().astype(int)
        for axes, frame in zip(line, picked, strict=True):
            axes.imshow(((video[:, frame].movedim(0, -1) + 1) / 2).clamp(0, 1).numpy())
            axes.set(xticks=[], yticks=[])
        share = row["right"]["all_right"] / row["prompts"]
        line[0].set_ylabel(f"{row['times']:g}x\n{row['flops']:.1e}\n{share:.0%} right", fontsize=8)
    axes = beneath.subplots()
    runs = [row for row in rows if row["axis"] == "isoflop"]
    flops = np.array([row["flops"] for row in runs])
    axes.scatter(flops, [row["loss"] for row in runs], s=12, color="0.6", label="runs")
    axes.scatter(
        [r["flops"] for r in shown], [r["loss"] for r in shown], s=40, color="C3", label="shown above"
    )
    constants = law.budget_law.constants
    x = np.geomspace(flops.min(), flops.max() * 3, 100)
    fitted = Law("", constants, 0.0)
    low, high = law.budget_law.intervals["alpha"]
    label = f"L = {constants['E']:.3f} + A C^-{constants['alpha']:.3f} (90 %: {low:.3f} to {high:.3f})"
    if not law.budget_law.determined:
        label = "L = E + A C^-alpha, alpha not determined by these runs"
    axes.plot(x, fitted.loss(x), color="C0", label=label)
    axes.set(xscale="log", xlabel="training FLOPs of the DiT, counted", ylabel="validation loss")
    # Two decades would fill with numbers.
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=8)
    return _save(figure, out / "figure.png")


def _side_by_side(shown: Sequence[RunRow], samples: Path, out: Path) -> Path:
    videos = [_video(samples, row) for row in shown]
    file = out / "compute.mp4"
    write_video(file, torch.cat(videos, dim=3), probe(samples / f"{shown[0]['name']}.mp4").fps)
    return file


def _isoflop(axes: Axes, rows: Sequence[RunRow], law: LadderLaw) -> None:
    runs = [row for row in rows if row["axis"] == "isoflop"]
    loss_law = Law("", law.loss_law.constants, 0.0)
    # FLOPs a clip, by size.
    work = {row["params"]: row["flops_per_step"] / row["batch"] for row in runs}
    sizes = sorted(work)
    for place, times in enumerate(sorted({row["times"] for row in runs})):
        here = [row for row in runs if row["times"] == times]
        params, flops, color = [row["params"] for row in here], here[0]["flops"], f"C{place}"
        axes.scatter(params, [row["loss"] for row in here], s=18, color=color, label=f"{flops:.1e} FLOPs")
        x = np.geomspace(max(min(params) / 1.2, sizes[0]), min(max(params) * 1.2, sizes[-1]), 60)
        clips = flops / np.interp(x, sizes, [work[size] for size in sizes])
        axes.plot(x, loss_law.loss_of(x, clips * law.tokens_per_clip), color=color, linewidth=0.8)
    for optimum in law.optima:
        if optimum.inside:
            axes.plot(optimum.params, optimum.loss, "k*", markersize=8)
    axes.set(
        xscale="log",
        xlabel="parameters of the DiT",
        ylabel="validation loss",
        title="equal compute: runs, L(N, D), minima of parabolas",
    )
    axes.legend(fontsize=8)


def _repetition(axes: Axes, rows: Sequence[RunRow]) -> None:
    repeated = sorted((row for row in rows if row["axis"] == "repetition"), key=lambda row: row["epochs"])
    same = repeated[0]
    fresh = [
        r for r in rows if r["axis"] == "isoflop" and (r["dial"], r["times"]) == (same["dial"], same["times"])
    ]
    # Seeds of one point are averaged.
    points = ([fresh] if fresh else []) + [[row] for row in repeated]
    losses = [float(np.mean([row["loss"] for row in alike])) for alike in points]
    axes.plot([alike[0]["epochs"] for alike in points], losses, "o-")
    for alike, loss in zip(points, losses, strict=True):
        right = sum(row["right"]["all_right"] for row in alike) / sum(row["prompts"] for row in alike)
        text = f"{loss:.3f}\n{alike[0]['clips']:,} clips\n{right:.0%} right"
        at = (alike[0]["epochs"], loss)
        axes.annotate(text, at, textcoords="offset points", xytext=(0, 6), fontsize=7, ha="center")
    axes.margins(x=0.1, y=0.25)
    axes.set(xscale="log", xlabel="times that every clip was seen", ylabel="validation loss")
    axes.set_title(f"{same['flops']:.1e} FLOPs on less data, more often")


def _rates(axes: Axes, rows: Sequence[RunRow]) -> None:
    swept = [row for row in rows if row["axis"] == "rate"]
    for dial in sorted({row["dial"] for row in swept}):
        here = [row for row in swept if row["dial"] == dial]
        plain = [
            r for r in rows if r["axis"] == "isoflop" and (r["dial"], r["times"]) == (dial, here[0]["times"])
        ]
        base = plain[0]["lr"] if plain else here[0]["lr"]
        line = sorted((row["lr"] / base, row["loss"]) for row in here + plain[:1])
        axes.plot(
            [x for x, _ in line], [y for _, y in line], "o-", label=f"dial {dial}, width {here[0]['width']}"
        )
    axes.set(xscale="log", xlabel="learning rates, times the rule's", ylabel="validation loss")
    axes.set_title("does one rule fit all sizes?")
    factors = sorted({float(tick) for line in axes.lines for tick in np.asarray(line.get_xdata())})
    axes.set_xticks(factors, [f"{factor:g}" for factor in factors])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=8)


def _video(samples: Path, row: RunRow) -> torch.Tensor:
    file = samples / f"{row['name']}.mp4"
    if not file.is_file():
        raise UserError(f"no video of run {row['name']} in {samples}: it is written when the run ends")
    info = probe(file)
    return read_video(
        file, frames=info.frames_at(info.fps), height=info.height, width=info.width, fps=info.fps
    )


def _draw(file: Path, draw: Callable[[Axes], None]) -> Path:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    draw(axes)
    return _save(figure, file)


def _save(figure: Figure, file: Path) -> Path:
    with whole(file) as partial:
        figure.savefig(partial, format="png", dpi=_DPI, metadata={"Software": None})
    plt.close(figure)
    return file
