"""One look for every figure of the report: sizes, colours, number formats, and how they reach the disk.

A figure is 7.5 inches wide, 720 px on a page, so that a 9 pt letter is 12 px high there. It stands on a white
card of its own and reads on a light page and on a dark one. Text stays text in the SVG. Colours are those of
Okabe and Ito, told apart by colour-blind readers too, and what a colour means never changes: grey is published,
vermilion corrected, blue ours.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from minisora.files import write_whole
from minisora.report.words import tick

WIDTH = 7.5  # inches
PNG_DPI = 150
# Points; nothing is smaller.
SMALL, NORMAL = 9.0, 9.5

INK, SOFT, GRID = "#1a1a1a", "#5c5c5c", "#e3e3e3"
# Of the second, vermilion a shade darker, for letters on white.
PUBLISHED, CORRECTED, OURS = "#5c5c5c", "#b84f00", "#0072b2"
GREEN, PURPLE, SKY, ORANGE = "#009e73", "#a8557f", "#56b4e9", "#e69f00"
MARKERS = {PUBLISHED: "s", CORRECTED: "D", OURS: "o"}

_STYLE = {
    # Comes with matplotlib: the same layout on every machine.
    "font.family": ["DejaVu Sans"],
    "font.size": NORMAL,
    "text.color": INK,
    # "$" is dollars.
    "text.parse_math": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.labelsize": NORMAL,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "legend.handletextpad": 0.3,
    "legend.borderpad": 0.2,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "path.simplify": True,
}
# The layout is measured in DejaVu Sans, the widest of these: whichever a page has, the letters fit.
_FONTS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"

# Drawing starts from matplotlib's own defaults, not from what a user's matplotlibrc or a notebook has set.
_DRAWN = "axes|xtick|ytick|grid|lines|patch|font|text|figure|savefig|svg|path|legend"
_DEFAULTS = {key: value for key, value in matplotlib.rcParamsDefault.items() if re.match(_DRAWN, key)}


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure and what goes around it.

    Args:
        title: a short line; not drawn, so that a page can set it in its own type.
        caption: a sentence that says what to see, with numbers from the model.
        figure: the drawing.
    """

    title: str
    caption: str
    figure: Figure


def style(**more: Any) -> AbstractContextManager[None]:
    """The house style, whatever style a caller has set."""
    return matplotlib.rc_context({**_DEFAULTS, **_STYLE, **more})


# Figures and axes. Layout is matplotlib's "constrained" one, which leaves room for every label.


def canvas(height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width with axes one under another; height in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(panels, 1, place + 1) for place in range(panels)]


def log_axis(axes: Axes, which: str, low: float, high: float, label: Callable[[float], str] = tick) -> None:
    """A logarithmic axis with ticks at powers of ten, and between them where it spans two or less.

    Args:
        axes: to change.
        which: "x" or "y".
        low, high: its ends.
        label: how ticks are written.
    """
    decades = math.log10(high / low)
    between = (1, 2, 5) if decades > 0.6 else range(1, 10)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    ticks = LogLocator(subs=between if decades <= 2 + 1e-9 else (1,), numticks=10).tick_values(low, high)
    axis.set_major_locator(FixedLocator([t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))
    axis.set_tick_params(length=3)


def color_of(preset: str) -> str:
    """Grey for the published preset, vermilion for the corrected one, blue for any other."""
    return {"as_published": PUBLISHED, "corrected": CORRECTED}.get(preset, OURS)


@dataclass(frozen=True)
class RowLabel:
    """What stands at the left of a row."""

    text: str
    color: str = INK
    bold: bool = False


def row_figure(
    labels: Sequence[RowLabel],
    span: tuple[float, float],
    axis: str,
    *,
    height: float,
    ticks: Callable[[float], str] = tick,
    key: Sequence[tuple[str, str, bool]] = (),
) -> tuple[Figure, Axes]:
    """Rows over a logarithmic axis, the first on top, for marks and bars to be drawn into.

    Args:
        labels: of the rows.
        span: ends of the axis.
        axis: its words.
        height: of a row, inches.
        ticks: how its ticks are written.
        key: of the marks: colour (which has a shape), words, and whether the mark is filled.
    """
    figure, (axes,) = canvas(height * len(labels) + 0.6 + (0.3 if key else 0.0))
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), [label.text for label in labels])
    for text, label in zip(axes.get_yticklabels(), labels, strict=True):
        text.set(color=label.color, fontweight="bold" if label.bold else "normal")
    axes.tick_params(axis="y", length=0, pad=6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    log_axis(axes, "x", *span, label=ticks)
    axes.set_xlabel(axis)
    if key:
        marks = [
            Line2D(
                [],
                [],
                ls="",
                marker=MARKERS[color],
                color=color,
                mfc=color if filled else "white",
                label=words,
            )
            for color, words, filled in key
        ]
        figure.legend(
            handles=marks, loc="outside upper center", ncols=len(key), labelcolor=[color for color, *_ in key]
        )
    return figure, axes


def beside(axes: Axes, row: float, text: str, *, column: float = 0, **style: Any) -> None:
    """Text at the right of a row; with a column, it ends that many points from the axes."""
    axes.annotate(
        text, (1, row), xycoords=axes.get_yaxis_transform(), xytext=(column or 8, 0), textcoords="offset points",
        **{"ha": "right" if column else "left", "va": "center", "fontsize": SMALL, **style},
    )  # fmt: skip


def note(
    axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float] = (0, 0), **style: Any
) -> None:
    """A direct label at a point of the data, shifted by points."""
    axes.annotate(
        text, at, xytext=shift, textcoords="offset points",
        **{"fontsize": SMALL, "va": "center", "annotation_clip": False, **style},
    )  # fmt: skip


# To disk.

_rendered: WeakKeyDictionary[Figure, str] = WeakKeyDictionary()


def svg_text(figure: Figure) -> str:
    """A figure as SVG to put into a page: no prolog, ids of its own, styles that stay inside.

    A figure is rendered once; what is changed in it afterwards is not seen.
    """
    if figure not in _rendered:
        name = figure.get_gid() or "figure"
        title = figure.get_label()
        with style(**{"svg.hashsalt": name}):
            text = io.StringIO()
            metadata = {"Date": None, "Creator": None, "Title": str(title)}
            figure.savefig(text, format="svg", metadata=metadata)
        _rendered[figure] = _embeddable(text.getvalue(), name)
    return _rendered[figure]


def _embeddable(svg: str, name: str) -> str:
    """Figures share a page: ids must differ between them and their style rules must not leak out."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("*{stroke-linejoin", f"#{name} *{{stroke-linejoin", 1)
    svg = svg.replace("font-family: 'DejaVu Sans'", f"font-family: {_FONTS}").replace(
        "'DejaVu Sans';", f"{_FONTS};"
    )
    return svg.replace("<svg ", f'<svg id="{name}" role="img" ', 1)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write NAME.svg and NAME.png, each whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    png = io.BytesIO()
    with style():
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    header = '<?xml version="1.0" encoding="utf-8"?>\n'
    for suffix, content in (("svg", (header + svg_text(figure)).encode()), ("png", png.getvalue())):
        write_whole(folder / f"{name}.{suffix}", content)
