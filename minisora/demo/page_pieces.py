"""Pieces of pages that show videos: templates, videos and pictures inside the page, and learning curves."""

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import jinja2
import torch
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from minisora.report.figures.style import GRID, INK, OURS, SKY, SOFT, log_axis, note, style, svg_text
from minisora.run_metrics import number
from minisora.screen import plain

# Points of a curve: more than a page shows of it.
_POINTS = 400
# Validations up to which they are points with their values, and no curve.
_FEW = 2

# Names of stages, for people.
STAGES = {"vae": "VAE", "dit": "DiT", "caption": "captioner"}


def environment() -> jinja2.Environment:
    """Templates of this folder, in which everything is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": lambda x: f"{x:.0%}", "columns": columns}
    return made


def columns(count: int, wide: int, half: int, slim: int) -> str:
    """Style of a grid of so many parts: at three widths the columns that fill its rows best.

    Args:
        count: of parts.
        wide, half, slim: columns at most, on a desk, a tablet and a telephone.
    """
    widths = {"wide": wide, "half": half, "slim": slim}
    return "; ".join(f"--{name}: {_filling(count, most)}" for name, most in widths.items())


def _filling(count: int, most: int) -> int:
    """Columns, from half of so many up, that leave the last row fullest; the more columns the better."""
    # Of few parts none is larger than of half a row.
    if count <= most:
        return max((most + 1) // 2, count)
    least = max(1, most // 2 + 1)
    return min(range(most, least - 1, -1), key=lambda width: -count % width)


def counts_of(total: float) -> tuple[Callable[[float], str], str]:
    """How a count and its parts are written in one unit, and the letter of the unit: 62.78 and "M" of 62.78e6.

    Args:
        total: the largest of them, which gets four digits; a part that these would make 0 gets two of its own.
    """
    units = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
    size, letter = next((unit for unit in units if total >= unit[0]), units[-1])
    places = max(0, 3 - math.floor(math.log10(total / size))) if total > 0 and size > 1 else 0

    def text(count: float) -> str:
        fixed = f"{count / size:,.{places}f}"
        return fixed if float(fixed.replace(",", "")) or not count else f"{count / size:.2g}"

    return text, letter


def video_script() -> dict[str, str]:
    """For a template: the script that plays videos while they are seen, and the hash by which a page admits it."""
    script = (Path(__file__).parent / "videos.js").read_text()
    digest = hashlib.sha256(script.encode()).digest()
    return {"script": Markup(script), "script_hash": base64.b64encode(digest).decode()}


def embed(file: Path) -> str:
    """An mp4 as a data: URI."""
    return "data:video/mp4;base64," + base64.b64encode(file.read_bytes()).decode()


def poster(file: Path) -> str:
    """The middle frame of an mp4 as a data: URI of a PNG; raises OSError where it is no video."""
    with av.open(str(file)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    if not frames:
        raise OSError(f"{file} has no frames")
    image = BytesIO()
    frames[len(frames) // 2].save(image, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(image.getvalue()).decode()


def side_by_side(*videos: Tensor) -> Tensor:
    """Videos C T H W next to each other, with a grey line between them."""
    line = torch.zeros(*videos[0].shape[:3], 2)
    return torch.cat([part for video in videos for part in (line, video)][1:], dim=3)


def learning_curve(
    metrics: Sequence[Mapping[str, Any]], stage: str, name: str, label: str, validation: str
) -> Markup:
    """An inline SVG of a number of training and its validation against steps, in the colours of the page.

    Args:
        metrics: records of metrics.jsonl.
        stage: of the records.
        name: of the number in training.
        label: of the axis.
        validation: of the number on held-out clips.
    """
    with style():
        figure = Figure(figsize=(4.6, 2.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        # The page is the paper.
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        train, held_out = (points(metrics, stage, key) for key in (name, validation))
        if train:
            axes.plot(*zip(*_thinned(train), strict=True), color=SKY, lw=1.0, alpha=0.8, label="training")
        if held_out:
            dots, few = "o" if len(held_out) <= 40 else "", len(held_out) <= _FEW
            axes.plot(
                *zip(*_thinned(held_out), strict=True), color=OURS, label="held out", marker=dots, ms=5 if few else 3,
                ls="none" if few else "-", clip_on=False, gid="held-out",
            )  # fmt: skip
            # Two points are no curve: they are told by their values.
            for step, value in held_out if few else ():
                note(axes, f"{value:.3g}", (step, value), (-6, 8), color=OURS, ha="right")
        values = [value for _, value in (*train, *held_out)]
        if "loss" in name and values and min(values) > 0 and max(values) > 20 * min(values):
            log_axis(axes, "y", min(values) / 1.1, max(values) * 1.1, label=lambda value: f"{value:g}")
        axes.set(xlabel="step", ylabel=plain(label))
        if train or held_out:
            axes.legend(loc="best")
        own = hashlib.sha256(f"{stage} {name} {validation}".encode(errors="backslashreplace"))
        figure.set_gid(f"curve-{own.hexdigest()[:8]}")
        svg = svg_text(figure)
    for color, variable in (
        (INK, "ink"), (SOFT, "soft"), (GRID, "line"), (SKY, "accent-soft"), (OURS, "accent"),
    ):  # fmt: skip
        svg = svg.replace(color, f"var(--{variable})")
    # In an HTML page an SVG has its names already; an address in it would look like a link.
    for space in ("xmlns", "xmlns:xlink"):
        start = svg.find(f' {space}="')
        if start >= 0:
            svg = svg[:start] + svg[svg.index('"', start + len(space) + 3) + 1 :]
    about = f"{STAGES.get(stage, stage)}: {label} against steps, in training and on held-out clips"
    return Markup(svg.replace("<svg ", f'<svg aria-label="{escape(about)}" ', 1))


def points(metrics: Sequence[Mapping[str, Any]], stage: str, name: str) -> list[tuple[int, float]]:
    """Steps and finite values of a number in the records of a stage."""
    rows = [(row["step"], row[name]) for row in metrics if row["stage"] == stage and name in row]
    return [(s, float(v)) for s, v in rows if number(s) is not None and number(v) is not None]


def _thinned(points: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most `_POINTS` points: means of as many neighbours as it takes."""
    size = -(-len(points) // _POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(s for s, _ in part) / len(part), sum(v for _, v in part) / len(part)) for part in parts]
